"""Deadlines, the clean-up after the end, jobs of other controllers, and specs that cannot be
carried out.
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster_sim import Pod, Sim, job
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import MANAGER
from inception_operator.contract.types import Json, Plan
from inception_operator.decide.questions import wants_progress, wants_report
from inception_operator.spec.job import RunPolicy, parse, run_policy

BAD = {"profile": "abacus"}


def running(nodes: int = 2, **policy: Any) -> Sim:
    sim = Sim(job(nodes, runPolicy=policy))
    sim.run_until("Running")
    sim.events.clear()
    return sim


def succeed(sim: Sim) -> None:
    sim.finish_all()
    sim.finish_all()
    sim.operate()


def seconds(sim: Sim, wait: float) -> None:
    """Let time pass without anything going on."""
    sim.tick(wait)
    sim.operate()


# --- activeDeadlineSeconds ------------------------------------------------------------------------


def test_active_deadline_ends_a_job_that_runs_and_lets_it_save() -> None:
    sim = running(activeDeadlineSeconds=100)
    assert sim.operate().requeue_after == 98
    sim.tick(97.5)
    assert sim.operate() == Plan(requeue_after=0.5)
    sim.tick(0.5)
    plan = sim.operate()
    failed = sim.full_condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DeadlineExceeded")
    assert (
        failed["message"]
        == "the job has not ended within 100 s (spec.runPolicy.activeDeadlineSeconds)"
    )
    assert (sim.status["state"], sim.reasons) == ("Failed", ["DeadlineExceeded"])
    assert {(assigned.end, assigned.graceful) for assigned in plan.assign.values()} == {
        (True, True)
    }


def test_active_deadline_counts_while_pods_are_missing() -> None:
    sim = Sim(job(2, runPolicy={"activeDeadlineSeconds": 100}))
    sim.operate()
    seconds(sim, 99)
    assert not sim.terminal
    seconds(sim, 1)
    assert sim.full_condition("Failed")["reason"] == "DeadlineExceeded"


def test_active_deadline_counts_over_restarts() -> None:
    sim = running(activeDeadlineSeconds=100)
    seconds(sim, 50)
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Running")
    seconds(sim, 50)
    assert sim.full_condition("Failed")["reason"] == "DeadlineExceeded"
    assert sim.counters == (2, 1, 1)


def test_suspension_stops_the_active_deadline_and_a_resume_begins_it_anew() -> None:
    sim = running(activeDeadlineSeconds=100)
    seconds(sim, 90)
    sim.suspend(True)
    sim.operate()
    sim.calm()
    seconds(sim, 1000)
    assert (sim.status["state"], sim.operate()) == ("Suspended", Plan())
    resumed = sim.now
    sim.suspend(False)
    sim.run_until("Running")
    assert sim.status["startTime"] == resumed.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert not sim.terminal
    seconds(sim, 100)
    assert sim.full_condition("Failed")["reason"] == "DeadlineExceeded"


def test_job_that_is_to_be_suspended_is_not_ended_by_its_deadline() -> None:
    sim = running(activeDeadlineSeconds=100)
    sim.suspend(True)
    seconds(sim, 200)
    assert (sim.status["state"], sim.terminal) == ("Suspended", False)


def test_success_that_shows_after_the_deadline_is_still_success() -> None:
    sim = running(activeDeadlineSeconds=100)
    sim.tick(200)
    succeed(sim)
    assert sim.status["state"] == "Succeeded"


def test_deadline_can_be_extended_while_the_job_runs() -> None:
    sim = running(activeDeadlineSeconds=100)
    sim.edit(runPolicy={"activeDeadlineSeconds": 300})
    seconds(sim, 200)
    assert not sim.terminal
    sim.edit(runPolicy={"activeDeadlineSeconds": 150})
    sim.operate()
    assert sim.full_condition("Failed")["reason"] == "DeadlineExceeded"


def test_extending_the_deadline_of_a_failed_job_changes_nothing() -> None:
    sim = running(activeDeadlineSeconds=100)
    seconds(sim, 100)
    completed = sim.status["completionTime"]
    for pod in sim.pods.values():
        sim.obey(pod)
    sim.edit(runPolicy={"activeDeadlineSeconds": 1000})
    sim.tick(10)
    plan = sim.operate()
    assert (plan.create, plan.assign, plan.delete) == ((), {}, {})
    assert (sim.status["state"], sim.status["completionTime"]) == ("Failed", completed)


# --- preRunningDeadlineSeconds --------------------------------------------------------------------


def test_pre_running_deadline_ends_a_job_that_cannot_gather_with_the_words_of_the_scheduler() -> (
    None
):
    sim = Sim(job(2, runPolicy={"preRunningDeadlineSeconds": 60}))
    sim.operate()
    for pod in sim.pods.values():
        pod.conditions = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available",
            }
        ]
    assert sim.operate().requeue_after == 60
    seconds(sim, 59)
    assert not sim.terminal
    sim.tick(1)
    plan = sim.operate()
    failed = sim.full_condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "PreRunningDeadlineExceeded")
    assert failed["message"] == (
        "not all pods were ready within 60 s (spec.runPolicy.preRunningDeadlineSeconds): "
        "Unschedulable: pod job-0-1: 0/3 nodes are available"
    )
    assert sorted(plan.delete) == ["job-0-1", "job-1-1"]
    assert sim.reasons[-1] == "PreRunningDeadlineExceeded"


def test_pods_that_are_ready_just_in_time_run() -> None:
    sim = Sim(job(2, runPolicy={"preRunningDeadlineSeconds": 60}))
    sim.operate()
    for pod in sim.pods.values():
        sim.start(pod)
    seconds(sim, 100)
    assert (sim.condition("PodsReady"), sim.terminal) == ("True", False)
    seconds(sim, 100)
    assert not sim.terminal, "it only counts until the pods are ready"


def test_pre_running_deadline_begins_anew_when_a_running_attempt_ends() -> None:
    sim = running(preRunningDeadlineSeconds=60)
    seconds(sim, 1000)
    sim.remove(sim.pod(1))
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    assert plan.requeue_after is not None
    seconds(sim, 59)
    assert not sim.terminal
    seconds(sim, 1)
    assert sim.full_condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def test_attempts_that_never_begin_share_one_pre_running_deadline() -> None:
    sim = Sim(job(2, runPolicy={"preRunningDeadlineSeconds": 60}))
    sim.operate()
    for _ in range(7):
        sim.refuse(sim.pod(0), "UnexpectedAdmissionError")
        seconds(sim, 10)
    assert sim.counters[0] > 3
    assert sim.full_condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def test_pre_running_deadline_begins_anew_with_a_resume() -> None:
    sim = Sim(job(2, runPolicy={"preRunningDeadlineSeconds": 60, "suspend": True}))
    sim.operate()
    seconds(sim, 1000)
    assert sim.operate() == Plan()
    sim.suspend(False)
    sim.operate()
    seconds(sim, 59)
    assert not sim.terminal
    seconds(sim, 1)
    assert sim.full_condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def test_the_nearest_deadline_wakes_the_operator() -> None:
    sim = Sim(job(2, runPolicy={"preRunningDeadlineSeconds": 60, "activeDeadlineSeconds": 4}))
    assert sim.operate().requeue_after == 4
    sim.edit(runPolicy={"preRunningDeadlineSeconds": 3, "activeDeadlineSeconds": 4})
    assert sim.operate().requeue_after == 3


# --- after the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 60])
def test_job_is_deleted_when_its_time_is_over(ttl: int) -> None:
    sim = running(ttlSecondsAfterFinished=ttl)
    succeed(sim)
    assert not sim.deleted, "the end is on record before the record goes"
    if ttl:
        assert sim.operate() == Plan(requeue_after=60)
        seconds(sim, 59)
        assert not sim.deleted
        sim.tick(1)
    assert sim.operate() == Plan(delete_job=True)
    assert sim.deleted


def test_time_to_live_can_change_after_the_end() -> None:
    sim = running()
    succeed(sim)
    seconds(sim, 1000)
    assert sim.operate() == Plan()
    sim.edit(runPolicy={"ttlSecondsAfterFinished": 2000})
    sim.operate()
    assert sim.operate() == Plan(requeue_after=1000)
    sim.edit(runPolicy={"ttlSecondsAfterFinished": 500})
    assert not sim.operate().delete_job, "the generation is taken note of first"
    assert sim.operate().delete_job


def test_job_that_has_not_ended_is_never_deleted() -> None:
    sim = running(ttlSecondsAfterFinished=0)
    seconds(sim, 10_000)
    sim.suspend(True)
    seconds(sim, 10_000)
    assert (sim.deleted, sim.terminal) == (False, False)


def test_failed_job_with_unparsable_spec_is_still_cleaned_up() -> None:
    sim = running(ttlSecondsAfterFinished=60)
    succeed(sim)
    sim.edit(accelerator=BAD)
    seconds(sim, 61)
    assert sim.operate().delete_job


def pods_after_failure(policy: str | None) -> tuple[Sim, Plan, Pod, Pod]:
    """One pod has ended, the launcher of the other is warm."""
    sim = running(**({} if policy is None else {"cleanPodPolicy": policy}))
    ended, warm = sim.pod(0), sim.pod(1)
    sim.fail_ranks(ended, 78)
    sim.exit(ended)
    plan = sim.operate()
    assert sim.status["state"] == "Failed"
    return sim, plan, ended, warm


@pytest.mark.parametrize(
    ("policy", "deleted", "told"),
    [
        (None, [], ["job-1-1"]),
        ("None", [], ["job-1-1"]),
        ("Running", ["job-1-1"], []),
        ("All", ["job-0-1", "job-1-1"], []),
    ],
)
def test_clean_pod_policy(policy: str | None, deleted: list[str], told: list[str]) -> None:
    sim, plan, ended, warm = pods_after_failure(policy)
    assert (sorted(plan.delete), list(plan.assign)) == (deleted, told)
    sim.calm()
    sim.settle()
    sim.tick(60)
    assert sim.settle() == 0
    assert (ended.name in sim.pods, warm.name in sim.pods) == (
        "job-0-1" not in deleted,
        "job-1-1" not in deleted,
    )


def test_clean_pod_policy_can_change_after_the_end() -> None:
    sim, _, ended, _ = pods_after_failure("None")
    sim.calm()
    sim.settle()
    sim.edit(runPolicy={"cleanPodPolicy": "All"})
    assert sorted(sim.operate().delete) == ["job-0-1", "job-1-1"]
    assert sim.operate().delete == {}
    assert ended.deletion_deadline is not None


def test_pods_that_succeeded_stay_unless_all_are_to_go() -> None:
    for policy, left in (("Running", ["job-0-1", "job-1-1"]), ("All", [])):
        sim = running(cleanPodPolicy=policy)
        succeed(sim)
        sim.calm()
        assert sorted(sim.pods) == left


# --- jobs of other controllers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manager", "ours"), [(None, True), (MANAGER, True), ("kueue.x-k8s.io/multikueue", False)]
)
def test_job_of_another_controller_is_left_alone(manager: str | None, ours: bool) -> None:
    policy = {} if manager is None else {"managedBy": manager}
    sim = Sim(job(2, runPolicy=policy))
    assert (sim.operate() != Plan()) is ours
    assert bool(sim.pods) is ours
    if not ours:
        assert sim.job.get("status") is None


def test_nothing_is_asked_of_the_pods_of_another_controller(sim: Sim) -> None:
    pod = next(view for view in sim.observe().pods if view.slot == 0)
    sim.fail_ranks(sim.pod(0), 1)
    failed = next(view for view in sim.observe().pods if view.slot == 0)
    assert wants_progress(sim.job, pod)
    assert wants_report(sim.job, failed)
    sim.job["spec"]["runPolicy"] = {"managedBy": "example.com/other"}
    assert not wants_progress(sim.job, pod)
    assert not wants_report(sim.job, failed)


def test_finished_job_of_another_controller_is_not_deleted() -> None:
    sim = running(ttlSecondsAfterFinished=0)
    succeed(sim)
    sim.job["spec"]["runPolicy"]["managedBy"] = "example.com/other"
    assert sim.operate() == Plan()


# --- specs that cannot be carried out -------------------------------------------------------------


def test_accepted_is_true_once_the_spec_can_be_carried_out(sim: Sim) -> None:
    accepted = sim.full_condition("Accepted")
    assert (accepted["status"], accepted["reason"], accepted["message"]) == (
        "True",
        "Accepted",
        "the spec can be carried out",
    )


def test_rejected_job_waits_and_runs_when_it_has_been_corrected() -> None:
    sim = Sim(job(2, accelerator=BAD))
    sim.operate()
    assert sim.reasons == ["InvalidSpec"]
    accepted = sim.full_condition("Accepted")
    assert accepted["message"].endswith(
        "; the field can be changed while spec.runPolicy.suspend is true"
    )
    seconds(sim, 10_000)
    assert (sim.status["state"], sim.pods) == ("Rejected", {})
    sim.suspend(True)
    sim.settle()
    assert (sim.status["state"], sim.condition("Suspended")) == ("Rejected", "True")
    sim.edit(accelerator={"profile": "cpu"})
    sim.settle()
    assert (sim.status["state"], sim.condition("Accepted")) == ("Suspended", "True")
    sim.suspend(False)
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0)
    assert sim.reasons[1:4] == ["Suspended", "Accepted", "Resumed"], "one event for one problem"


def test_correcting_and_resuming_at_once_works() -> None:
    sim = Sim(job(2, accelerator=BAD, runPolicy={"suspend": True}))
    sim.settle()
    sim.edit(accelerator=None, runPolicy={"suspend": False})
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0)


def test_suspended_job_that_is_spoilt_keeps_its_attempts_and_goes_on_when_corrected() -> None:
    sim = running()
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Running")
    sim.suspend(True)
    sim.operate()
    sim.calm()
    sim.edit(accelerator=BAD)
    sim.settle()
    assert (sim.status["state"], sim.status["nodes"]["summary"], sim.terminal) == (
        "Rejected",
        "0/2",
        False,
    )
    sim.suspend(False)
    assert sim.operate().create == ()
    assert (sim.condition("Suspended"), sim.condition("Accepted")) == ("True", "False")
    sim.edit(accelerator=None)
    sim.run_until("Running")
    assert sim.counters == (3, 1, 1)


def test_running_job_that_an_operator_no_longer_understands_is_left_alone(sim: Sim) -> None:
    """The table of accelerators can change with the operator."""
    sim.job["spec"]["accelerator"] = BAD
    plan = sim.operate()
    assert (plan.delete, plan.assign, plan.create) == ({}, {}, ())
    assert (sim.status["state"], sim.condition("Running")) == ("Rejected", "True")
    sim.suspend(True)
    assert sorted(sim.operate().delete) == ["job-0-1", "job-1-1"]
    assert sim.status["nodes"]["summary"] == "0/2"


def test_running_job_that_was_not_understood_for_a_while_goes_on(sim: Sim) -> None:
    sim.edit(accelerator=BAD)
    sim.settle()
    sim.edit(accelerator=None)
    sim.settle()
    assert (sim.status["state"], sim.counters) == ("Running", (1, 0, 0))
    assert sim.reasons == ["InvalidSpec", "Accepted"]


def test_deadline_ends_a_job_that_is_not_understood_any_more() -> None:
    sim = running(activeDeadlineSeconds=100)
    sim.edit(accelerator=BAD)
    assert sim.operate().requeue_after == 98
    sim.tick(98)
    plan = sim.operate()
    assert sim.full_condition("Failed")["reason"] == "DeadlineExceeded"
    assert sorted(plan.assign) == ["job-0-1", "job-1-1"]


def test_rejected_job_that_has_not_started_has_no_deadline() -> None:
    sim = Sim(
        job(
            2,
            accelerator=BAD,
            runPolicy={"activeDeadlineSeconds": 10, "preRunningDeadlineSeconds": 10},
        )
    )
    sim.operate()
    seconds(sim, 1000)
    assert (sim.status["state"], sim.operate()) == ("Rejected", Plan())


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            {"activeDeadlineSeconds": 0},
            "spec.runPolicy.activeDeadlineSeconds: 0 is not a number from 1 to 315360000",
        ),
        (
            {"preRunningDeadlineSeconds": "1h"},
            "spec.runPolicy.preRunningDeadlineSeconds: '1h' is not a number",
        ),
        (
            {"ttlSecondsAfterFinished": -1},
            "spec.runPolicy.ttlSecondsAfterFinished: -1 is not a number from 0",
        ),
        (
            {"cleanPodPolicy": "Some"},
            "spec.runPolicy.cleanPodPolicy: Some is unknown; choose one of None, Running, All",
        ),
    ],
)
def test_run_policy_that_the_schema_would_have_refused_is_refused(policy: Json, words: str) -> None:
    resource = job(1, runPolicy=policy)
    with pytest.raises(SpecError) as caught:
        parse(resource)
    assert str(caught.value).startswith(words)
    assert run_policy(resource) == RunPolicy(), "a job that is over is not held up by it"
    sim = Sim(resource)
    sim.operate()
    assert sim.full_condition("Accepted")["message"] == str(caught.value), (
        "it can be changed at any time"
    )


def test_run_policy_is_parsed() -> None:
    policy = {
        "activeDeadlineSeconds": 1,
        "preRunningDeadlineSeconds": 2,
        "ttlSecondsAfterFinished": 0,
    }
    resource = job(1, runPolicy={**policy, "cleanPodPolicy": "All"})
    limits = RunPolicy(active_deadline=1, pre_running_deadline=2, ttl=0, clean_pods="All")
    assert parse(resource).run_policy == run_policy(resource) == limits
    assert parse(job(1)).run_policy == RunPolicy()
