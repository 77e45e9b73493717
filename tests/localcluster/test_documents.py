"""Certificates, kubeconfigs, command lines and kwok stages: what is written before anything
runs.
"""

from __future__ import annotations

import argparse
import base64
import json
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster import cli, controlplane, kubeconfig, kwok, network, pki, ports
from localcluster.model import ClusterSpec, DeviceSpec, Layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("cluster"), Path("/bin"), 20001)
    ports.file_of(layout.root).write_text(
        json.dumps({name: 20001 + n for n, name in enumerate(ports.NAMES)})
    )
    pki.create(layout)
    kubeconfig.create(layout)
    return layout


def _certificate(layout: Layout, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(layout.pki(f"{name}.crt").read_bytes())


@pytest.mark.parametrize("leaf", pki.leaves(), ids=lambda leaf: leaf.name)
def test_every_certificate_is_issued_by_the_authority(layout: Layout, leaf: pki.Leaf) -> None:
    certificate = _certificate(layout, leaf.name)
    certificate.verify_directly_issued_by(_certificate(layout, "ca"))
    assert (
        certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == leaf.common_name
    )


def test_the_api_server_answers_to_all_its_names(layout: Layout) -> None:
    extension = _certificate(layout, "apiserver").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "kubernetes.default.svc.cluster.local" in extension.value.get_values_for_type(
        x509.DNSName
    )
    addresses = {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", "10.96.0.1", network.NODE_ADDRESS}


def test_a_client_certificate_cannot_serve(layout: Layout) -> None:
    usage = (
        _certificate(layout, "kubelet")
        .extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        .value
    )
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_secrets_are_private(layout: Layout) -> None:
    secrets = [*layout.pki("x").parent.glob("*.key"), *layout.kubeconfig("x").parent.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


@pytest.mark.parametrize(
    "user", ["admin", "kubelet", "kube-proxy", "coredns", "kube-scheduler", "kwok"]
)
def test_a_kubeconfig_stands_alone(layout: Layout, user: str) -> None:
    document = yaml.safe_load(layout.kubeconfig(user).read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:20001"
    key = base64.b64decode(document["users"][0]["user"]["client-key-data"])
    assert key == layout.pki(f"{user}.key").read_bytes()


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (ClusterSpec(flavour="control-plane"), ["kube-controller-manager", "kube-scheduler"]),
        (
            ClusterSpec(flavour="control-plane", kwok_nodes=1),
            ["kube-controller-manager", "kube-scheduler", "kwok"],
        ),
    ],
    ids=["bare", "kwok"],
)
def test_the_order_of_start(layout: Layout, spec: ClusterSpec, names: list[str]) -> None:
    first, second, third = controlplane.batches(layout, spec)
    assert ([one.name for one in first], [one.name for one in second]) == (
        ["etcd"],
        ["kube-apiserver"],
    )
    assert [one.name for one in third] == names


def test_a_control_plane_listens_on_the_loopback_address_only(layout: Layout) -> None:
    batches = controlplane.batches(layout, ClusterSpec(flavour="control-plane", kwok_nodes=1))
    text = " ".join(argument for batch in batches for process in batch for argument in process.argv)
    assert "0.0.0.0" not in text
    assert text.count("--bind-address=127.0.0.1") == 3


def test_the_api_server_of_a_node_cluster_gets_the_flags_of_the_node(layout: Layout) -> None:
    (server,) = controlplane.batches(layout, ClusterSpec(flavour="node"))[1]
    assert f"--advertise-address={network.NODE_ADDRESS}" in server.argv
    assert "--bind-address=127.0.0.1" not in server.argv


def test_kwok_is_steered_by_the_documented_annotations() -> None:
    text = json.dumps(kwok.stages())
    for annotation in (
        kwok.HOLD,
        kwok.SUCCEED_AFTER,
        kwok.FAIL_AFTER,
        kwok.EXIT_CODE,
        kwok.MESSAGE,
    ):
        assert annotation in text
        assert annotation in (kwok.__doc__ or "")


def test_a_fake_node_has_what_was_asked_for_on_top_of_the_defaults() -> None:
    node = kwok.node(
        "n", {"cambricon.com/mlu": "8", "cpu": "2"}, labels={"zone": "a"}, tainted=True
    )
    assert node["status"]["allocatable"] == node["status"]["capacity"]
    assert node["status"]["capacity"]["cambricon.com/mlu"] == "8"
    assert (node["status"]["capacity"]["cpu"], node["status"]["capacity"]["memory"]) == (
        "2",
        "512Gi",
    )
    assert node["metadata"]["labels"]["zone"] == "a"
    assert node["spec"]["taints"][0]["key"] == kwok.NODE_MARK


def test_the_command_line_of_up() -> None:
    resources = ["--resource", "a.b/c=8", "--resource", "d.e/f=1"]
    arguments = cli.parser().parse_args(
        ["up", "--name", "x", *resources, "--device", "cambricon.com/mlu=4"]
    )
    assert arguments.resource == [("a.b/c", "8"), ("d.e/f", "1")]
    assert arguments.device == [DeviceSpec("cambricon.com/mlu", 4)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("up --device mlu=4", "expected RESOURCE=COUNT"),
        ("up --resource a.b/c", "expected NAME=VALUE"),
        ("up --flavour large", "invalid choice"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(
    text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.parser().parse_args(text.split())
    assert complaint in capsys.readouterr().err


def test_kubectl_gets_its_arguments_untouched() -> None:
    arguments = cli.parser().parse_args(
        ["kubectl", "--name", "x", "get", "pods", "--all-namespaces", "-o", "wide"]
    )
    assert (arguments.name, arguments.arguments) == (
        "x",
        ["get", "pods", "--all-namespaces", "-o", "wide"],
    )


def test_an_unknown_cluster_is_one_line_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCALCLUSTER_CACHE", str(tmp_path))
    assert cli.main(["kubectl", "--name", "ghost", "get", "pods"]) == 1
    assert capsys.readouterr().err == "localcluster: cluster ghost is not running\n"
    assert cli.main(["down", "--name", "ghost"]) == 0


def test_every_command_has_help() -> None:
    actions = [one for one in cli.parser()._actions if isinstance(one, argparse._SubParsersAction)]
    assert set(actions[0].choices) == {
        "up",
        "down",
        "status",
        "kubectl",
        "logs",
        "build-image",
        "build",
        "prune",
    }
    assert all(choice.help for choice in actions[0]._choices_actions)
