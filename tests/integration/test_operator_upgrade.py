"""The operator of the last release is upgraded to this one and rolled back again while jobs run:
what runs is not touched, and each goes on where the other stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from fake_launcher import FakeLauncher
from localcluster.apiclient import ApiError
from localcluster.cluster import Cluster
from operator_process import ROOT, OperatorProcess
from releases import LAST, crd_of, unpack_operator
from trainings import Trainings, wait_for, wait_served

HOLD = {"kwok.localcluster/hold": "true"}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def old_crd(control_plane: Cluster) -> Iterator[None]:
    install_crd(control_plane, crd_of(LAST))
    yield
    install_crd(control_plane, ROOT / "manifests" / "crd.yaml")


def install_crd(cluster: Cluster, crd: Path) -> None:
    """As docs/upgrade.md says."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={crd}")
    wait_served(cluster)


@pytest.fixture
def old_source(tmp_path: Path) -> Path:
    return unpack_operator(LAST, tmp_path / LAST)


@pytest.fixture
def launchers() -> Iterator[list[FakeLauncher]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeLauncher(f"127.0.0.{number}")) for number in (91, 92)]


def seen(trainings: Trainings, *jobs: str) -> dict[str, Any]:
    """What must not change when the operator does: pods, what they are told, counters, state."""
    found: dict[str, Any] = {}
    for job in jobs:
        status = trainings.status(job)
        keys = ("attempt", "restarts", "restartsCountTowardsMax", "state", "startTime")
        pods = trainings.pods(job)
        found[job] = (
            {key: status.get(key) for key in keys},
            {name: pod["metadata"]["uid"] for name, pod in pods.items()},
            {name: ranks(trainings.assignment(name)) for name in pods},
        )
    return found


def ranks(order: dict[str, Any] | None) -> dict[str, Any]:
    """What a launcher is told to do. Nobody answers for these pods, so each operator reminds them,
    and this one says in which version it speaks and with which key the next order may be delivered.
    """
    own = ("nudge", "contract", "nextKey")
    return {key: value for key, value in (order or {}).items() if key not in own}


def has_looked(operator: OperatorProcess, jobs: int) -> None:
    """Wait until a fresh operator has decided on every job."""
    wait_for("it has looked", lambda: operator.metric("reconcile_total") >= jobs)


def fail_a_pod(trainings: Trainings, job: str, attempt: int) -> None:
    pod = max(name for name in trainings.pods(job) if name.startswith(f"{job}-1-"))
    trainings.annotate(pod, fail_after="1ms")
    trainings.wait_state(job, "Running", attempt=attempt)
    wait_for("the failed pod is gone", lambda: len(trainings.pods(job)) == 2)


def test_old_new_and_old_again_leave_running_jobs_alone(
    old_crd: None, old_source: Path, trainings: Trainings, tmp_path: Path
) -> None:
    kubeconfig = trainings.cluster.kubeconfig
    old = OperatorProcess(kubeconfig, tmp_path / "old", source=old_source)
    new = OperatorProcess(kubeconfig, tmp_path / "new")
    jobs = ("job", "single", "parked", "done")
    with old:
        trainings.create("job", failurePolicy={"maxRestarts": 5})
        trainings.create("single", nodes=1)
        trainings.create("parked", runPolicy={"suspend": True})
        ends = {"kwok.localcluster/succeed-after": "1ms"}
        trainings.create("done", nodes=1, annotations=ends)
        trainings.wait_state("single", "Running")
        trainings.wait_state("parked", "Suspended")
        trainings.wait_state("done", "Succeeded")
        trainings.wait_state("job", "Running")
        fail_a_pod(trainings, "job", attempt=2)
        before = seen(trainings, *jobs)
        old.stop()
    # The CRD first: an operator may write what only its own knows.
    install_crd(trainings.cluster, ROOT / "manifests" / "crd.yaml")
    with new:
        has_looked(new, len(jobs))
        assert seen(trainings, *jobs) == before
        fail_a_pod(trainings, "job", attempt=3)
        trainings.change("parked", runPolicy={"suspend": False})
        trainings.wait_state("parked", "Running")
        between = seen(trainings, *jobs)
        assert between["job"][0]["restartsCountTowardsMax"] == 2
        new.stop()
    # Back with the new CRD, which takes all that the old one took.
    with old:
        has_looked(old, len(jobs))
        assert seen(trainings, *jobs) == between
        fail_a_pod(trainings, "job", attempt=4)
        assert trainings.status("job")["restartsCountTowardsMax"] == 3
        assert "Traceback" not in old.log
    assert "Traceback" not in new.log


