"""A user's own program: its command line under the launcher, and the init container that brings the
launcher.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes_validate import validate

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.types import Json
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse

TABLE = load_profiles()
MOUNT = "/opt/inception-launcher"


def build(
    pull_policy: str | None = None,
    pod: Json | None = None,
    spec: Json | None = None,
    **container: Any,
) -> Json:
    containers = [
        {"name": "trainer", **container},
        {"name": "logs", "image": "l", "command": ["tail"], "args": ["-f"]},
    ]
    template = {"spec": {"containers": containers, **(pod or {})}}
    metadata = {"name": "mine", "namespace": "team", "uid": "u"}
    job = parse({"metadata": metadata, "spec": {"template": template, **(spec or {})}})
    images = {"image": "mine:1", "launcher_image": "trainer:1"}
    return build_pod(job, resolve(job, TABLE), 0, 1, **images, pull_policy=pull_policy)


def main(pod: Json) -> Json:
    found: Json = next(c for c in pod["spec"]["containers"] if c["name"] == "trainer")
    return found


def env(pod: Json) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in main(pod)["env"]}


def test_the_metrics_port_is_named_by_the_template_of_a_program_only() -> None:
    """Monitors scrape every pod that names the port."""
    command = ["python", "t.py"]
    assert [port["name"] for port in main(build(command=command))["ports"]] == ["launcher"]
    metrics = {"name": "metrics", "containerPort": 8081}
    assert metrics in main(build(command=command, ports=[metrics]))["ports"]


@pytest.mark.parametrize(
    ("container", "command"),
    [
        pytest.param(
            {"command": ["python", "t.py"]}, ["python", MOUNT, "--", "python", "t.py"], id="python"
        ),
        pytest.param(
            {"command": ["/opt/conda/bin/python3.12", "-m", "pkg"], "args": ["--lr", "1"]},
            [
                "/opt/conda/bin/python3.12",
                MOUNT,
                "--",
                "/opt/conda/bin/python3.12",
                "-m",
                "pkg",
                "--lr",
                "1",
            ],
            id="interpreter of its own",
        ),
        pytest.param(
            {"command": ["torchrun"], "args": ["t.py"]},
            ["python3", MOUNT, "--", "torchrun", "t.py"],
            id="torchrun",
        ),
        pytest.param({"command": ["./run.sh"]}, ["python3", MOUNT, "--", "./run.sh"], id="script"),
        pytest.param(
            {"command": ["pythonic"]}, ["python3", MOUNT, "--", "pythonic"], id="no interpreter"
        ),
    ],
)
def test_the_launcher_runs_the_program(container: Json, command: list[str]) -> None:
    pod = build(**container)
    assert main(pod)["command"] == command
    assert "args" not in main(pod)
    side = pod["spec"]["containers"][1]
    assert (side["command"], side["args"]) == (["tail"], ["-f"])


def test_the_launcher_comes_from_an_init_container() -> None:
    pod = build(
        "Never",
        pod={"initContainers": [{"name": "data", "image": "d"}]},
        command=["python", "t.py"],
    )
    validate(pod, "1.33", strict=True)
    first, second = pod["spec"]["initContainers"]
    assert (first["name"], second["name"]) == ("inception-launcher", "data")
    assert (first["image"], first["imagePullPolicy"], main(pod)["image"]) == (
        "trainer:1",
        "Never",
        "mine:1",
    )
    assert first["command"] == ["python3", "-m", "inception_trainer.launcher.install", MOUNT]
    assert first["volumeMounts"] == [{"name": "inception-launcher", "mountPath": MOUNT}]
    assert {"name": "inception-launcher", "mountPath": MOUNT, "readOnly": True} in main(pod)[
        "volumeMounts"
    ]
    volume = {"name": "inception-launcher", "emptyDir": {"sizeLimit": "64Mi"}}
    assert volume in pod["spec"]["volumes"]


@pytest.mark.parametrize(
    ("resources", "copied"),
    [
        pytest.param(
            None, {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {}}, id="nothing"
        ),
        pytest.param(
            {"requests": {"cpu": "200m"}, "limits": {"memory": "1Gi", "ephemeral-storage": "9Gi"}},
            {"requests": {"cpu": "200m"}, "limits": {"memory": "1Gi"}},
            id="burstable",
        ),
        pytest.param(
            {
                "requests": {"cpu": 2, "memory": "4Gi"},
                "limits": {"cpu": 2, "memory": "4Gi", "hugepages-2Mi": "8Mi"},
            },
            {"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"cpu": 2, "memory": "4Gi"}},
            id="guaranteed",
        ),
    ],
)
def test_the_init_container_asks_for_no_more_than_the_program(
    resources: Json | None, copied: Json
) -> None:
    pod = build(command=["python", "t.py"], **({"resources": resources} if resources else {}))
    assert pod["spec"]["initContainers"][0]["resources"] == copied


def test_the_init_container_is_restricted_whatever_the_program_gets() -> None:
    free = {"readOnlyRootFilesystem": False, "runAsUser": 0, "runAsNonRoot": False}
    pod = build(command=["python", "t.py"], securityContext=free)
    assert main(pod)["securityContext"]["runAsUser"] == 0
    context = pod["spec"]["initContainers"][0]["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_other_users_and_folders_are_taken_over() -> None:
    pod = build(
        pod={"securityContext": {"runAsUser": 1000}},
        command=["python", "t.py"],
        workingDir="/workspace",
    )
    assert pod["spec"]["securityContext"]["runAsUser"] == 1000
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert main(pod)["workingDir"] == "/workspace"


def test_variables_of_the_user_stay_and_none_of_ours_shadows_modules() -> None:
    values = [
        {"name": "PYTHONPATH", "value": "/workspace"},
        {"name": "INCEPTION_PRELOAD", "value": "transformers"},
    ]
    found = env(build(command=["python", "t.py"], env=values))
    assert (found["PYTHONPATH"], found["INCEPTION_PRELOAD"]) == ("/workspace", "transformers")
    assert "PYTHONPATH" not in env(build(command=["python", "t.py"]))


def test_a_program_is_told_where_its_checkpoints_belong() -> None:
    found = env(
        build(spec={"checkpoint": {"volumeClaimName": "c", "keep": 2}}, command=["python", "t.py"])
    )
    assert found["INCEPTION_CHECKPOINT_PATH"] == "/checkpoint/mine"
    assert json.loads(found["INCEPTION_CONFIG"]) == {
        "accelerator": {"profile": "cpu", "module": None, "device": "cpu", "backend": "gloo"},
        "checkpoint": {"path": "/checkpoint/mine", "keep": 2},
        "output": {"path": "/checkpoint/mine/output"},
    }
    assert "INCEPTION_CHECKPOINT_PATH" not in env(build(command=["python", "t.py"]))


@pytest.mark.parametrize(("policy", "told"), [("All", None), ("Chief", "Chief")])
def test_the_launcher_knows_when_its_success_is_the_jobs(policy: str, told: str | None) -> None:
    assert env(build(spec={"successPolicy": policy})).get("INCEPTION_SUCCESS_POLICY") == told


def test_the_bundled_trainer_needs_no_init_container() -> None:
    pod = build(spec={"training": {"recipe": "bninception-digits"}})
    assert "initContainers" not in pod["spec"]
    assert MOUNT not in {mount["mountPath"] for mount in main(pod)["volumeMounts"]}
