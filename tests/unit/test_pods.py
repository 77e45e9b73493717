"""The pod of a slot: what it holds, what a template may change and what it may not."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_validate import validate

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract import assignment
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import MAX_JOB_NAME_LENGTH, PodPolicy
from inception_operator.contract.types import Json
from inception_operator.pod.build import USER, build_pod, merge, pod_name
from inception_operator.pod.policy import find_violations
from inception_operator.spec.job import parse

TABLE = load_profiles()
NO_MESH = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}


def build(
    slot: int = 0,
    attempt: int = 1,
    order: Any = None,
    operator: str = "",
    user: int | None = USER,
    **spec: Any,
) -> Json:
    metadata = {
        "name": "digits",
        "namespace": "team",
        "uid": "u-1",
        "creationTimestamp": "2026-11-30T03:33:11Z",
        "generation": 1,
    }
    job = parse(
        {"metadata": metadata, "spec": {"training": {"recipe": "bninception-digits"}, **spec}}
    )
    return build_pod(
        job,
        resolve(job, TABLE),
        slot,
        attempt,
        image="trainer:1",
        launcher_image="launcher:1",
        assignment=order,
        notify_address=operator,
        user=user,
    )


def container(pod: Json) -> Json:
    found: Json = next(c for c in pod["spec"]["containers"] if c["name"] == "trainer")
    return found


def env(pod: Json) -> dict[str, Any]:
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(pod)["env"]
    }


def trainer(**fields: Any) -> Json:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


SPECS = [
    {},
    {"numNodes": 4, "checkpoint": {"volumeClaimName": "claim", "keep": 2}},
    {"accelerator": {"profile": "nvidia", "devicesPerNode": 8}},
    {"accelerator": {"profile": "cambricon", "resourceName": "cambricon.com/mlu370"}},
    {"template": {"metadata": {"labels": {"team": "a"}}, "spec": {"nodeSelector": {"a": "b"}}}},
    {
        "runPolicy": {
            "schedulingPolicy": {"priorityClassName": "high", "topologyKey": "example.com/rack"}
        }
    },
]
NAMES = ["plain", "checkpoint", "nvidia", "cambricon", "template", "scheduling"]


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_pod_is_a_pod(spec: Json) -> None:
    validate(build(**spec), "1.33", strict=True)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_pod_is_restricted(spec: Json) -> None:
    pod = build(**spec)["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 10000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for each in pod["containers"]:
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds <= {"emptyDir", "downwardAPI", "persistentVolumeClaim"}
    assert pod["automountServiceAccountToken"] is False


def test_the_cluster_may_choose_the_user() -> None:
    """OpenShift refuses every number but those that it has given to the namespace."""
    assert build(user=1234)["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 1234),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    left = build(user=None)
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & left["spec"]["securityContext"].keys()
    assert find_violations(left, PodPolicy.RESTRICTED) == ()
    # Whatever number it is, programs that ask for its name find one.
    assert env(left)["USER"] == "inception"


def test_what_every_pod_has() -> None:
    pod = build(slot=1, attempt=3)
    spec, main = pod["spec"], container(pod)
    assert pod["metadata"]["name"] == "digits-1-3"
    assert pod["metadata"]["labels"] == {
        "training.inception.dev/job": "digits",
        "training.inception.dev/job-uid": "u-1",
        "training.inception.dev/slot": "1",
        "training.inception.dev/incarnation": "3",
        "training.inception.dev/role": "worker",
        "app.kubernetes.io/name": "inception-training",
        "app.kubernetes.io/instance": "digits",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "inception-operator",
    }
    assert pod["metadata"]["annotations"] == NO_MESH
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 120)
    assert spec["enableServiceLinks"] is False
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in spec["volumes"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}} in spec["volumes"]
    assert {mount["mountPath"] for mount in main["volumeMounts"]} == {
        "/dev/shm",
        "/tmp",
        "/etc/inception",
    }
    assert main["command"] == ["python3", "-m", "inception_trainer", "launch"]
    assert {port["name"]: port["containerPort"] for port in main["ports"]} == {
        "launcher": 8080,
        "metrics": 8081,
    }
    assert main["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8080}


def test_environment() -> None:
    values = env(build(checkpoint={"volumeClaimName": "claim", "everySteps": 5}))
    assert json.loads(values["INCEPTION_CONFIG"]) == {
        "recipe": "bninception-digits",
        "accelerator": {"profile": "cpu", "module": None, "device": "cpu", "backend": "gloo"},
        "checkpoint": {"path": "/checkpoint/digits", "everySteps": 5},
        "output": {"path": "/checkpoint/digits/output"},
    }
    assert values["INCEPTION_JOB"] == "team/digits"
    assert values["INCEPTION_JOB_UID"] == "u-1"
    assert values["INCEPTION_JOB_CREATED"] == "2026-11-30T03:33:11Z"
    assert values["INCEPTION_SHUTDOWN_SECONDS"] == "110"
    assert values["INCEPTION_METRICS_PORT"] == "8081"
    assert values["POD_IP"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert values["INCEPTION_POD_UID"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert values["HOME"] == "/tmp"


def test_a_launcher_knows_whom_to_tell_that_it_is_up() -> None:
    assert "INCEPTION_NOTIFY_ADDRESS" not in env(build())
    assert env(build(operator="10.0.0.7:8080"))["INCEPTION_NOTIFY_ADDRESS"] == "10.0.0.7:8080"


def test_every_key_about_checkpoints_reaches_the_trainer() -> None:
    keys = {
        "everySteps": 5,
        "everyEpochs": 2,
        "everySeconds": 30,
        "keep": 4,
        "keepEveryEpochs": 10,
        "memory": "Never",
    }
    values = env(build(checkpoint={"volumeClaimName": "claim", **keys}))
    config = json.loads(values["INCEPTION_CONFIG"])
    assert config["checkpoint"] == {"path": "/checkpoint/digits", **keys}


@pytest.mark.parametrize(
    ("accelerator", "nproc", "expected"),
    [
        (
            {"profile": "cambricon", "devicesPerNode": 4},
            "auto",
            {"visible": ["MLU_VISIBLE_DEVICES", "CAMBRICON_VISIBLE_DEVICES"], "devices": 4},
        ),
        (
            {"profile": "hygon"},
            "auto",
            {"visible": ["HIP_VISIBLE_DEVICES"], "devices": 1, "precisionRule": "AskDevice"},
        ),
        # How many devices a card of this vendor has is not known: the trainer takes what it finds.
        (
            {"profile": "tecorigin", "resourceName": "x.com/card"},
            4,
            {"visible": ["SDAA_VISIBLE_DEVICES"]},
        ),
    ],
    ids=["count", "rule", "unknown-count"],
)
def test_trainer_is_told_what_to_expect(accelerator: Json, nproc: Any, expected: Json) -> None:
    config = json.loads(
        env(build(accelerator=accelerator, numProcPerNode=nproc))["INCEPTION_CONFIG"]
    )
    told = config["accelerator"]
    assert {
        key: told[key] for key in ("visible", "devices", "precisionRule") if key in told
    } == expected
    assert told["profile"] == accelerator["profile"]


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [({}, None), ({"progressDeadlineSeconds": 90}, "90"), ({"progressDeadlineSeconds": 0}, "0")],
    ids=["absent", "given", "switched off"],
)
def test_deadline_for_progress_reaches_the_launcher(policy: Json, seconds: str | None) -> None:
    assert env(build(failurePolicy=policy)).get("INCEPTION_PROGRESS_DEADLINE_SECONDS") == seconds


@pytest.mark.parametrize("path", ["/data/runs", "/data/runs/"])
def test_checkpoint_path_of_the_template(path: str) -> None:
    pod = build(checkpoint={"path": path})
    assert json.loads(env(pod)["INCEPTION_CONFIG"])["checkpoint"]["path"] == "/data/runs/digits"
    assert "/checkpoint" not in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}


def test_checkpoint_in_a_store() -> None:
    pod = build(checkpoint={"uri": "s3://bucket/runs/"})
    config = json.loads(env(pod)["INCEPTION_CONFIG"])
    assert config["checkpoint"]["path"] == "s3://bucket/runs/team/digits"
    assert config["output"]["path"] == "s3://bucket/runs/team/digits/output"
    assert env(pod)["INCEPTION_OTHER_CHECKPOINT_PATH"] == "s3://bucket/runs/digits"
    assert "/checkpoint" not in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}


def test_no_checkpoint() -> None:
    assert "checkpoint" not in json.loads(env(build())["INCEPTION_CONFIG"])


def test_assignment_from_birth() -> None:
    order = assignment.work(2, 0, 1, 4, None, graceful=False)
    text = build(order=order)["metadata"]["annotations"]["training.inception.dev/assignment"]
    assert json.loads(text) == {
        "attempt": 2,
        "nodeRank": 0,
        "nnodes": 1,
        "nprocPerNode": 4,
        "masterAddr": "127.0.0.1",
        "masterPort": 29502,
        "graceful": False,
        "contract": 1,
    }
    assert assignment.from_json(text) == order


def test_devices_are_requested_and_limited_alike() -> None:
    resources = {"requests": {"cpu": "4"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": 2}}
    pod = build(accelerator={"profile": "nvidia"}, template=trainer(resources=resources))
    assert container(pod)["resources"] == {
        "requests": {"cpu": "4", "nvidia.com/gpu": "2"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "2"},
    }
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"][
        "tolerations"
    ]


SMALL = {"cpu": "100m", "memory": "430Mi"}
"""Of which 174 MiB for two copies of the state in shared memory."""


@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        (None, SMALL),
        ({"requests": None, "limits": None}, SMALL),
        ({"requests": {"cpu": 2}}, {"cpu": 2, "memory": "430Mi"}),
        ({"limits": {"memory": "64Mi"}}, {"cpu": "100m"}),
        ({"limits": {"cpu": "50m", "memory": "64Mi"}}, {}),
        ({"requests": {"ephemeral-storage": "1Gi"}}, {"ephemeral-storage": "1Gi", **SMALL}),
    ],
    ids=["nothing", "nulls", "one", "one-limit", "limits", "another"],
)
def test_a_little_is_requested_of_what_the_template_does_not_speak_of(
    resources: Json | None, requests: Json
) -> None:
    template = {} if resources is None else {"template": trainer(resources=resources)}
    given = container(build(**template)).get("resources", {})
    assert (given.get("requests") or {}) == requests
    assert (given.get("limits") or {}) == ((resources or {}).get("limits") or {})


@pytest.mark.parametrize(
    ("changes", "memory"),
    [
        ({"training": {"model": {"name": "inception_v3"}, "data": {"kind": "Digits"}}}, "620Mi"),
        ({"training": {"recipe": "inceptionv4-digits"}}, "908Mi"),
        ({"training": {"recipe": "resnet50-imagenet"}}, "648Mi"),
        ({"training": {"recipe": "bninception-digits", "mode": "Evaluate"}}, "256Mi"),
        ({"checkpoint": {"uri": "s3://b/runs", "memory": "Never"}}, "256Mi"),
        ({"checkpoint": {"uri": "s3://b/runs", "memory": "Auto"}}, "430Mi"),
    ],
    ids=["v3", "v4 by recipe", "ResNet by recipe", "no training", "Never", "Auto"],
)
def test_two_copies_of_the_state_are_part_of_the_memory_request(changes: Json, memory: str) -> None:
    assert container(build(**changes))["resources"]["requests"]["memory"] == memory


def cached(**sizes: int) -> Json:
    return {"training": {"recipe": "bninception-digits", "data": {"cache": sizes}}}


def test_data_that_is_kept_in_memory_is_part_of_the_memory_request() -> None:
    pod = build(**cached(memoryMebibytes=1000))
    assert container(pod)["resources"]["requests"]["memory"] == "1430Mi"


def test_data_that_is_kept_on_disk_makes_the_folder_for_temporary_files_larger() -> None:
    pod = build(**cached(diskMebibytes=1025))
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "22Gi"}} in pod["spec"]["volumes"]


@pytest.mark.parametrize(
    ("limit", "fits"),
    [("1280Mi", True), ("1279Mi", False), ("1Gi", False), ("2G", True), (10**9, False)],
)
def test_a_cache_that_the_memory_limit_leaves_no_room_for_is_refused(
    limit: Any, fits: bool
) -> None:
    limits = {"resources": {"limits": {"memory": limit}}}
    wanted = nullcontext() if fits else pytest.raises(SpecError, match="1024 MiB do not fit")
    for template in (trainer(**limits), {"spec": limits}):
        with wanted as refused:
            build(template=template, **cached(memoryMebibytes=1024))
        if refused is not None:
            assert refused.value.path == "spec.training.data.cache.memoryMebibytes"


def test_a_pod_that_is_sized_as_a_whole_gets_no_requests_of_ours() -> None:
    whole = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    pod = build(template={"spec": {"resources": whole}})
    assert "resources" not in container(pod)
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["spec"]["volumes"]


def test_shared_memory_is_bounded_by_the_memory_limit_where_there_is_one() -> None:
    limited = trainer(resources={"limits": {"memory": "8Gi"}})
    volumes = build(template=limited)["spec"]["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in volumes


def test_the_template_may_give_volumes_of_ours_another_size() -> None:
    large = {"name": "tmp", "emptyDir": {"sizeLimit": "500Gi"}}
    volumes = build(template={"spec": {"volumes": [large]}})["spec"]["volumes"]
    assert [each for each in volumes if each["name"] == "tmp"] == [large]


@pytest.mark.parametrize(
    ("limit", "nproc", "threads"),
    [("4", 2, "2"), ("500m", 1, "1"), (3, 2, "1"), (None, 2, None), ("4Gi", 1, None)],
)
def test_threads_follow_the_cpu_limit(limit: Any, nproc: int, threads: str | None) -> None:
    limits = {} if limit is None else {"cpu": limit}
    pod = build(numProcPerNode=nproc, template=trainer(resources={"limits": limits}))
    assert env(pod).get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        ({}, "trainer:1"),
        ({"image": "mine:2"}, "mine:2"),
        ({"template": trainer(image="templates:3")}, "templates:3"),
        ({"image": "mine:2", "template": trainer(image="templates:3")}, "mine:2"),
    ],
    ids=["default", "spec", "template", "both"],
)
def test_image(spec: Json, image: str) -> None:
    assert container(build(**spec))["image"] == image


def test_template_is_merged_by_name() -> None:
    pod = build(
        template={
            "metadata": {
                "labels": {"team": "a", "training.inception.dev/job": "other"},
                "annotations": {"note": "b", "training.inception.dev/assignment": "{}"},
            },
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "spot", "operator": "Exists"}],
                "terminationGracePeriodSeconds": 300,
                "securityContext": {"fsGroup": 5},
                "containers": [
                    {
                        "name": "trainer",
                        "env": [
                            {"name": "HOME", "value": "/data"},
                            {"name": "EXTRA", "value": "1"},
                        ],
                        "volumeMounts": [
                            {"name": "data", "mountPath": "/data"},
                            {"name": "x", "mountPath": "/etc/inception"},
                        ],
                        "securityContext": {"readOnlyRootFilesystem": False},
                    },
                    {"name": "logs", "image": "logs:1"},
                ],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
                    {"name": "tmp", "hostPath": {}},
                ],
            },
        },
        accelerator={"profile": "cambricon"},
    )
    spec, main, values = pod["spec"], container(pod), env(pod)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["training.inception.dev/job"] == "digits"
    assert pod["metadata"]["annotations"] == {**NO_MESH, "note": "b"}
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert [t["key"] for t in spec["tolerations"]] == ["cambricon.com/mlu", "spot"]
    assert spec["securityContext"]["fsGroup"] == 5
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert (values["HOME"], values["EXTRA"], values["INCEPTION_SHUTDOWN_SECONDS"]) == (
        "/data",
        "1",
        "290",
    )
    assert [c["name"] for c in spec["containers"]] == ["trainer", "logs"]
    assert main["securityContext"]["allowPrivilegeEscalation"] is False
    assert main["securityContext"]["readOnlyRootFilesystem"] is False
    mounts = {mount["mountPath"]: mount["name"] for mount in main["volumeMounts"]}
    assert mounts == {
        "/dev/shm": "shm",
        "/tmp": "tmp",
        "/data": "data",
        "/etc/inception": "assignment",
    }
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["tmp"] == {"name": "tmp", "hostPath": {}}, "a volume is replaced as a whole"
    assert sorted(volumes) == ["assignment", "data", "shm", "tmp"]


PLACING: Json = {
    "priorityClassName": "high",
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "a", "labelSelector": {}}}
            ]
        },
    },
    "schedulerName": "other",
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "a",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {},
        }
    ],
}


@pytest.mark.parametrize("field", PLACING)
def test_what_the_template_says_about_placing_arrives(field: str) -> None:
    pod = build(template={"spec": PLACING})
    validate(pod, "1.33", strict=True)
    assert pod["spec"][field] == PLACING[field]


def test_a_job_is_kept_together_by_preference() -> None:
    pod = build(
        runPolicy={
            "schedulingPolicy": {"priorityClassName": "high", "topologyKey": "example.com/rack"}
        }
    )
    assert pod["spec"]["priorityClassName"] == "high"
    (wish,) = pod["spec"]["affinity"]["podAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert wish["weight"] == 100
    assert wish["podAffinityTerm"] == {
        "topologyKey": "example.com/rack",
        "labelSelector": {"matchLabels": {"training.inception.dev/job": "digits"}},
    }
    assert (
        wish["podAffinityTerm"]["labelSelector"]["matchLabels"].items()
        <= pod["metadata"]["labels"].items()
    )


def test_the_wish_stands_beside_those_of_the_template() -> None:
    template = {"spec": {"affinity": PLACING["affinity"]}}
    pod = build(template=template, runPolicy={"schedulingPolicy": {"topologyKey": "rack"}})
    affinity = pod["spec"]["affinity"]
    assert affinity["nodeAffinity"] == PLACING["affinity"]["nodeAffinity"]
    wishes = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [wish["weight"] for wish in wishes] == [1, 100]
    assert (
        len(PLACING["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"])
        == 1
    )


def test_two_priority_classes_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"schedulingPolicy\.priorityClassName: cannot be set beside"
    ):
        build(
            template={"spec": PLACING}, runPolicy={"schedulingPolicy": {"priorityClassName": "low"}}
        )


def test_profile_brings_environment_and_runtime_class() -> None:
    changes = {"env": {"NCCL_X": "1"}, "runtime_class": "nvidia"}
    row = TABLE["nvidia"].model_copy(update=changes)
    job = parse(
        {
            "metadata": {"name": "j", "namespace": "n", "uid": "u"},
            "spec": {"accelerator": {"profile": "nvidia"}},
        }
    )
    pod = build_pod(
        job, resolve(job, {"nvidia": row}), 0, 1, image="i", launcher_image="i", pull_policy="Never"
    )
    assert env(pod)["NCCL_X"] == "1"
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert container(pod)["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("profile", "variable"),
    [
        ("ascend", "ASCEND_WORK_PATH"),
        ("aws-neuron", "NEURON_COMPILE_CACHE_URL"),
        ("gaudi", "HABANA_LOGS"),
    ],
)
def test_what_vendors_write_goes_where_a_pod_can_write(profile: str, variable: str) -> None:
    job = parse(
        {
            "metadata": {"name": "j", "namespace": "n", "uid": "u"},
            "spec": {"accelerator": {"profile": profile}},
        }
    )
    pod = build_pod(
        job, resolve(job, TABLE), 0, 1, image="i", launcher_image="i", pull_policy="Never"
    )
    assert container(pod)["securityContext"]["readOnlyRootFilesystem"]
    mounts = [Path(each["mountPath"]) for each in container(pod)["volumeMounts"]]
    written = Path(env(pod)[variable])
    assert any(mount in (written, *written.parents) for mount in mounts)


NAMES = st.from_regex(rf"[a-z]([-a-z0-9]{{0,{MAX_JOB_NAME_LENGTH - 2}}}[a-z0-9])?", fullmatch=True)


@given(NAMES, st.integers(0, 999), st.integers(1, 10**9))
def test_names_are_valid_host_names(job: str, slot: int, incarnation: int) -> None:
    name = pod_name(job, slot, incarnation)
    assert len(name) <= 63
    assert name.rsplit("-", 2) == [job, str(slot), str(incarnation)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["a", "env", "volumes"]), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from(["a", "b", "env"]), JSON, max_size=3)


@given(OBJECT, OBJECT)
def test_merge_is_idempotent_and_leaves_its_arguments_alone(base: Json, overlay: Json) -> None:
    before = json.dumps([base, overlay])
    merged = merge(base, overlay)
    assert merge(merged, overlay) == merged
    assert merge(base, {}) == base
    assert json.dumps([base, overlay]) == before


def test_every_pod_of_a_job_is_its_own_object() -> None:
    first, second = (
        build(0, accelerator={"profile": "nvidia"}),
        build(1, accelerator={"profile": "nvidia"}),
    )
    first["spec"]["tolerations"].clear()
    first["spec"]["containers"][0]["env"].clear()
    assert second["spec"]["tolerations"]
    assert second["spec"]["containers"][0]["env"]