def test_launchers_of_the_last_release_work_for_this_operator_and_the_other_way_round(
    old_crd: None,
    old_source: Path,
    trainings: Trainings,
    launchers: list[FakeLauncher],
    tmp_path: Path,
) -> None:
    kubeconfig = trainings.cluster.kubeconfig
    old = OperatorProcess(kubeconfig, tmp_path / "old", source=old_source)
    new = OperatorProcess(kubeconfig, tmp_path / "new")
    with old:
        trainings.create("job", annotations=HOLD, failurePolicy={"maxRestarts": 100})
        wait_for("pods", lambda: len(trainings.pods("job")) == len(launchers))
        for slot, launcher in enumerate(launchers):
            trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
        # Launchers of today, which say in which version they speak.
        run_attempt(trainings, launchers, 1, contract={"contract": 1})
        assert "contract" not in told(trainings, "job-0-1"), "the old operator does not"
        old.stop()
    install_crd(trainings.cluster, ROOT / "manifests" / "crd.yaml")
    with new:
        has_looked(new, 1)
        fail_ranks(trainings, launchers, 1, contract={"contract": 1})
        run_attempt(trainings, launchers, 2, contract={"contract": 1})
        assert told(trainings, "job-0-1")["contract"] == 1
        # Launchers of the last release, which do not.
        fail_ranks(trainings, launchers, 2, contract={})
        run_attempt(trainings, launchers, 3, contract={})
        assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"], "the pods stay"


def test_a_trainer_image_that_does_not_fit_fails_the_job_in_clear_words(
    training_api: Cluster,
    trainings: Trainings,
    launchers: list[FakeLauncher],
    tmp_path: Path,
) -> None:
    for launcher in launchers:
        launcher.report = {"attempt": 0, "state": "Idle", "contract": 2}
    up: set[str] = set()

    def start_pods() -> bool:
        """Bring up whatever pods there are; which of them speaks first is chance."""
        for name in set(trainings.pods("job")) - up:
            up.add(name)
            ip = launchers[int(name.split("-")[1])].ip
            # It may have been replaced in this moment.
            with suppress(ApiError):
                trainings.play_kubelet(name, ip, ready=True)
        return bool(trainings.status("job").get("state") == "Failed")

    with OperatorProcess(training_api.kubeconfig, tmp_path / "log"):
        trainings.create("job", annotations=HOLD)
        wait_for("the job has failed", start_pods)
        status = trainings.status("job")
    assert status["rootCause"]["reason"] == "ContractMismatch"
    failed = trainings.condition("job", "Failed")
    assert failed["reason"] == "ContractMismatch"
    assert "speaks version 2 of the contract and this operator version 1" in failed["message"]
    assert status["restartsCountTowardsMax"] == 0


def told(trainings: Trainings, pod: str) -> dict[str, Any]:
    found = trainings.assignment(pod)
    assert found is not None
    return found


def run_attempt(
    trainings: Trainings, launchers: list[FakeLauncher], attempt: int, contract: dict[str, int]
) -> None:
    """Wait until all pods are told this attempt, and begin it."""
    for slot, launcher in enumerate(launchers):

        def given(pod: str = f"job-{slot}-1") -> bool:
            order = trainings.assignment(pod)
            return order is not None and order["attempt"] == attempt and order["nnodes"] > 0

        wait_for(f"attempt {attempt} for slot {slot}", given)
        launcher.report = {"attempt": attempt, "state": "Running", **contract}
        trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
    trainings.wait_state("job", "Running", attempt=attempt)


def fail_ranks(
    trainings: Trainings, launchers: list[FakeLauncher], attempt: int, contract: dict[str, int]
) -> None:
    launchers[1].report = {
        "attempt": attempt,
        "state": "Failed",
        "exitCode": 1,
        "rank": 1,
        "reason": "Error",
        # Progress: without it the job would pause.
        "step": 10 * attempt,
        **contract,
    }
    trainings.play_kubelet("job-1-1", launchers[1].ip, ready=False)
