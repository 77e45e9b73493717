"""What counts as a failure, which one is the cause, and what follows by default."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inception_operator.contract.assignment import work
from inception_operator.contract.names import Cause
from inception_operator.contract.types import PodView, Report
from inception_operator.decide import failure, imposed, slots
from inception_operator.decide.budget import Budget, Counters
from inception_operator.decide.failure import AttemptView, Failure
from inception_operator.decide.restart_policy import (
    INFRASTRUCTURE,
    EndedAttempt,
    decide_restart,
)
from inception_operator.spec.failure_policy import Action

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ISSUED = NOW - timedelta(seconds=10)


def pod(slot: int = 0, **fields: Any) -> PodView:
    base: dict[str, Any] = {
        "name": f"job-{slot}-1",
        "uid": f"uid-{slot}",
        "slot": slot,
        "incarnation": 1,
        "phase": "Running",
        "ready": True,
        "ip": "10.0.0.1",
        "node": "node-a",
        "reachable": True,
        "assignment": work(3, slot, 2, 4, "10.0.0.1", graceful=False),
        "report": Report(3, "Running"),
    }
    return PodView(**(base | fields))


def attempt(**fields: Any) -> AttemptView:
    base: dict[str, Any] = {"job": "job", "attempt": 3, "nproc": 4, "issued": ISSUED, "now": NOW}
    return AttemptView(**(base | fields))


def only(view: PodView | None, **fields: Any) -> Failure | None:
    found = failure.collect((view,), attempt(**fields))
    return found[0] if found else None


def action(cause: Failure, previous: dict[str, Any] | None) -> Action:
    """What follows where there are no rules and the limit is far away."""
    budget = Budget(99, 600)
    return decide_restart(EndedAttempt(cause), previous, (), budget, Counters(), NOW).action


def ended(code: int | None, **fields: Any) -> PodView:
    return pod(phase="Failed", ready=False, exit_code=code, finished=NOW, report=None, **fields)


ENDINGS = [
    pytest.param(ended(1), "Error", Action.RESTART, id="any code"),
    pytest.param(ended(64), "UsageError", Action.FAIL, id="usage"),
    pytest.param(ended(65), "DataError", Action.FAIL, id="data"),
    pytest.param(ended(66), "InputMissing", Action.FAIL, id="input"),
    pytest.param(ended(78), "ConfigError", Action.FAIL, id="config"),
    pytest.param(ended(80), "DeviceOutOfMemory", Action.FAIL, id="memory of the device"),
    pytest.param(ended(70), "Hang", Action.RESTART, id="hang"),
    pytest.param(ended(75), "Stopped", Action.RESTART_IGNORING_LIMIT, id="stopped"),
    pytest.param(ended(126), "CannotRun", Action.FAIL, id="not executable"),
    pytest.param(ended(127), "CannotRun", Action.FAIL, id="not found"),
    pytest.param(
        ended(128, terminated_reason="StartError"), "CannotRun", Action.RESTART, id="start error"
    ),
    pytest.param(ended(137), "Signal", Action.RESTART, id="killed"),
    pytest.param(ended(139), "Signal", Action.RESTART, id="crashed"),
    pytest.param(
        ended(137, terminated_reason="OOMKilled"), "OOMKilled", Action.RESTART, id="memory"
    ),
    pytest.param(
        ended(137, terminated_reason="ContainerStatusUnknown"),
        "NodeLost",
        Action.RESTART_IGNORING_LIMIT,
        id="unknown",
    ),
    pytest.param(
        ended(143, disruption_reason="TerminationByKubelet"),
        "Evicted",
        Action.RESTART_IGNORING_LIMIT,
        id="disrupted",
    ),
    pytest.param(
        ended(1, disruption_reason="DeletionByTaintManager"),
        "NodeLost",
        Action.RESTART_IGNORING_LIMIT,
        id="tainted",
    ),
    pytest.param(
        ended(None, reason="Evicted"), "Evicted", Action.RESTART_IGNORING_LIMIT, id="evicted"
    ),
    pytest.param(
        ended(None, reason="UnexpectedAdmissionError"),
        "UnexpectedAdmissionError",
        Action.RESTART_IGNORING_LIMIT,
        id="refused by the kubelet",
    ),
    pytest.param(
        ended(None, reason="OutOfcpu"),
        "UnexpectedAdmissionError",
        Action.RESTART_IGNORING_LIMIT,
        id="out of cpu",
    ),
    pytest.param(
        ended(None, reason="SysctlForbidden"), "PodFailed", Action.RESTART, id="any reason"
    ),
    pytest.param(
        ended(75, reason="DeadlineExceeded"), "LimitExceeded", Action.RESTART, id="own deadline"
    ),
    pytest.param(
        ended(79, message="the loss became nan"), "NonFinite", Action.RESTART, id="not a number"
    ),
    pytest.param(None, "PodDeleted", Action.RESTART_IGNORING_LIMIT, id="gone"),
    pytest.param(
        pod(deleting=True), "PodDeleted", Action.RESTART_IGNORING_LIMIT, id="being deleted"
    ),
    pytest.param(
        pod(deleting=True, disruption_reason="EvictionByEvictionAPI"),
        "Disrupted",
        Action.RESTART_IGNORING_LIMIT,
        id="being evicted",
    ),
]


@pytest.mark.parametrize(("view", "reason", "follows"), ENDINGS)
def test_table(view: PodView | None, reason: str, follows: Action) -> None:
    found = only(view)
    assert found is not None
    assert found.reason == reason
    assert action(found, None) is follows
    assert (found.attempt, found.rank) == (3, 0)


# Word for word as the kubelet's eviction manager and its node shutdown manager write them.
EVICTIONS = [
    ('Container trainer exceeded its local ephemeral storage limit "50Mi". ', "LimitExceeded"),
    (
        "Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. ",
        "LimitExceeded",
    ),
    ('Usage of EmptyDir volume "scratch" exceeds the limit "10Mi". ', "LimitExceeded"),
    (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi."
        " Container trainer was using 5Gi, request is 0, has larger consumption of "
        "ephemeral-storage. ",
        "Evicted",
    ),
    (
        "The node was low on resource: memory. Container trainer was using 20Gi, which exceeds its "
        "request of 0. ",
        "Evicted",
    ),
    ("The node had condition: [DiskPressure]. ", "Evicted"),
    ("", "Evicted"),
]


@pytest.mark.parametrize(("words", "reason"), EVICTIONS)
def test_only_a_pod_beyond_its_own_limit_is_to_blame_for_its_eviction(
    words: str, reason: str
) -> None:
    found = only(ended(137, reason="Evicted", message=words))
    assert found is not None
    assert found.reason == reason
    assert found.message == (words or "Evicted")
    counts = Action.RESTART if reason == "LimitExceeded" else Action.RESTART_IGNORING_LIMIT
    assert action(found, None) is counts


def test_every_disruption_and_every_reason_of_a_pod_has_one_cause() -> None:
    blameless = INFRASTRUCTURE | {Cause.LIMIT_EXCEEDED}
    for reason, cause in imposed.CAUSE_OF_POD_REASON.items():
        found = only(ended(137, reason=reason))
        assert found is not None
        assert found.reason == cause
        assert cause in blameless
    for reason, cause in imposed.CAUSE_OF_DISRUPTION.items():
        found = only(ended(137, disruption_reason=reason))
        assert found is not None
        assert found.reason == cause
        assert cause in INFRASTRUCTURE
        leaving = only(pod(deleting=True, disruption_reason=reason))
        assert leaving is not None
        assert leaving.reason == ("NodeLost" if cause == "NodeLost" else "Disrupted")


@pytest.mark.parametrize(
    ("reason", "message", "step"),
    [
        ("NonFinite", "NonFiniteLoss: nan within the 50 steps before step 550 (x); y", 550),
        ("NonFinite", "a weight became NaN\nthe loss at step 7", 500),
        ("NonFinite", "step 99999999999999999999", 500),
        ("Error", "failed in step 550", 500),
    ],
    ids=["named", "only in the last lines", "no number of a step", "another reason"],
)
def test_the_step_of_a_loss_that_is_no_number_is_the_one_that_it_names(
    reason: str, message: str, step: int
) -> None:
    report = Report(3, "Failed", exit_code=79, reason=reason, message=message, time=NOW, step=500)
    found = only(pod(report=report, ready=False))
    assert found is not None
    assert found.step == step
    assert found.to_json(NOW)["step"] == step


def test_report_says_who_and_why() -> None:
    report = Report(
        3, "Failed", exit_code=7, rank=6, reason="Error", message="ValueError: x", time=NOW
    )
    found = only(pod(report=report, ready=False))
    assert found is not None
    assert found.to_json(NOW) == {
        "attempt": 3,
        "pod": "job-0-1",
        "node": "node-a",
        "rank": 6,
        "exitCode": 7,
        "reason": "Error",
        "message": "ValueError: x",
        "time": "2026-01-01T12:00:00Z",
    }
    assert found.text == "Error of rank 6 in pod job-0-1 on node node-a, exit code 7: ValueError: x"


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(seconds=-6), timedelta(hours=1)])
def test_what_others_may_still_say_is_waited_for_by_our_own_clock(skew: timedelta) -> None:
    """The clock of the pod's node is another one."""
    report = Report(3, "Failed", exit_code=1, reason="PeerLost", time=NOW + skew)
    for passed, waits in ((0, True), (1.9, True), (2, False)):
        heard = NOW - timedelta(seconds=passed)
        pods = (pod(0, report=report, ready=False, heard=heard), pod(1))
        found = failure.collect(pods, attempt())
        assert failure.must_wait(found, pods, attempt()) is waits


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(), timedelta(hours=1)])
def test_a_launcher_that_was_told_to_end_is_waited_for_by_our_own_clock(skew: timedelta) -> None:
    report = Report(3, "Running", leaving=True, time=NOW + skew)
    told = pod(report=report, heard=NOW)
    last = timedelta(seconds=125)
    assert slots.lingering(told, NOW + last - timedelta(seconds=1))
    assert not slots.lingering(told, NOW + last)


