"""Rules and pauses on the simulated cluster: what ends, what restarts, when the next attempt
begins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract.types import Progress
from inception_operator.decide.reconcile import reconcile

CRASH = {"onExitCodes": {"operator": "In", "values": [7]}}


def crash(sim: Sim, code: int = 7, step: int | None = None) -> None:
    """Rank 1 fails, in this attempt's step if one is given; then the operator has its say."""
    if step is not None:
        sim.step(sim.pod(1), step)
    sim.fail_ranks(sim.pod(1), code)
    sim.operate()


def with_rule(action: str, **matchers: Any) -> Sim:
    sim = Sim(
        job(
            2,
            failurePolicy={
                "maxRestarts": 1,
                "rules": [{"name": "mine", "action": action, **matchers}],
            },
        )
    )
    sim.run_until("Running")
    sim.events.clear()
    return sim


def test_rule_ends_the_job() -> None:
    sim = with_rule("Fail", **CRASH)
    crash(sim)
    assert sim.counters == (1, 0, 0)
    failed = sim.full_condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "FailurePolicy")
    assert failed["message"].endswith("because; rule mine of spec.failurePolicy says Fail")
    assert [(event.reason, event.message) for event in sim.events] == [
        ("FailurePolicy", failed["message"])
    ]


def test_rule_excuses_a_failure_that_would_count() -> None:
    sim = with_rule("RestartIgnoringLimit", **CRASH)
    for restarts in (1, 2, 3):
        crash(sim, step=restarts)
        assert sim.counters == (restarts + 1, restarts, 0)
        assert "rule mine of spec.failurePolicy says RestartIgnoringLimit" in sim.events[-2].message
        sim.run_until("Running")
    crash(sim, 8)
    assert sim.counters == (5, 4, 1), "another code counts"


def test_rule_makes_the_infrastructure_count() -> None:
    sim = with_rule("Restart", onReasons=["Disrupted"])
    for _ in range(2):
        sim.disrupt(sim.pod(0))
        sim.operate()
        if not sim.terminal:
            sim.run_until("Running")
    assert sim.counters == (2, 1, 1)
    assert "rule mine" in sim.full_condition("Failed")["message"]


def test_rule_goes_by_any_condition_of_the_pod() -> None:
    sim = with_rule("Fail", onPodConditions=[{"type": "example.com/BadDisk", "status": "True"}])
    sim.pod(1).conditions = [{"type": "example.com/BadDisk", "status": "True"}]
    crash(sim, 1)
    assert sim.full_condition("Failed")["reason"] == "FailurePolicy"


def test_rules_may_change_while_the_job_runs() -> None:
    sim = with_rule("Fail", **CRASH)
    sim.job["spec"]["failurePolicy"]["rules"] = []
    crash(sim)
    assert sim.counters == (2, 1, 1)


def pauses(sim: Sim, failures: int, step: int | None = None) -> list[int]:
    """Seconds from each failure until the next attempt is issued."""
    seconds = []
    for _ in range(failures):
        crash(sim, step=step)
        begun = sim.now
        sim.run_until("PodsReady")
        seconds.append(round((sim.now - begun).total_seconds()))
        sim.run_until("Running")
    return seconds


@pytest.fixture
def patient() -> Sim:
    """A running job that may restart often."""
    sim = Sim(job(2, failurePolicy={"maxRestarts": 1000}))
    sim.run_until("Running")
    sim.events.clear()
    return sim


def test_pauses_grow_while_no_attempt_makes_a_step(patient: Sim) -> None:
    assert pauses(patient, 10) == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert patient.status["failuresInARow"] == 10


def test_new_steps_end_the_pauses(patient: Sim) -> None:
    assert pauses(patient, 5) == [0, 0, 1, 2, 4]
    assert [pauses(patient, 1, step)[0] for step in (10, 20, 30)] == [0, 0, 0]
    assert patient.status["furthest"] == {"attempt": 8, "step": 30}
    assert patient.status["failuresInARow"] == 1
    assert pauses(patient, 3) == [0, 1, 2]


