"""Rules and pauses against a real API server: launchers report failures, the operator decides, also a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fake_launcher import FakeLauncher
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

HOLD = {"kwok.localcluster/hold": "true"}
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def operator(training_api: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(training_api.kubeconfig, tmp_path / "operator.log") as process:
        yield process
        assert "Traceback" not in process.log


@pytest.fixture
def launchers() -> Iterator[list[FakeLauncher]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeLauncher(f"127.0.0.{number}")) for number in (83, 84)]


def begin(trainings: Trainings, launchers: list[FakeLauncher], **policy: Any) -> None:
    """A training that runs in two pods whose launchers answer."""
    trainings.create("job", annotations=HOLD, failurePolicy=policy)
    wait_for("pods", lambda: len(trainings.pods("job")) == len(launchers))
    for slot, launcher in enumerate(launchers):
        trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
    follow(trainings, launchers, 1)


def follow(trainings: Trainings, launchers: list[FakeLauncher], attempt: int) -> None:
    """Both launchers begin the attempt once they are told to."""
    for slot, launcher in enumerate(launchers):

        def told(name: str = f"job-{slot}-1") -> bool:
            order = trainings.assignment(name)
            return order is not None and order["attempt"] == attempt and order["nnodes"] == len(launchers)

        wait_for(f"attempt {attempt} for slot {slot}", told, seconds=30)
        launcher.report = {"attempt": attempt, "state": "Running"}
        trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
    trainings.wait_state("job", "Running", attempt=attempt)


def fail(trainings: Trainings, launcher: FakeLauncher, attempt: int, code: int) -> None:
    """Rank 1 ends with this code."""
    now = datetime.now(UTC).isoformat()
    report = {"attempt": attempt, "state": "Failed", "exitCode": code, "rank": 1, "reason": "Error", "time": now}
    launcher.report = {**report, "message": "because"}
    trainings.play_kubelet("job-1-1", launcher.ip, ready=False)


def test_the_first_rule_that_matches_decides(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    rules = [
        {"name": "flaky", "action": "RestartIgnoringLimit", "onExitCodes": {"operator": "In", "values": [7]}},
        {"name": "hopeless", "action": "Fail", "onExitCodes": {"operator": "NotIn", "values": [9]}},
    ]
    begin(trainings, launchers, maxRestarts=0, rules=rules)
    fail(trainings, launchers[1], 1, 7)
    follow(trainings, launchers, 2)
    status = trainings.status("job")
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    fail(trainings, launchers[1], 2, 8)
    trainings.wait_state("job", "Failed")
    failed = trainings.condition("job", "Failed")
    assert failed["reason"] == "FailurePolicy"
    assert failed["message"].endswith("exit code 8: because; rule hopeless of spec.failurePolicy says Fail")
    wait_for("the event", lambda: "FailurePolicy" in trainings.reasons("job"))


def test_pauses_grow_and_outlive_the_operator(
    trainings: Trainings, launchers: list[FakeLauncher], tmp_path: Path
) -> None:
    with OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log") as operator:
        begin(trainings, launchers, maxRestarts=100)
        for attempt in (1, 2):
            fail(trainings, launchers[1], attempt, 1)
            follow(trainings, launchers, attempt + 1)
            assert "nextAttemptTime" not in trainings.status("job")
        for attempt, pause in ((3, 1), (4, 2), (5, 4)):
            fail(trainings, launchers[1], attempt, 1)
            text = f"waiting {pause} s before attempt {attempt + 1}: {attempt} failures in a row without a step"
            waiting = wait_for("the pause", lambda: (s := trainings.status("job")).get("nextAttemptTime") and s)
            assert waiting["failuresInARow"] == attempt
            assert text in trainings.condition("job", "Restarting")["message"]
            operator.kill()
            operator.start()
            follow(trainings, launchers, attempt + 1)
            assert datetime.now(UTC) >= datetime.fromisoformat(waiting["nextAttemptTime"])
        assert trainings.status("job")["restartsCountTowardsMax"] == 5
    assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"], "the pods stayed"
