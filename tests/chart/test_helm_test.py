"""What ``helm test`` brings: a pod that may run one job, the job, and nothing that stays.

tests/integration/test_helm_test.py runs the program of the pod against a real API server, and
tests/e2e/test_helm_test.py all of it on a real node.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest

from chart_values import VALUES, Object, Render, of_kind, only, pod_of
from inception_operator.spec.job import parse

Objects = list[Object]
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "charts" / "inception-operator" / "files" / "helm_test.py"


@pytest.fixture(params=VALUES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def hooks(render: Render, name: str) -> Objects:
    return render(VALUES[name], of_test=True)


def job_of(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(only(objects, "ConfigMap")["data"]["job.json"])
    return found


def test_all_of_it_is_a_hook_that_goes_when_the_test_succeeds(hooks: Objects) -> None:
    for item in hooks:
        kubernetes_validate.validate(item, "1.36", strict=True)
        annotations = item["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "test"
        policy = annotations["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
        first = item["kind"] != "Pod"
        assert annotations["helm.sh/hook-weight"] == ("-1" if first else "0")


def test_its_pod_is_as_restricted_as_the_operators_and_is_not_taken_for_one(
    render: Render, hooks: Objects, name: str
) -> None:
    objects = render(VALUES[name])
    pod, operator = only(hooks, "Pod"), pod_of(objects)
    (container,), (theirs,) = pod["spec"]["containers"], operator["spec"]["containers"]
    assert pod["spec"]["securityContext"] == operator["spec"]["securityContext"]
    assert container["securityContext"] == theirs["securityContext"]
    assert container["image"] == theirs["image"]
    selector = only(objects, "Service")["spec"]["selector"]
    assert not selector.items() <= pod["metadata"]["labels"].items()


def test_its_rights_end_with_its_own_job_in_the_namespace_where_it_trains(
    render: Render, hooks: Objects, name: str
) -> None:
    job, pod = job_of(hooks), only(hooks, "Pod")
    namespace, file, seconds = pod["spec"]["containers"][0]["args"]
    watched = VALUES[name].get("watchNamespaces") or ["system"]
    assert namespace == watched[0]
    assert (file, seconds) == ("/etc/inception-test/job.json", "280")
    roles, bindings = of_kind(hooks, "Role"), of_kind(hooks, "RoleBinding")
    assert len(roles) == len(bindings) == (0 if name == "minimal" else 1)
    for role in roles:
        assert role["metadata"]["namespace"] == namespace
        create, own = role["rules"]
        assert create["verbs"] == ["create"]
        assert (own["resourceNames"], own["verbs"]) == (
            [job["metadata"]["name"]],
            ["get", "delete"],
        )
    account = pod["spec"]["serviceAccountName"]
    assert account == ("mine" if name == "minimal" else job["metadata"]["name"])
    for binding in bindings:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": "system"}
        assert binding["subjects"] == [subject]


def test_its_job_is_one_that_the_operator_accepts(render: Render, hooks: Objects) -> None:
    job = job_of(hooks)
    spec = parse({**job, "metadata": {**job["metadata"], "namespace": "system", "uid": "u"}})
    assert (spec.training["recipe"], spec.training["maxSteps"]) == ("bninception-digits", 5)
    longest = job_of(render({"fullnameOverride": "a" * 53}, of_test=True))
    assert len(longest["metadata"]["name"]) <= 45


def test_secrets_for_its_images_reach_the_job(render: Render) -> None:
    secrets = [{"name": "pull"}]
    hooks = render({"imagePullSecrets": secrets}, of_test=True)
    assert only(hooks, "Pod")["spec"]["imagePullSecrets"] == secrets
    assert job_of(hooks)["spec"]["template"]["spec"]["imagePullSecrets"] == secrets


def test_the_job_finds_a_node_where_the_operator_does(render: Render) -> None:
    values = {
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    }
    pod = job_of(render(values, of_test=True))["spec"]["template"]["spec"]
    assert {key: pod[key] for key in values} == values
    assert not values.keys() & job_of(render({}, of_test=True))["spec"]["template"]["spec"].keys()


def test_it_trains_where_it_is_told_to(render: Render) -> None:
    values = {"watchNamespaces": ["a", "b"], "test": {"namespace": "b", "timeoutSeconds": 900}}
    args = only(render(values, of_test=True), "Pod")["spec"]["containers"][0]["args"]
    assert args == ["b", "/etc/inception-test/job.json", "900"]


class OneJob:
    """The API server for one job; it shows a status at each look, the last one for ever."""

    def __init__(self, *statuses: dict[str, Any], leftover: bool = False) -> None:
        self.statuses = list(statuses)
        self.job: dict[str, Any] | None = {"metadata": {"name": "old"}} if leftover else None
        self.calls: list[str] = []

    def create(self, job: dict[str, Any]) -> None:
        assert self.job is None, "the name is taken"
        self.calls.append("create")
        self.job = job

    def get(self, name: str) -> dict[str, Any] | None:
        if self.job is None or "create" not in self.calls:
            return self.job
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {**self.job, "status": status} if status else self.job

    def delete(self, name: str) -> None:
        self.calls.append("delete")
        self.job = None


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("helm_test", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    return module


JOB = {"metadata": {"name": "job"}}


def test_it_succeeds_with_its_job_and_takes_it_away(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = OneJob({}, {"state": "Pending"}, {"state": "Running"}, {"state": "Succeeded"})
    assert program.run(jobs, JOB, 60)
    assert jobs.calls == ["create", "delete"]
    said = [line.rsplit(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["Pending", "Running", "Succeeded"]


def test_what_an_earlier_test_left_is_removed_first(program: ModuleType) -> None:
    jobs = OneJob({"state": "Succeeded"}, leftover=True)
    assert program.run(jobs, JOB, 60)
    assert jobs.calls == ["delete", "create", "delete"]


CONDITION = {"type": "Accepted", "status": "False", "reason": "Invalid", "message": "no image"}


@pytest.mark.parametrize(
    ("status", "seconds", "words"),
    [
        (
            {"state": "Failed", "rootCause": {"reason": "Hang"}},
            60,
            'root cause: {"reason": "Hang"}',
        ),
        (
            {"state": "Rejected", "conditions": [CONDITION]},
            60,
            "Accepted=False Invalid: no image",
        ),
        ({"state": "Running"}, 0.01, "the time of the test is over: test.timeoutSeconds"),
        ({}, 0.01, "no operator has looked at the job"),
    ],
    ids=["failed", "rejected", "slow", "ignored"],
)
def test_it_fails_with_what_the_operator_says(
    program: ModuleType,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, Any],
    seconds: float,
    words: str,
) -> None:
    jobs = OneJob(status)
    assert not program.run(jobs, JOB, seconds)
    assert words in capsys.readouterr().out
    assert jobs.calls == ["create", "delete"]


def test_its_job_goes_when_it_is_stopped(program: ModuleType) -> None:
    class Stopped(OneJob):
        def get(self, name: str) -> dict[str, Any] | None:
            if "create" in self.calls:
                program.stop(15, None)
            return super().get(name)

    jobs = Stopped({})
    with pytest.raises(SystemExit, match="stopped by signal 15"):
        program.run(jobs, JOB, 60)
    assert jobs.calls == ["create", "delete"]