def test_a_root_cause_is_never_of_a_time_to_come() -> None:
    found = Failure(3, 0, "Error", NOW + timedelta(days=1))
    assert found.to_json(NOW)["time"] == "2026-01-01T12:00:00Z"


def test_only_the_first_line_of_a_message_is_for_conditions() -> None:
    found = Failure(3, 0, "Error", NOW, exit_code=1, message="ValueError: x\nTraceback\n  in f")
    assert found.text == "Error in slot 0, exit code 1: ValueError: x"
    assert found.to_json(NOW)["message"] == "ValueError: x\nTraceback\n  in f"


def test_rank_without_a_report_is_the_first_of_its_node() -> None:
    found = failure.collect((pod(0), pod(1, deleting=True)), attempt())
    assert [each.rank for each in found] == [4]


def test_report_of_another_attempt_is_no_failure_of_this_one() -> None:
    report = Report(2, "Failed", exit_code=7)
    assert only(pod(report=report, ready=False)) is None


def test_launcher_that_never_could_start_ends_the_job() -> None:
    report = Report(0, "Failed", exit_code=127, reason="CannotRun", message="no torch")
    view = pod(
        phase="Failed", exit_code=127, ready=False, report=report, assignment=None, incarnation=3
    )
    found = only(view, issued=None)
    assert found is not None
    assert action(found, None) is Action.FAIL
    assert found.message == "no torch"


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(-5, "Error"), (5, "PodDeleted")],
    ids=["failed first", "failed when told to go"],
)
def test_deleted_pod_with_a_failure_of_its_own(seconds: float, reason: str) -> None:
    report = Report(3, "Failed", exit_code=1, reason="Error", time=NOW + timedelta(seconds=seconds))
    found = only(pod(deleting=True, deletion_requested=NOW, report=report))
    assert found is not None
    assert found.reason == reason


