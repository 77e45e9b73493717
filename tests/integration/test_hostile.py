"""Nobody's input hurts anybody else, and its author is told what is wrong with it.

The tables are in tests/support/hostile.py. Every row is there at the same time, while a job of
another namespace starts.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from fake_launcher import FakeLauncher
from hostile import PAGES, RESOURCES, STATUSES, Hostile, pods
from inception_operator.contract import names
from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from plugin_commands import Commands
from trainings import Json, Trainings, wait_for

HOLD = {"kwok.localcluster/hold": "true"}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def operator(training_api: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(training_api.kubeconfig, tmp_path / "operator.log") as process:
        yield process
        assert process.fetch("/healthz")[0] == 200
        assert process.metric("internal_errors_total") == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture
def neighbour(training_api: Cluster) -> Iterator[Trainings]:
    """Jobs of another tenant."""
    name = f"neighbour-{uuid.uuid4().hex[:8]}"
    training_api.kubectl("create", "namespace", name)
    with Trainings(training_api, name) as found:
        yield found
    training_api.kubectl("delete", "namespace", name, "--wait=false")


def post(trainings: Trainings, row: Hostile) -> str | None:
    """Create the resource of a row; returns the words of a refusal."""
    api = ApiClient(trainings.cluster.kubeconfig)
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}"
    try:
        api.content("POST", path, row.body)
    except ApiError as error:
        return str(error)
    return None


def forge(trainings: Trainings, name: str, status: Json) -> None:
    """Write into the status of a job, as somebody may who is allowed to."""
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}"
    ApiClient(trainings.cluster.kubeconfig).request(
        "PATCH", f"{path}/{name}/status", {"status": status}, "application/merge-patch+json"
    )


def where(trainings: Trainings) -> tuple[str, str]:
    """The options that lead a command to a tenant's namespace."""
    return f"--kubeconfig={trainings.cluster.kubeconfig}", f"--namespace={trainings.namespace}"


def said(status: Json) -> str | None:
    """Who tells the author and what, None as long as nobody does."""
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    accepted, ready = conditions.get("Accepted", {}), conditions.get("PodsReady", {})
    if accepted.get("status") == "False":
        return f"rejected {accepted['message']}"
    if ready.get("reason") == "PodCreationRejected":
        return f"pod {ready['message']}"
    return "runs" if status.get("state") == "Running" else None


def all_said(trainings: Trainings) -> dict[str, str | None]:
    """What the author of each resource is told; of the resources as a whole some are too deep."""
    lines = trainings.cluster.kubectl(
        *("get", "itrain", f"--namespace={trainings.namespace}"),
        '--output=jsonpath={range .items[*]}{.metadata.name}{" "}{.status}{"\\n"}{end}',
    ).splitlines()
    pairs = [line.partition(" ") for line in lines]
    return {name: said(json.loads(status or "{}")) for name, _, status in pairs}


def test_every_author_is_told_and_no_neighbour_notices(
    trainings: Trainings, neighbour: Trainings, operator: OperatorProcess
) -> None:
    refused = {row.name: post(trainings, row) for row in RESOURCES}
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")

    def everybody() -> dict[str, str | None] | None:
        found = all_said(trainings)
        return found if all(found.values()) else None

    told = wait_for("everybody is told", everybody)
    words = {
        name: " ".join((told.get(name) or f"refused {text}").split())
        for name, text in refused.items()
    }
    wrong = {
        row.name: (row.outcome, words[row.name][:300])
        for row in RESOURCES
        if not re.match(row.outcome, words[row.name])
    }
    assert not wrong, json.dumps(wrong, indent=1)
    # All of it is there at the start of the next process.
    operator.kill()
    operator.start()
    neighbour.create("second")
    neighbour.wait_state("second", "Running")
    quiet = operator.log.count("\n")
    neighbour.create("third")
    neighbour.wait_state("third", "Running")
    assert operator.log.count("\n") < quiet + 200, (
        "what is refused is not looked at again and again"
    )


