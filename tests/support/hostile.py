"""What a user may write who wishes the operator ill, or only copies from the wrong page.

Each resource is the text of its spec, because Python's own encoder cannot write the deep ones. Its
``outcome`` says what its author is told, as a regular expression; who tells it is the first word:

- ``refused``: the API server, when the resource is created;
- ``rejected``: the operator, by Accepted=False;
- ``pod``: the operator, by PodsReady=False with the API server's words about the pod;
- ``runs``: nothing is wrong with it after all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from inception_operator.contract import names


@dataclass(frozen=True)
class Hostile:
    """One row of the table."""

    name: str
    outcome: str
    text: str

    @property
    def body(self) -> bytes:
        """The resource, as it is sent."""
        head = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": self.name},
        }
        return f'{json.dumps(head)[:-1]}, "spec": {self.text}}}'.encode()


def arrays(levels: int) -> str:
    return "[" * levels + "]" * levels


def objects(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def mixed(levels: int) -> str:
    return '[{"a":' * (levels // 2) + "1" + "}]" * (levels // 2)


def spec(**fields: Any) -> str:
    """The text of a spec, with a small training on CPUs in it; None leaves a field out."""
    base = {
        "numNodes": 1,
        "training": {"data": {"kind": "Digits"}},
        "accelerator": {"profile": "cpu"},
        "checkpoint": {"path": "/tmp/inception"},
        **fields,
    }
    return json.dumps({key: value for key, value in base.items() if value is not None})


def pod(**fields: Any) -> str:
    """A spec whose template has these fields of a PodSpec."""
    return spec(template={"spec": fields})


def pod_text(field: str, text: str) -> str:
    """A spec whose template has this text as a field of the PodSpec."""
    return pod(**{field: "@"}).replace('"@"', text)


def container(**fields: Any) -> str:
    return pod(containers=[{"name": "trainer", **fields}])


def _deep() -> list[Hostile]:
    found = [
        Hostile(
            f"deep-{field.lower()}-{levels}",
            r"rejected spec\.template.*nested more than (1|2)00 levels",
            pod_text(field, f'{{"a":{make(levels)}}}'),
        )
        for levels in (110, 900, 2000, 9000)
        for field, make in (("affinity", objects), ("securityContext", arrays), ("any", mixed))
    ]
    # At 190 the stored resource is read in one go, and at 210 no longer.
    found += [
        Hostile(f"deep-border-{n}", r"rejected spec\.template.*nested", pod_text("any", arrays(n)))
        for n in (180, 190, 195, 200, 210)
    ]
    return found


def _large() -> list[Hostile]:
    return [
        Hostile("large-text", r"rejected spec\.template: has more than", pod(any="x" * 300_000)),
        Hostile("large-key", r"rejected spec\.template: has more than", pod(**{"x" * 300_000: 1})),
        Hostile("large-all", r"rejected spec\.template: has more than", pod(any="x" * 1_300_000)),
        Hostile(
            "many-values",
            r"rejected spec\.template: has more than",
            pod_text("any", "[" + "[]," * 100_000 + "1]"),
        ),
        Hostile(
            "many-keys",
            r"rejected spec\.template: has more than",
            pod(any={str(number): number for number in range(20_000)}),
        ),
    ]


_TEMPLATE = r"rejected spec\.template\.spec\."
MALFORMED: Final = (
    Hostile(
        "grace-word",
        _TEMPLATE + "terminationGracePeriodSeconds",
        pod(terminationGracePeriodSeconds="abc"),
    ),
    Hostile("grace-negative", "runs", pod(terminationGracePeriodSeconds=-5)),
    Hostile("grace-huge", "runs", pod(terminationGracePeriodSeconds=10**15)),
    Hostile("init-word", _TEMPLATE + "initContainers", pod(initContainers="x")),
    Hostile("init-numbers", _TEMPLATE + "initContainers", pod(initContainers=[1])),
    Hostile("claims-number", _TEMPLATE + "resourceClaims", pod(resourceClaims=3)),
    Hostile("affinity-number", _TEMPLATE + "affinity", pod(affinity={"podAffinity": 3})),
    Hostile(
        "affinity-terms",
        _TEMPLATE + "affinity",
        pod(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
    ),
    Hostile(
        "affinity-content",
        "pod",
        pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": 3}}),
    ),
    Hostile("host-network-word", _TEMPLATE + "hostNetwork", pod(hostNetwork="yes")),
    Hostile("host-users-word", "pod", pod(hostUsers="yes")),
    Hostile("dns-number", "pod", pod(dnsConfig=7)),
    Hostile("node-name", "pod", pod(nodeName="no such node!")),
    Hostile("overhead", "pod", pod(overhead={"cpu": "many"})),
    Hostile("os", "pod", pod(os={"name": "windows"})),
    Hostile("security-word", "pod", pod(securityContext={"runAsUser": "root"})),
    Hostile("security-list", "pod", pod(securityContext={"supplementalGroups": "x"})),
    Hostile("volumes-null", "refused", pod(volumes=[None])),
    Hostile(
        "volumes-twice",
        "refused",
        pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "a", "hostPath": {"path": "/"}}]),
    ),
    Hostile("volume-kind", "pod", pod(volumes=[{"name": "a", "emptyDir": 7}])),
    Hostile("volume-ours", "refused", pod(volumes=[{"name": "assignment", "emptyDir": {}}])),
    Hostile("restart-always", "refused", pod(restartPolicy="Always")),
    Hostile("containers-number", "refused", pod(containers=5)),
    Hostile("containers-empty", "runs", pod(containers=[])),
    Hostile("containers-numbers", "refused", pod(containers=[5])),
    Hostile(
        "container-twice", "refused", pod(containers=[{"name": "trainer"}, {"name": "trainer"}])
    ),
    Hostile("container-nameless", "refused", pod(containers=[{"image": "x"}])),
    Hostile("env-object", "refused", container(env={"a": 1})),
    Hostile(
        "env-ours", "refused .*MASTER_", container(env=[{"name": "MASTER_ADDR", "value": "x"}])
    ),
    Hostile("env-from", "pod", container(envFrom="x")),
    Hostile("env-name", "pod", container(env=[{"name": "=", "value": "x"}])),
    Hostile("env-nul", "runs", container(env=[{"name": "A", "value": "\u0000"}])),
    Hostile(
        "ports-word",
        r"rejected spec\.template\.spec\.containers",
        container(ports=[{"containerPort": "x"}]),
    ),
    Hostile("ports-far", "pod", container(ports=[{"containerPort": 99999}])),
    Hostile("resources-number", "refused", container(resources=3)),
    Hostile("limits-number", "refused", container(resources={"limits": 3})),
    Hostile("limits-words", "pod", container(resources={"limits": {"cpu": "many"}})),
    Hostile("limits-negative", "pod", container(resources={"limits": {"cpu": "-1"}})),
    Hostile("mounts-empty", "refused", container(volumeMounts=[{}])),
    Hostile("mount-unknown", "pod", container(volumeMounts=[{"name": "none", "mountPath": "/x"}])),
    Hostile("args-alone", "refused .*command", container(args=["train.py"])),
    Hostile("command-word", "refused", container(command="python")),
    Hostile("lifecycle", "pod", container(lifecycle=3)),
    Hostile("probe", "pod", container(livenessProbe={"httpGet": {"port": "x y"}})),
    Hostile("label-value", "pod", spec(template={"metadata": {"labels": {"a": "not a label!"}}})),
    Hostile("label-key", "pod", spec(template={"metadata": {"labels": {"a b": "c"}}})),
    Hostile(
        "labels-ours",
        "runs",
        spec(
            template={
                "metadata": {
                    "labels": {
                        names.LABEL_JOB: "other",
                        names.LABEL_ROLE: "x",
                        names.LABEL_JOB_UID: "y",
                    }
                }
            }
        ),
    ),
    Hostile(
        "annotation-ours",
        "runs",
        spec(template={"metadata": {"annotations": {names.ANNOTATION_ASSIGNMENT: "[" * 8000}}}),
    ),
    Hostile(
        "metadata-more",
        "runs",
        spec(template={"metadata": {"ownerReferences": [{"uid": "x"}], "finalizers": ["a/b"]}}),
    ),
    Hostile("image-nul", "runs", spec(image="\u0000")),
    Hostile("image-words", "runs", spec(image="not an image")),
    Hostile("image-empty", "refused", spec(image="")),
    Hostile(
        "profile-path",
        "refused .*spec.accelerator.profile",
        spec(accelerator={"profile": "../../etc/passwd"}),
    ),
    Hostile(
        "resource-name",
        "refused",
        spec(accelerator={"resourceName": "not a name", "devicesPerNode": 1}),
    ),
    Hostile("checkpoint-up", "runs", spec(checkpoint={"path": "/tmp/../../etc"})),
    Hostile("checkpoint-twice", "refused", spec(checkpoint={"path": "/a", "uri": "s3://b"})),
    Hostile("nodes-huge", "refused", spec(numNodes=10**9)),
    Hostile("nodes-fraction", "refused", spec(numNodes=1.5)),
    Hostile("nodes-float", "refused", spec(numNodes=1e300)),
    Hostile("deadline-zero", "refused", spec(runPolicy={"activeDeadlineSeconds": 0})),
    Hostile("ttl-huge", "refused", spec(runPolicy={"ttlSecondsAfterFinished": 2**62})),
    Hostile("rule-words", "refused", spec(failurePolicy={"rules": [{"action": "Explode"}]})),
    Hostile("training-nul", "refused", spec(training={"model": {"name": "\u0000"}})),
    Hostile("training-list", "refused", spec(training=[])),
    Hostile("unknown", "runs", spec(unknown={"a": 1}, unreadable=["spec", "x"])),
)
RESOURCES: Final = (*_deep(), *_large(), *MALFORMED)

STATUSES: Final = (
    {"attempt": 2**31 - 1},
    {"restarts": 2**31 - 1, "restartsCountTowardsMax": 2**31 - 1},
    {"nodes": {"members": "²"}},
    {"nodes": {"members": "0-999999999"}},
    {"nodes": {"members": "9" * 8000}},
    {"startTime": "9999-12-31T23:59:59-23:59", "nextAttemptTime": "9999-12-31T23:59:59Z"},
    {"nextMoveTime": "2998-12-31T23:59:59Z"},
    {"startTime": "0001-01-01T00:00:00+23:59", "completionTime": "0001-01-01T00:00:00Z"},
    {"furthest": {"attempt": 2**31 - 1, "step": 2**63 - 1}, "failuresInARow": 2**31 - 1},
    {"conditions": [], "attempt": 0},
    {"trainerStatus": {"lastUpdatedTime": "9999-12-31T23:59:59Z", "step": 2**63 - 1}},
    {
        "avoidedNodes": [
            {"name": "x" * 253, "reason": "y", "expirationTime": "9999-12-31T00:00:00Z"}
        ]
    },
)


@dataclass(frozen=True)
class Page:
    """What a program serves as its launcher's report and as its metrics."""

    status: str = ""
    metrics: str = ""