def test_the_same_steps_again_and_again_slow_down_in_the_end(patient: Sim) -> None:
    assert pauses(patient, 35, step=10) == [0] * 31 + [1, 2, 4, 8]
    assert "no attempt since 1 got beyond step 10" in patient.events[-3].message
    assert pauses(patient, 1, step=11) == [0]


def test_steps_that_only_the_metrics_tell_count(patient: Sim) -> None:
    patient.fail_ranks(patient.pod(1), 7)
    seen = replace(patient.observe(), progress=Progress(patient.now, step=50))
    status = reconcile(seen, CONTEXT).status
    assert status is not None
    assert status["furthest"] == {"attempt": 1, "step": 50}


def test_while_it_waits_nothing_starts_and_the_status_says_why(patient: Sim) -> None:
    pauses(patient, 4)
    sim = patient
    sim.remove(sim.pod(0))
    sim.operate()
    assert sim.pods_ready() == (
        "False",
        "BackOff",
        "waiting 4 s before attempt 6: 5 failures in a row without a step",
    )
    assert sim.status["state"] == "Restarting"
    assert sim.status["nextAttemptTime"] == "2026-01-01T00:00:13Z"
    assert sim.full_condition("Restarting")["message"].endswith(sim.pods_ready()[2])
    assert sim.events[-1].message == sim.full_condition("Restarting")["message"]
    plan = sim.operate()
    assert (plan.status, plan.create, plan.requeue_after) == (None, (), 4)
    assert [p.name for p in sim.pods.values()] == ["job-1-1"]
    assert sim.pod(1).assigned is not None
    assert sim.pod(1).assigned.is_standby, "what is left of the attempt ends now"
    sim.tick(4)
    assert [p["metadata"]["name"] for p in sim.operate().create] == ["job-0-6"]
    assert "nextAttemptTime" not in sim.status
    assert sim.pods_ready()[1] == "WaitingForPods"


def test_an_operator_that_starts_anew_waits_as_long(patient: Sim) -> None:
    pauses(patient, 4)
    patient.fail_ranks(patient.pod(1), 7)
    patient.operate(crash_after=1)
    patient.tick(3)
    patient.operate()
    assert patient.pods_ready()[1] == "BackOff"
    patient.tick(1)
    patient.operate()
    assert patient.condition("PodsReady") == "True"


def test_suspending_ends_the_wait_and_resuming_begins_anew(patient: Sim) -> None:
    pauses(patient, 4)
    crash(patient)
    patient.suspend(True)
    patient.operate()
    assert "nextAttemptTime" not in patient.status
    patient.suspend(False)
    patient.operate()
    assert {"failuresInARow", "furthest"}.isdisjoint(patient.status)
    patient.run_until("Running")
    assert pauses(patient, 3) == [0, 0, 1]


def test_a_job_that_ends_does_not_wait(patient: Sim) -> None:
    pauses(patient, 4)
    patient.job["spec"]["failurePolicy"]["maxRestarts"] = 4
    crash(patient)
    assert patient.status["state"] == "Failed"
    assert "nextAttemptTime" not in patient.status


def test_the_pause_is_no_time_of_waiting_for_pods(patient: Sim) -> None:
    pauses(patient, 6)
    patient.job["spec"]["runPolicy"] = {"preRunningDeadlineSeconds": 5}
    crash(patient)
    assert "waiting 16 s" in patient.pods_ready()[2]
    patient.remove(patient.pod(0))
    patient.tick(16)
    patient.operate()
    patient.tick(4)
    patient.operate()
    assert not patient.terminal
    patient.tick(1)
    patient.operate()
    assert patient.full_condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "Evicted"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_pods_that_are_always_refused_are_made_ever_more_slowly(nodes: int, reason: str) -> None:
    sim = Sim(job(nodes))
    for _ in range(300):
        sim.operate()
        for each in list(sim.pods.values()):
            if each.slot == 0:
                sim.refuse(each, reason)
        sim.tick(2)
    # 1 + 2 + 4 + 8 + 16 + 32 s, then one a minute.
    assert 8 + 600 / 60 <= sim.counters[0] <= 10 + 600 / 60
    assert sim.counters[2] == 0
