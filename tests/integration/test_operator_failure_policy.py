"""Rules and pauses against a real API server: launchers report failures, the operator decides, also
a new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fake_launcher import FakeLauncher
from localcluster.apiclient import ApiClient
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
            return (
                order is not None
                and order["attempt"] == attempt
                and order["nnodes"] == len(launchers)
            )

        wait_for(f"attempt {attempt} for slot {slot}", told, seconds=30)
        launcher.report = {"attempt": attempt, "state": "Running"}
        trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
    trainings.wait_state("job", "Running", attempt=attempt)


def fail(
    trainings: Trainings, launcher: FakeLauncher, attempt: int, code: int, **fields: Any
) -> None:
    """Rank 1 ends with this code."""
    now = datetime.now(UTC).isoformat()
    report = {
        "attempt": attempt,
        "state": "Failed",
        "exitCode": code,
        "rank": 1,
        "reason": "Error",
        "time": now,
    }
    launcher.report = {**report, "message": "because", **fields}
    trainings.play_kubelet("job-1-1", launcher.ip, ready=False)


def test_the_first_rule_that_matches_decides(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    rules = [
        {
            "name": "flaky",
            "action": "RestartIgnoringLimit",
            "onExitCodes": {"operator": "In", "values": [7]},
        },
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
    assert failed["message"].endswith(
        "exit code 8: because; rule hopeless of spec.failurePolicy says Fail"
    )
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
            text = (
                f"waiting {pause} s before attempt {attempt + 1}: {attempt} failures in a row "
                "without a step"
            )
            waiting = wait_for(
                "the pause", lambda: (s := trainings.status("job")).get("nextAttemptTime") and s
            )
            assert waiting["failuresInARow"] == attempt
            assert text in trainings.condition("job", "Restarting")["message"]
            operator.kill()
            operator.start()
            follow(trainings, launchers, attempt + 1)
            assert datetime.now(UTC) >= datetime.fromisoformat(waiting["nextAttemptTime"])
        assert trainings.status("job")["restartsCountTowardsMax"] == 5
    assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"], "the pods stayed"


def test_a_loss_that_is_no_number_at_the_same_step_twice_ends_the_job(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    words = "NonFiniteLoss: the loss became nan within the 50 steps before step {} (x)"
    begin(trainings, launchers)
    for attempt, step in ((1, 500), (2, 550)):
        said = {"reason": "NonFinite", "message": words.format(step), "step": 450}
        fail(trainings, launchers[1], attempt, 79, **said)
        follow(trainings, launchers, attempt + 1)
        status = trainings.status("job")
        assert (status["nonFiniteStep"], status["rootCause"]["step"]) == (step, step)
    fail(trainings, launchers[1], 3, 79, reason="NonFinite", message=words.format(550))
    trainings.wait_state("job", "Failed")
    failed = trainings.condition("job", "Failed")
    assert failed["reason"] == "NonFinite"
    assert "it is the second time at step 550" in failed["message"]
    assert "lower the learning rate" in failed["message"]


def test_the_budget_is_full_again_after_progress_whoever_leads(
    trainings: Trainings, launchers: list[FakeLauncher], tmp_path: Path
) -> None:
    with OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log") as operator:
        begin(trainings, launchers, maxRestarts=1, resetAfterSeconds=3)
        fail(trainings, launchers[1], 1, 1, step=10)
        follow(trainings, launchers, 2)
        status = trainings.status("job")
        assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 1)
        operator.kill()
        operator.start()
        # Rank 0 tells the figures of a program.
        launchers[0].report = {"attempt": 2, "state": "Running", "step": 20, "metrics": {}}
        wait_for(
            "the budget is full",
            lambda: trainings.status("job")["restartsCountTowardsMax"] == 0,
            seconds=60,
        )
        fail(trainings, launchers[1], 2, 1, step=20)
        follow(trainings, launchers, 3)
        # Nothing new this time: the budget of one restart is used up.
        fail(trainings, launchers[1], 3, 1, step=20)
        trainings.wait_state("job", "Failed")
        status = trainings.status("job")
        assert (status["restarts"], status["restartsCountTowardsMax"]) == (2, 1)
        assert trainings.condition("job", "Failed")["reason"] == "MaxRestartsExceeded"
        assert "Traceback" not in operator.log


def test_a_pod_beyond_its_own_limit_uses_up_the_budget(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    words = 'Container trainer exceeded its local ephemeral storage limit "50Mi". '
    begin(trainings, launchers, maxRestarts=0)
    trainings.evict("job-1-1", words)
    trainings.wait_state("job", "Failed")
    cause = trainings.status("job")["rootCause"]
    assert (cause["reason"], cause["pod"], cause["message"]) == ("LimitExceeded", "job-1-1", words)
    failed = trainings.condition("job", "Failed")
    assert failed["reason"] == "MaxRestartsExceeded"
    assert failed["message"].endswith(words)


def test_a_rule_decides_by_what_the_failure_says(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    flaky = {"name": "flaky", "action": "RestartIgnoringLimit"}
    rules = [{**flaky, "onMessagePatterns": ["(?i)uncorrectable ecc"]}]
    begin(trainings, launchers, maxRestarts=0, rules=rules)
    fail(trainings, launchers[1], 1, 1, message="RuntimeError: x\nUncorrectable ECC error")
    follow(trainings, launchers, 2)
    status = trainings.status("job")
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    cause = status["rootCause"]
    assert cause["message"] == "RuntimeError: x\nUncorrectable ECC error"


def test_a_pattern_that_is_none_is_refused_by_its_field(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    rule = {"name": "a", "action": "Fail", "onMessagePatterns": ["fine", "(a"]}
    trainings.create("job", failurePolicy={"rules": [rule]})
    trainings.wait_state("job", "Rejected")
    accepted = trainings.condition("job", "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert accepted["message"].startswith(
        "spec.failurePolicy.rules[0].onMessagePatterns[1]: is no regular expression: unclosed group"
    )
    assert trainings.pods("job") == {}


@pytest.fixture
def lost_node(training_api: Cluster) -> Iterator[str]:
    """A node whose kubelet has not been heard of for a minute."""
    nodes, name = ApiClient(training_api.kubeconfig), f"lost-{uuid.uuid4().hex[:8]}"
    node = nodes.request("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    since = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "the kubelet is silent",
    }
    node["status"]["conditions"] = [
        {**ready, "lastHeartbeatTime": since, "lastTransitionTime": since}
    ]
    # Unconditionally: the controllers write to new nodes, too.
    del node["metadata"]["resourceVersion"]
    nodes.request("PUT", f"/api/v1/nodes/{name}/status", node)
    yield name
    nodes.request("DELETE", f"/api/v1/nodes/{name}")


def test_a_pod_of_a_lost_node_is_replaced_and_deleted_by_force(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher], lost_node: str
) -> None:
    template = {"metadata": {"annotations": HOLD}, "spec": {"nodeName": lost_node}}
    policy = {"nodeLostSeconds": 2, "nodeLostPolicy": "ForceDeletePods"}
    trainings.create("job", nodes=1, template=template, failurePolicy=policy)
    wait_for("the pod", lambda: trainings.pods("job"))
    launchers[0].report = {"attempt": 1, "state": "Running"}
    trainings.play_kubelet("job-0-1", launchers[0].ip, ready=True)
    trainings.wait_state("job", "Running", attempt=1)
    # What the node controller does, while nothing on the node answers any more.
    trainings.play_kubelet("job-0-1", "127.0.0.99", ready=False)
    wait_for("the replacement alone", lambda: list(trainings.pods("job")) == ["job-0-2"])
    status = trainings.status("job")
    cause = status["rootCause"]
    assert (cause["reason"], cause["pod"], cause["node"]) == ("NodeLost", "job-0-1", lost_node)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