GATHERING = [
    pytest.param(None, False, id="not made yet"),
    pytest.param(
        pod(deleting=True, assignment=None, incarnation=3), False, id="deleted before it was told"
    ),
    pytest.param(pod(deleting=True), True, id="one-node pod deleted at work"),
    pytest.param(ended(1, assignment=None), False, id="ended in an earlier attempt"),
]


@pytest.mark.parametrize(("view", "fails"), GATHERING)
def test_while_gathering(view: PodView | None, fails: bool) -> None:
    assert (only(view, issued=None) is not None) is fails


def test_pod_made_for_this_attempt_counts_while_gathering() -> None:
    found = only(ended(1, assignment=None, incarnation=3), issued=None)
    assert found is not None
    assert action(found, None) is Action.RESTART


def fail(slot: int, reason: str, seconds: float) -> Failure:
    return Failure(3, slot, reason, NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("failures", "slot"),
    [
        ([fail(0, "Error", 1), fail(1, "Error", 0)], 1),
        ([fail(0, "PeerLost", 0), fail(1, "Error", 1)], 1),
        ([fail(0, "Stopped", 0), fail(1, "PodDeleted", 1)], 1),
        ([fail(0, "PeerLost", 0), fail(1, "Stopped", 1)], 1),
        ([fail(1, "PeerLost", 0), fail(0, "PeerLost", 1)], 1),
        ([fail(1, "Error", 0), fail(0, "Error", 0)], 0),
        ([fail(0, "Hang", 0), fail(1, "Hang", -60)], 1),
        ([fail(0, "PeerLost", -70), fail(1, "Hang", -60)], 1),
    ],
    ids=[
        "earliest",
        "not a consequence",
        "not an echo",
        "stop before loss",
        "only consequences",
        "same moment",
        "began to hang first",
        "hang before loss",
    ],
)
def test_root_cause(failures: list[Failure], slot: int) -> None:
    assert failure.root_cause(failures).slot == slot
    assert failure.root_cause(failures[::-1]).slot == slot