@pytest.mark.parametrize("command", [("list",), ("top", "--once")])
def test_a_list_shows_every_job_beside_hostile_ones(
    trainings: Trainings, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    for row in RESOURCES:
        post(trainings, row)
    shown = Commands(capsys, *where(trainings))(*command).out
    stored = trainings.cluster.kubectl(
        *("get", "itrain", f"--namespace={trainings.namespace}"),
        "--output=jsonpath={.items[*].metadata.name}",
    ).split()
    assert len(stored) > 40
    assert not [name for name in stored if name not in shown]


@pytest.mark.usefixtures("operator")
def test_every_hostile_job_is_shown_whole_and_described(
    trainings: Trainings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As far as it can be decoded; what is left out is named, and nobody can apply the rest."""
    stored = [row for row in RESOURCES if post(trainings, row) is None]
    wait_for("everybody is told", lambda: all(all_said(trainings).values()))
    command = Commands(capsys, *where(trainings))
    listed = {job["metadata"]["name"]: job for job in command("list", "-o", "json").json["items"]}
    assert set(listed) == {row.name for row in stored}
    for name in listed:
        assert name in command("describe", name).out
    left_out = {name: job["unreadable"] for name, job in listed.items() if "unreadable" in job}
    assert left_out
    assert all(text.startswith("spec.") for text in left_out.values()), left_out
    page = tmp_path / "page.html"
    for name in left_out:
        assert yaml.safe_load(command("get", name, "-o", "yaml").out) == listed[name]
        command("report", name, f"--output={page}")
        assert name in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("operator")
def test_a_forged_status_hurts_its_own_job_alone(
    trainings: Trainings, neighbour: Trainings
) -> None:
    for number, status in enumerate(STATUSES):
        trainings.create(f"forged-{number}", nodes=2, elasticPolicy={"minNodes": 1})
        trainings.wait_state(f"forged-{number}", "Running")
        forge(trainings, f"forged-{number}", status)
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    for number in range(len(STATUSES)):
        trainings.change(f"forged-{number}", runPolicy={"suspend": True})
        trainings.wait_state(f"forged-{number}", "Suspended")


def test_a_forged_status_is_shown_like_another(
    trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Commands(capsys, *where(trainings))
    for number, status in enumerate(STATUSES):
        name = f"forged-{number}"
        trainings.create(name, nodes=2)
        forge(trainings, name, {"state": "Running", **status})
        assert name in command("list", "-o", "wide").out
        assert name in command("describe", name).out
    assert "forged-0" in command("top", "--once").out


@pytest.mark.usefixtures("operator")
def test_pods_that_pose_as_workers_hurt_nobody(trainings: Trainings, neighbour: Trainings) -> None:
    trainings.create("job", annotations=HOLD)
    wait_for("pods", lambda: len(trainings.pods("job")) == 2)
    uid = trainings.get("job")["metadata"]["uid"]
    api = ApiClient(trainings.cluster.kubeconfig)
    path = f"/api/v1/namespaces/{trainings.namespace}/pods"
    made = [api.request("POST", path, pod)["metadata"]["name"] for pod in pods("job", uid)]
    assert len(made) >= 20
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    trainings.change("job", runPolicy={"suspend": True})
    trainings.wait_state("job", "Suspended")
    for name in made:
        # Some have a finalizer.
        trainings.cluster.kubectl(
            *("patch", "pod", name, f"--namespace={trainings.namespace}", "--type=merge"),
            '--patch={"metadata":{"finalizers":null}}',
            check=False,
        )


@pytest.fixture
def launchers() -> Iterator[list[FakeLauncher]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(FakeLauncher(f"127.0.0.{90 + number}"))
            for number in range(len(PAGES))
        ]


def test_pages_of_a_program_hurt_nobody(
    trainings: Trainings,
    neighbour: Trainings,
    operator: OperatorProcess,
    launchers: list[FakeLauncher],
) -> None:
    jobs = [f"page-{number}" for number in range(len(PAGES))]
    for job, launcher in zip(jobs, launchers, strict=True):
        launcher.report = {"attempt": 1, "state": "Running"}
        trainings.create(job, nodes=1, annotations=HOLD)
        wait_for("pods", lambda job=job: len(trainings.pods(job)) == 1)
        trainings.play_kubelet(f"{job}-0-1", launcher.ip, ready=True)
    for job, launcher, page in zip(jobs, launchers, PAGES, strict=True):
        trainings.wait_state(job, "Running")
        launcher.text, launcher.metrics = page.status, page.metrics
        launcher.asked.clear()
        launcher.scraped.clear()
        # The program's launcher has something to tell.
        assert operator.post(f"/ring/{trainings.namespace}/{job}/{job}-0-1") == 202
    for job, launcher in zip(jobs, launchers, strict=True):
        wait_for(f"{job} is read", lambda launcher=launcher: launcher.asked and launcher.scraped)
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    for job in jobs:
        trainings.change(job, runPolicy={"suspend": True})
        trainings.wait_state(job, "Suspended")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("message", ["[" * 4000, '{"a":' * 800, "\\ud800" * 600])
def test_a_termination_message_is_no_report(trainings: Trainings, message: str) -> None:
    trainings.create("job", nodes=1)
    trainings.wait_state("job", "Running")
    trainings.annotate("job-0-1", fail_after="1ms", exit_code="3", message=message)
    status = trainings.wait_state("job", "Running", attempt=2)
    assert status["rootCause"]["exitCode"] == 3