def _report(**fields: Any) -> str:
    return json.dumps({"attempt": 1, "state": "Running", "step": 5, **fields})


PAGES: Final = (
    Page("[" * 60_000),
    Page('{"a":' * 10_000),
    Page("x" * 2_000_000, "x" * 2_000_000),
    Page("<html>", "<html>"),
    Page(_report(state=["Running"])),
    Page(_report(step=10**400, metrics={"loss": 10**400, "progress": 1e307})),
    Page(_report(metrics={"progress": "@"}).replace('"@"', "1e999")),
    Page(_report(metrics={str(number): number for number in range(5_000)})),
    Page(_report(time="9999-12-31T23:59:59-23:59", reason="r" * 2_000, exitCode=10**30)),
    Page(_report(message="@").replace("@", "\\ud800")),
    Page(_report(attempt=10**12)),
    Page(
        _report(), "trainer_checkpoint_last_success_timestamp_seconds 1795996800000\ntrainer_step 5"
    ),
    Page(_report(), "trainer_step 1e999\ntrainer_epoch -5\ntrainer_progress_ratio 1e307\n"),
    Page(_report(), "trainer_loss NaN\n" * 50_000),
    Page(_report(), 'trainer_step{a="' + "x" * 500_000),
)


def pods(job: str, uid: str) -> list[dict[str, Any]]:
    """Pods that pose as workers of a job."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job,
        "uid": uid,
        "controller": True,
    }
    assignments = (
        '{"attempt":1,"nnodes":Infinity}',
        '{"attempt":9999999999,"nnodes":1}',
        '{"attempt":9999999,"nnodes":1}',
        '{"attempt":1,"nnodes":1e999}',
        '{"attempt":-1,"nnodes":-1}',
        '{"attempt":' + "9" * 5000 + "}",
        "[" * 100_000,
        "x" * 200_000,
        '{"attempt":1,"nnodes":1,"masterAddr":"' + "a" * 3000 + '"}',
        "null",
    )
    found = [
        _pod(f"{job}-{number}-7", job, owner, {names.ANNOTATION_ASSIGNMENT: text})
        for number, text in enumerate(assignments)
    ]
    found += [
        _pod(name, job, owner)
        for name in (
            f"{job}-0-9999999999",
            f"{job}-0-9999999",
            f"{job}-999999999-1",
            f"{job}-00-01",
            f"{job}",
            f"{job}-0-1-0-1",
        )
    ]
    found += [
        _pod(f"{job}-20-1", job, {**owner, "uid": "another"}),
        _pod(f"{job}-21-1", job, {**owner, "kind": "Pod"}),
        _pod("nobody-0-1", "nobody", None),
        _pod(f"{job}-22-1", "other", None, {"a": "b"}),
    ]
    held = _pod(f"{job}-23-1", job, owner)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    return [*found, held]


def _pod(
    name: str,
    job: str,
    owner: dict[str, Any] | None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {names.LABEL_JOB: job, names.LABEL_ROLE: names.ROLE_WORKER},
            "annotations": annotations or {},
            "ownerReferences": [owner] if owner else [],
        },
        "spec": {"containers": [{"name": "trainer", "image": "x"}]},
    }
