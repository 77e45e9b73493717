"""What the rows of the table bring into a pod, and that no row brings more than it says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from inception_operator.accelerators.resolve import DIRECTORY, load_profiles, parse_profile, resolve
from inception_operator.contract.types import Json
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse

TABLE = load_profiles()
ROWS: dict[str, Json] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(DIRECTORY.glob("*.yaml"))
}
# What only the user knows.
NAMED = {"tecorigin": ({"resourceName": "example.com/sdaa"}, {"numProcPerNode": 4})}
SMALL = {"cpu": "100m", "memory": "430Mi"}
# Rows that need more than Pod Security "restricted" allows; each says why.
BEYOND_RESTRICTED = {"hygon"}
FULL: Json = {
    "name": "full",
    "resource": "example.com/card",
    "torch": {"device": "card", "backend": "ccl"},
    "runtimeClass": "card",
    "env": {"CARD_TIMEOUT": "9"},
    "mounts": [
        {"hostPath": "/opt/card", "reason": "driver"},
        {"hostPath": "/var/card", "mountPath": "/card", "readOnly": False, "reason": "cache"},
    ],
    "security": {
        "capabilities": ["IPC_LOCK"],
        "supplementalGroups": [44, 109],
        "reason": "device files",
    },
    "shm": "8Gi",
    "extraResources": {"rdma/hca": "1", "hugepages-2Mi": "4Gi"},
}


def build(profile: Json, template: Json | None = None, **spec: Any) -> Json:
    table = {**TABLE, "full": parse_profile(FULL, "full")}
    body = {"accelerator": profile, "template": template or {}, **spec}
    job = parse({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": body})
    pod = build_pod(job, resolve(job, table), 0, 1, image="i:1", launcher_image="i:1")
    validate(pod, "1.33", strict=True)
    return pod


def of_row(name: str) -> Json:
    accelerator, spec = NAMED.get(name, ({}, {}))
    return build({"profile": name, **accelerator}, **spec)


def trainer(pod: Json) -> Json:
    found: Json = pod["spec"]["containers"][0]
    return found


def env(pod: Json) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in trainer(pod)["env"]}


def template(**container: Any) -> Json:
    return {"spec": {"containers": [{"name": "trainer", **container}]}}


@pytest.mark.parametrize("name", TABLE)
def test_each_row_requests_its_devices_alike_and_nothing_else(name: str) -> None:
    pod, row = of_row(name), TABLE[name]
    if not row.has_devices:
        assert trainer(pod)["resources"] == {"requests": SMALL}
        return
    resource = row.resource or "example.com/sdaa"
    assert trainer(pod)["resources"] == {
        "requests": {**SMALL, resource: "1"},
        "limits": {resource: "1"},
    }
    assert [t["key"] for t in pod["spec"]["tolerations"]] == [t.key for t in row.tolerations]


@pytest.mark.parametrize("name", TABLE)
def test_no_row_lets_the_pod_choose_devices(name: str) -> None:
    """That is the device plugin's to do; a container that names its devices itself may see those of
    others.
    """
    chosen = {variable for row in ROWS.values() for variable in row["visible"] if variable}
    assert not chosen & env(of_row(name)).keys()


@pytest.mark.parametrize("name", TABLE)
def test_pods_are_restricted_but_for_the_rows_that_say_why(name: str) -> None:
    spec = of_row(name)["spec"]
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    added = trainer({"spec": spec})["securityContext"]["capabilities"].get("add", [])
    beyond = "hostPath" in kinds or bool(added)
    assert beyond == (name in BEYOND_RESTRICTED)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert "privileged" not in trainer({"spec": spec})["securityContext"]


def test_a_row_can_bring_all_that_a_device_may_need() -> None:
    pod = build({"profile": "full", "devicesPerNode": 2})
    spec, main = pod["spec"], trainer(pod)
    assert main["resources"]["requests"] == {**SMALL, **main["resources"]["limits"]}
    assert main["resources"]["limits"] == {
        "example.com/card": "2",
        "rdma/hca": "1",
        "hugepages-2Mi": "4Gi",
    }
    assert spec["runtimeClassName"] == "card"
    assert spec["securityContext"]["supplementalGroups"] == [44, 109]
    assert main["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert env(pod)["CARD_TIMEOUT"] == "9"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    mounts = {
        m["mountPath"]: (volumes[m["name"]]["hostPath"]["path"], m["readOnly"])
        for m in main["volumeMounts"][2:4]
    }
    assert mounts == {"/opt/card": ("/opt/card", True), "/card": ("/var/card", False)}


def test_the_template_has_the_last_word_on_what_a_row_brings() -> None:
    resources = {
        "requests": {"cpu": "1"},
        "limits": {"rdma/hca": 2, "hugepages-2Mi": "8Gi", "memory": "4Gi"},
    }
    pod = build(
        {"profile": "full"},
        {
            "spec": {
                "runtimeClassName": "mine",
                "securityContext": {"supplementalGroups": [7]},
                **template(
                    resources=resources,
                    env=[{"name": "CARD_TIMEOUT", "value": "1"}],
                    volumeMounts=[{"name": "tmp", "mountPath": "/opt/card"}],
                )["spec"],
            }
        },
    )
    main = trainer(pod)
    whole = {"rdma/hca": 2, "hugepages-2Mi": "8Gi", "example.com/card": "1"}
    assert main["resources"] == {
        "requests": {"cpu": "1", **whole},
        "limits": {"memory": "4Gi", **whole},
    }
    assert (pod["spec"]["runtimeClassName"], env(pod)["CARD_TIMEOUT"]) == ("mine", "1")
    assert pod["spec"]["securityContext"]["supplementalGroups"] == [7]
    assert {m["mountPath"]: m["name"] for m in main["volumeMounts"]}["/opt/card"] == "tmp"


@pytest.mark.parametrize("side", ["requests", "limits"])
def test_networks_of_the_template_are_requested_and_limited_alike(side: str) -> None:
    whole = {"vpc.amazonaws.com/efa": 4, "hugepages-2Mi": "5128Mi"}
    pod = build({"profile": "cpu"}, template(resources={side: {"cpu": 2, **whole}}))
    other = "limits" if side == "requests" else "requests"
    resources = {side: {"cpu": 2, **whole}, other: whole}
    resources["requests"] = {"memory": "430Mi", **resources["requests"]}
    assert trainer(pod)["resources"] == resources


def test_rows_of_a_directory_replace_those_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(FULL, sort_keys=False), encoding="utf-8")
    assert load_profiles(tmp_path) == {"full": parse_profile(FULL, "full")}
