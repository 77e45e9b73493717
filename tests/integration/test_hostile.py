"""Nobody's input hurts anybody else, and its author is told what is wrong with it.

The tables are in tests/support/hostile.py. Every row is there at the same time, while a job of
another namespace starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fake_launcher import FakeLauncher
from hostile import PAGES, RESOURCES, STATUSES, Hostile, Page, pods
from inception_operator.contract import names
from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

HOLD = {"kwok.localcluster/hold": "true"}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def operator(training_api: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(training_api.kubeconfig, tmp_path / "operator.log") as process:
        pid = process.pid
        yield process
        assert process.fetch("/healthz")[0] == 200
        assert process.pid == pid
        assert process.metric("internal_errors_total") == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture
def neighbour(training_api: Cluster) -> Iterator[Trainings]:
    """Jobs of another tenant."""
    training_api.kubectl("create", "namespace", "neighbour")
    with Trainings(training_api, "neighbour") as found:
        yield found
    training_api.kubectl("delete", "namespace", "neighbour", "--wait=false")


def post(trainings: Trainings, row: Hostile) -> str | None:
    """Create the resource of a row; returns the words of a refusal."""
    api = ApiClient(trainings.cluster.kubeconfig)
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}"
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": row.name}}
    try:
        api.content("POST", path, f'{json.dumps(head)[:-1]}, "spec": {row.text}}}'.encode())
    except ApiError as error:
        return str(error)
    return None


def said(trainings: Trainings, row: Hostile) -> str | None:
    """Who tells the author of a row and what, None as long as nobody does."""
    status = status_of(trainings, row.name)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    accepted, ready = conditions.get("Accepted", {}), conditions.get("PodsReady", {})
    if accepted.get("status") == "False":
        return f"rejected {accepted['message']}"
    if ready.get("reason") == "PodCreationRejected":
        return f"pod {ready['message']}"
    return "runs" if status.get("state") == "Running" else None


def status_of(trainings: Trainings, name: str) -> dict[str, Any]:
    """By the sub-resource's columns: the whole object may be too deep to decode."""
    text = trainings.cluster.kubectl(
        "get", "itrain", name, f"--namespace={trainings.namespace}", "--output=jsonpath={.status}"
    )
    return json.loads(text) if text else {}


def test_every_author_is_told_and_no_neighbour_notices(
    trainings: Trainings, neighbour: Trainings, operator: OperatorProcess
) -> None:
    refused = {row.name: post(trainings, row) for row in RESOURCES}
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    wrong = {}
    for row in RESOURCES:
        words = refused[row.name]
        if words is not None:
            words = f"refused {words}"
        else:
            words = wait_for(f"{row.name} is told", lambda row=row: said(trainings, row))
        if not re.match(row.outcome, " ".join(words.split())):
            wrong[row.name] = (row.outcome, words[:300])
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


@pytest.mark.usefixtures("operator")
def test_a_forged_status_hurts_its_own_job_alone(
    trainings: Trainings, neighbour: Trainings
) -> None:
    api = ApiClient(trainings.cluster.kubeconfig)
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}"
    for number, status in enumerate(STATUSES):
        trainings.create(f"forged-{number}", nodes=2, elasticPolicy={"minNodes": 1})
        trainings.wait_state(f"forged-{number}", "Running")
        api.request(
            "PATCH",
            f"{path}/forged-{number}/status",
            {"status": status},
            "application/merge-patch+json",
        )
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    for number in range(len(STATUSES)):
        trainings.change(f"forged-{number}", runPolicy={"suspend": True})
        trainings.wait_state(f"forged-{number}", "Suspended")


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
def launcher() -> Iterator[FakeLauncher]:
    with ExitStack() as stack:
        yield stack.enter_context(FakeLauncher("127.0.0.83"))


@pytest.mark.usefixtures("operator")
def test_pages_of_a_program_hurt_nobody(
    trainings: Trainings, neighbour: Trainings, launcher: FakeLauncher
) -> None:
    trainings.create("job", nodes=1, annotations=HOLD, failurePolicy={"maxRestarts": 100})
    wait_for("pods", lambda: len(trainings.pods("job")) == 1)
    trainings.play_kubelet("job-0-1", launcher.ip, ready=True)
    launcher.report = {"attempt": 1, "state": "Running"}
    trainings.wait_state("job", "Running")
    for number, page in enumerate(PAGES):
        serve(launcher, page)
        before = len(launcher.asked)
        # The kubelet says that something has changed, so the launcher is asked.
        trainings.play_kubelet("job-0-1", launcher.ip, ready=number % 2 == 0)
        wait_for(f"page {number} is read", lambda before=before: len(launcher.asked) > before)
    launcher.text, launcher.metrics = None, ""
    neighbour.create("friendly")
    neighbour.wait_state("friendly", "Running")
    trainings.change("job", runPolicy={"suspend": True})
    trainings.wait_state("job", "Suspended")


def serve(launcher: FakeLauncher, page: Page) -> None:
    launcher.text, launcher.metrics = page.status, page.metrics


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("message", ["[" * 4000, '{"a":' * 800, "\\ud800" * 600])
def test_a_termination_message_is_no_report(trainings: Trainings, message: str) -> None:
    trainings.create("job", nodes=1)
    trainings.wait_state("job", "Running")
    trainings.annotate("job-0-1", fail_after="1ms", exit_code="3", message=message)
    status = trainings.wait_state("job", "Running", attempt=2)
    assert status["rootCause"]["exitCode"] == 3