@pytest.mark.parametrize(
    ("failures", "waits"),
    [
        ([fail(0, "PeerLost", -1)], True),
        ([fail(0, "PeerLost", -3)], False),
        ([fail(0, "PeerLost", 60)], False),
        ([fail(0, "PeerLost", -1), fail(1, "PeerLost", -1)], False),
        ([fail(0, "PeerLost", -1), fail(1, "Error", -1)], False),
        ([fail(0, "Hang", -1)], True),
        ([fail(0, "Hang", -60)], False),
        ([fail(0, "Hang", -1), fail(1, "Hang", -60)], False),
    ],
    ids=[
        "young",
        "old",
        "clock ahead",
        "all have spoken",
        "cause is there",
        "waits for others",
        "hangs itself",
        "all hang",
    ],
)
def test_waiting_for_the_cause(failures: list[Failure], waits: bool) -> None:
    assert failure.must_wait(failures, (pod(0), pod(1)), attempt()) is waits


@pytest.mark.parametrize(
    ("previous", "follows"),
    [
        (None, Action.RESTART),
        ({"reason": "OOMKilled", "attempt": 2}, Action.FAIL),
        ({"reason": "OOMKilled", "attempt": 1}, Action.RESTART),
        ({"reason": "Error", "attempt": 2}, Action.RESTART),
    ],
    ids=["first", "twice in a row", "not in a row", "another cause"],
)
def test_out_of_memory(previous: dict[str, Any] | None, follows: Action) -> None:
    assert action(fail(0, "OOMKilled", 0), previous) is follows


def test_lost_peer_with_a_permanent_code_is_still_a_consequence() -> None:
    lost = Failure(3, 0, "PeerLost", NOW, exit_code=65)
    assert action(lost, None) is Action.RESTART


LATE = ISSUED - timedelta(seconds=60)


@pytest.mark.parametrize(
    ("view", "fails"),
    [
        (pod(report=Report(2, "Running")), True),
        (pod(report=Report(2, "Running"), reachable=None), False),
        (pod(report=Report(2, "Running"), reachable=False), False),
        (pod(report=Report(3, "Idle")), True),
        (pod(ready=False, reachable=False, ready_changed=LATE), True),
        (pod(ready=False, reachable=False, ready_changed=LATE, unreachable_since=NOW), False),
        (pod(ready=False, reachable=False, ready_changed=NOW), False),
        (pod(ready=False, reachable=True), False),
        (pod(), False),
    ],
    ids=[
        "old attempt",
        "not asked",
        "by readiness",
        "idle",
        "silent",
        "just silent",
        "just unready",
        "unready",
        "well",
    ],
)
def test_not_responding(view: PodView, fails: bool) -> None:
    late = {"issued": NOW - timedelta(seconds=30)}
    found = only(view, **late)
    assert (found is not None and found.reason == "NotResponding") is fails
    assert only(view, issued=NOW - timedelta(seconds=29)) is None


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (pod(ready=False, reachable=False, ready_changed=LATE), "NotResponding"),
        (
            pod(ready=False, reachable=False, ready_changed=LATE, never_reached=True),
            "LauncherUnreachable",
        ),
        (replace(ended(1, reachable=False), report=Report(2, "Failed")), "NotResponding"),
        (
            replace(ended(1, reachable=False, never_reached=True), report=Report(2, "Failed")),
            "LauncherUnreachable",
        ),
        (
            pod(
                ready=False,
                reachable=False,
                ready_changed=LATE,
                never_reached=True,
                ran_before=True,
            ),
            "NotResponding",
        ),
        (
            replace(
                ended(1, reachable=False, never_reached=True, ran_before=True),
                report=Report(2, "Failed"),
            ),
            "NotResponding",
        ),
    ],
    ids=[
        "fell silent",
        "never heard",
        "fell silent and ended",
        "never heard and ended",
        "perhaps heard by an earlier operator",
        "perhaps heard by an earlier operator and ended",
    ],
)
def test_only_what_was_never_reached_counts(view: PodView, reason: str) -> None:
    found = only(view, issued=NOW - timedelta(seconds=30))
    assert found is not None
    assert found.reason == reason
    never = reason == "LauncherUnreachable"
    assert ("NetworkPolicies" in found.message) is never
    assert (action(found, None) is Action.RESTART) is never


def test_long_messages_are_cut() -> None:
    found = Failure(1, 0, "Error", NOW, message="x" * 5000)
    assert len(found.text) <= failure.MAX_TEXT
    assert len(found.to_json(NOW)["message"]) <= failure.MAX_MESSAGE


def test_success_of_an_earlier_attempt_does_not_count_for_this_one() -> None:
    found = only(ended(0, terminated_reason="Completed"))
    assert found is None
    late = pod(
        phase="Succeeded", exit_code=0, finished=NOW, report=Report(2, "Succeeded", exit_code=0)
    )
    found = only(late)
    assert found is not None
    assert action(found, None) is Action.RESTART_IGNORING_LIMIT
