"""Configuration files, addresses and processes of a node, as text and data."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path

import pytest
import yaml

from localcluster import components, network, node, nodeconfig, objects
from localcluster.cgroups import cgroup_name
from localcluster.model import ClusterSpec, DeviceSpec, Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "clusters" / "one", tmp_path / "bin", 20123)


@pytest.fixture
def spec() -> ClusterSpec:
    return ClusterSpec(
        "one", devices=(DeviceSpec("cambricon.com/mlu", 4), DeviceSpec("nvidia.com/gpu", 2, "X"))
    )


def test_containerd_keeps_images_in_the_store_and_state_in_the_mount_namespace(
    layout: Layout,
) -> None:
    config = tomllib.loads(nodeconfig.containerd(layout, Path("/store"), restrict_oom_score=True))
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert config["version"] == 3
    assert config["root"] == "/store/containerd"
    assert config["state"].startswith("/run/")
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["cni"]["bin_dirs"] == [str(layout.binaries)]
    pinned = config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]
    assert pinned == {"sandbox": nodeconfig.PAUSE_IMAGE}


def test_buildkit_builds_into_the_images_of_the_node(layout: Layout) -> None:
    config = tomllib.loads(nodeconfig.buildkitd(layout, Path("/store")))
    worker = config["worker"]["containerd"]
    assert worker["namespace"] == "k8s.io"
    assert worker["address"] == str(layout.containerd_socket)
    assert worker["defaultCgroupParent"].startswith(f"/{cgroup_name(layout)}/")


def test_kubelet_runs_on_either_cgroup_version_and_confines_pods(layout: Layout) -> None:
    config = yaml.safe_load(nodeconfig.kubelet(layout))
    assert config["failCgroupV1"] is False
    assert config["failSwapOn"] is False
    assert config["cgroupRoot"] == f"/{cgroup_name(layout)}"
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_kube_proxy_leaves_the_host_kernel_alone(layout: Layout) -> None:
    config = yaml.safe_load(nodeconfig.kube_proxy(layout, masquerade_all=False))
    assert config["mode"] == "nftables"
    assert config["conntrack"] == {
        "maxPerCore": 0,
        "min": 0,
        "tcpCloseWaitTimeout": "0s",
        "tcpEstablishedTimeout": "0s",
    }


def test_dns_does_not_cache(layout: Layout) -> None:
    corefile = nodeconfig.corefile(layout)
    assert "cache" not in corefile.replace(str(layout.root), "")
    assert f"bind {network.NODE_ADDRESS}" in corefile


def test_pod_network_is_one_bridge(layout: Layout) -> None:
    (plugin,) = json.loads(nodeconfig.cni(layout))["plugins"]
    assert plugin["type"] == "bridge"
    assert plugin["ipam"]["ranges"] == [[{"subnet": network.POD_CIDR}]]


def test_all_files_lie_in_the_cluster(layout: Layout) -> None:
    files = nodeconfig.render_all(
        layout, Path("/store"), restrict_oom_score=False, masquerade_all=True
    )
    assert len(files) == 6
    assert all(path.is_relative_to(layout.root) for path in files)


def test_addresses_do_not_overlap() -> None:
    pods, services = (
        ipaddress.ip_network(network.POD_CIDR),
        ipaddress.ip_network(network.SERVICE_CIDR),
    )
    own = ipaddress.ip_address(network.NODE_ADDRESS)
    assert not pods.overlaps(services)
    assert own not in pods
    assert own not in services
    assert ipaddress.ip_address(network.DNS_SERVICE_ADDRESS) in services


def test_links_bring_the_loopback_up_and_end_with_a_default_route() -> None:
    commands = network.link_commands()
    assert commands[0] == ("ip", "link", "set", "lo", "up")
    assert commands[-1][:4] == ("ip", "route", "add", "default")


def test_every_required_binary_can_be_built(spec: ClusterSpec) -> None:
    assert set(node.required_components(spec)) <= set(components.COMPONENTS)


def test_processes_start_containerd_first_and_the_device_plugins_last(
    layout: Layout, spec: ClusterSpec
) -> None:
    processes = node.processes(layout, spec)
    names = [process.name for process in processes]
    assert names.index("containerd") < names.index("kubelet") < names.index("kube-proxy")
    assert names[-1] == "device-plugins"
    assert {"--device=cambricon.com/mlu=4", "--device=nvidia.com/gpu=2:X"} <= set(
        processes[-1].argv
    )
    assert all(process.env["PATH"].startswith(str(layout.binaries)) for process in processes)


def test_fixed_paths_are_covered_by_directories_of_the_cluster(layout: Layout) -> None:
    mounts = node.bind_mounts(layout)
    assert Path("/var/lib/kubelet") in mounts
    assert all(source.is_relative_to(layout.root) for source in mounts.values())


def test_standard_objects_include_the_default_storage_class() -> None:
    (storage_class,) = (
        item for item in objects.standard_objects() if item["kind"] == "StorageClass"
    )
    assert storage_class["metadata"]["annotations"] == {
        "storageclass.kubernetes.io/is-default-class": "true"
    }


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param([{"type": "Ready", "status": "True"}], True, id="ready"),
        pytest.param([{"type": "Ready", "status": "Unknown"}], False, id="unknown"),
        pytest.param([{"type": "DiskPressure", "status": "True"}], False, id="other-condition"),
        pytest.param([], False, id="none"),
    ],
)
def test_node_readiness(conditions: list[dict[str, str]], expected: bool) -> None:
    assert objects.is_ready({"status": {"conditions": conditions}}) is expected


def test_allocatable_is_zero_for_what_the_node_does_not_offer() -> None:
    status = {"status": {"allocatable": {"cambricon.com/mlu": "4"}}}
    assert objects.allocatable(status, "cambricon.com/mlu") == 4
    assert objects.allocatable(status, "nvidia.com/gpu") == 0


def test_a_silent_kubelet_is_noticed_after_some_missed_leases(layout: Layout) -> None:
    grace = f"--node-monitor-grace-period={nodeconfig.NODE_GRACE_SECONDS}s"
    assert grace in node.controller_flags()
    config = yaml.safe_load(nodeconfig.kubelet(layout))
    assert config["nodeLeaseDurationSeconds"] == nodeconfig.NODE_GRACE_SECONDS
