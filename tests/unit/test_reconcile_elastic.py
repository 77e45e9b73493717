"""Attempts of changing size and hot spares, on the simulated cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster_sim import Sim, job
from inception_operator.contract.types import Plan
from inception_operator.decide.questions import wants_progress


def elastic(nodes: int = 2, *, least: int = 1, most: int = 8, spares: int = 0, **spec: Any) -> Sim:
    policy = {"minNodes": least, "maxNodes": most, "spareNodes": spares}
    return Sim(job(nodes, elasticPolicy=policy, **spec))


def running(nodes: int = 2, **options: Any) -> Sim:
    sim = elastic(nodes, **options)
    sim.run_until("Running")
    calm(sim, 3)
    sim.events.clear()
    return sim


def calm(sim: Sim, seconds: int) -> None:
    for _ in range(seconds):
        sim.operate()
        sim.calm()
    sim.operate()


def work(sim: Sim, seconds: int) -> None:
    for _ in range(seconds):
        sim.operate()
        sim.work()
    sim.operate()


def ranks(sim: Sim) -> dict[str, int]:
    """Node ranks in the latest attempt, by pod."""
    assignments = {pod.name: pod.assigned for pod in sim.pods.values()}
    attempt = sim.status["attempt"]
    return {
        n: o.node_rank
        for n, o in assignments.items()
        if o is not None and not o.is_standby and o.attempt == attempt
    }


def new_ranks(plan: Plan) -> dict[str, int]:
    return {
        name: assigned.node_rank
        for name, assigned in plan.assign.items()
        if not assigned.is_standby
    }


def made(plan: Plan) -> list[str]:
    return [pod["metadata"]["name"] for pod in plan.create]


def test_status_says_who_trains_and_who_is_spare() -> None:
    sim = running(2, spares=1)
    assert sim.status["nodes"] == {
        "desired": 2,
        "ready": 2,
        "summary": "2/2",
        "members": "0-1",
        "desiredAtStart": 2,
        "spareReady": 1,
    }
    assert sim.status["selector"] == "training.inception.dev/job=job"
    assert ranks(sim) == {"job-0-1": 0, "job-1-1": 1}
    assert sim.pods["job-2-1"].assigned is None


def test_fixed_job_has_no_members(sim: Sim) -> None:
    assert sim.status["nodes"] == {"desired": 2, "ready": 2, "summary": "2/2"}
    assert sim.status["selector"] == "training.inception.dev/job=job"


def test_members_are_written_before_the_first_rank_is_given() -> None:
    sim = elastic(2)
    sim.operate()
    sim.calm()
    sim.operate(crash_after=1)
    assert sim.status["nodes"]["members"] == "0-1"
    assert all(pod.assigned is None for pod in sim.pods.values())
    assert new_ranks(sim.operate()) == {"job-0-1": 0, "job-1-1": 1}


def test_lost_pod_is_replaced_by_the_spare_in_the_same_pass() -> None:
    sim = running(2, spares=1)
    sim.remove(sim.pod(0))
    plan = sim.operate()
    assert new_ranks(plan) == {"job-2-1": 0, "job-1-1": 1}
    assert {assigned.master_addr for assigned in plan.assign.values()} == {sim.pods["job-2-1"].ip}
    assert made(plan) == [], "its start would slow down the ranks that come back"
    assert plan.requeue_after == 5.0
    assert sim.status["nodes"]["members"] == "2,1"
    assert sim.counters == (2, 1, 0)
    assert sim.reasons == ["Restarting", "AttemptStarted"]
    calm(sim, 4)
    assert sim.status["nodes"]["spareReady"] == 0
    calm(sim, 3)
    assert "job-0-2" in sim.pods, "a new spare"
    assert (sim.status["state"], sim.status["nodes"]["spareReady"]) == ("Running", 1)
    assert sim.counters == (2, 1, 0), "the new spare disturbs nobody"


def test_pod_that_saves_before_it_goes_is_waited_for_even_with_a_spare() -> None:
    sim = running(2, spares=1)
    leaving = sim.pod(1)
    sim.capacity = 3
    sim.delete(leaving)
    work(sim, 3)
    assert sim.pods_ready() == (
        "False",
        "WaitingForPods",
        "waiting for pod job-1-1 to save and end",
    )
    sim.exit(leaving, 75)
    sim.operate()
    assert sim.status["nodes"]["members"] == "0,2"


def test_members_that_somebody_removed_cost_an_attempt() -> None:
    sim = running(2, spares=1)
    del sim.status["nodes"]["members"]
    plan = sim.operate()
    assert sim.counters == (2, 0, 0)
    assert sorted(new_ranks(plan).values()) == [0, 1]
    assert sim.reasons == ["StatusRestored", "AttemptStarted"]


def test_failure_of_a_rank_keeps_members_and_spare() -> None:
    sim = running(2, spares=1)
    sim.fail_ranks(sim.pod(1), 1)
    assert new_ranks(sim.operate()) == {"job-0-1": 0, "job-1-1": 1}
    assert sim.counters == (2, 1, 1)


def test_root_cause_names_the_rank_not_the_slot() -> None:
    sim = running(2, spares=1)
    sim.remove(sim.pod(0))
    calm(sim, 3)
    sim.remove(sim.pod(2))
    sim.operate()
    assert (sim.status["rootCause"]["rank"], sim.status["rootCause"]["reason"]) == (0, "PodDeleted")


def test_figures_are_read_from_rank_0_wherever_it_is() -> None:
    sim = running(2, spares=1)
    sim.remove(sim.pod(0))
    calm(sim, 3)
    wanted = [view.name for view in sim.observe().pods if wants_progress(sim.job, view)]
    assert wanted == ["job-2-1"]
    old = next(view for view in sim.observe().pods if view.name == "job-2-1")
    assert old.assignment is not None
    assert not wants_progress(sim.job, replace(old, assignment=replace(old.assignment, attempt=1)))


def test_lost_spare_is_nobodys_failure() -> None:
    sim = running(2, spares=1)
    sim.remove(sim.pod(2))
    plan = sim.operate()
    assert made(plan) == ["job-2-1"]
    assert plan.assign == {}
    calm(sim, 2)
    assert (sim.counters, sim.status["nodes"]["spareReady"], sim.reasons) == ((1, 0, 0), 1, [])


def test_spare_that_ends_is_replaced_after_a_while() -> None:
    sim = running(2, spares=1)
    sim.exit(sim.pod(2), 1)
    plan = sim.operate()
    assert (plan.delete, plan.create) == ({}, ())
    assert plan.requeue_after == 30
    sim.tick(30)
    assert sim.operate().delete == {"job-2-1": None}
    sim.remove(sim.pod(2))
    assert made(sim.operate()) == ["job-2-1"]
    assert sim.counters == (1, 0, 0)


def test_silent_spare_is_replaced() -> None:
    sim = running(2, spares=1)
    sim.fail_ranks(sim.pod(1), 1)
    calm(sim, 2)
    spare = sim.pod(2)
    spare.reachable = False
    sim._ready(spare, False)
    assert sim.operate().requeue_after == 2
    sim.tick(31)
    plan = sim.operate()
    assert (plan.delete, made(plan)) == ({"job-2-1": 10}, ["job-2-2"])
    assert sim.counters == (2, 1, 1)


def test_shortage_at_the_start() -> None:
    sim = elastic(3, least=2)
    sim.capacity = 2
    calm(sim, 29)
    assert sim.pods_ready() == ("False", "Unschedulable", "pod job-2-1: no node fits")
    calm(sim, 2)
    assert sim.pods_ready()[:2] == ("True", "EnoughPodsReady")
    assert sim.pods_ready()[2] == "2 of 3 nodes, growing when 1 more pod is ready: no node fits"
    assert (sim.status["nodes"]["summary"], sim.counters) == ("2/3", (1, 0, 0))
    assert {pod.assigned.nnodes for pod in sim.pods.values() if pod.assigned} == {2}


def test_fewer_than_the_minimum_wait() -> None:
    sim = elastic(3, least=2)
    sim.capacity = 1
    calm(sim, 99)
    assert sim.condition("PodsReady") == "False"
    sim.capacity = None
    sim.run_until("Running")
    assert sim.status["nodes"]["members"] == "0-2"


def test_without_capacity_the_next_attempt_is_smaller_and_grows_back() -> None:
    sim = running(3, least=1)
    sim.capacity = 2
    sim.remove(sim.pod(1))
    calm(sim, 1)
    assert sim.condition("PodsReady") == "False", "losses of one accident are seen together"
    calm(sim, 3)
    assert sim.status["nodes"]["members"] == "0,2"
    assert sim.status["state"] == "Running"
    assert sim.counters == (2, 1, 0)
    sim.capacity = 3
    calm(sim, 20)
    assert sim.status["attempt"] == 2, "capacity may go again"
    assert sim.pods_ready()[2] == "2 of 3 nodes, growing to 3 shortly"
    calm(sim, 12)
    assert sim.status["nodes"]["members"] == "0,2,1"
    assert sim.counters == (3, 1, 0), "growing is no restart"
    assert sim.reasons == [
        *("Restarting", "Unschedulable", "AttemptStarted", "AttemptRunning"),
        *("Resized", "AttemptStarted", "AttemptRunning"),
    ]
    assert sim.status["state"] == "Running"
    assert sim.operate().empty


def test_replacement_that_has_its_node_is_waited_for() -> None:
    sim = running(2)
    sim.remove(sim.pod(1))
    for _ in range(8):
        sim.operate()
        sim.tick()
    assert sim.condition("PodsReady") == "False"
    calm(sim, 2)
    assert sim.status["nodes"]["members"] == "0-1"
    assert sim.counters == (2, 1, 0)


def test_without_a_minimum_the_job_waits_for_all() -> None:
    sim = Sim(job(2, elasticPolicy={"spareNodes": 0}))
    sim.run_until("Running")
    sim.capacity = 1
    sim.remove(sim.pod(1))
    calm(sim, 60)
    assert sim.pods_ready()[:2] == ("False", "Unschedulable")


def test_scaling_up_makes_one_attempt_once_all_pods_are_there() -> None:
    sim = running(1)
    sim.scale(3)
    plan = sim.operate()
    assert made(plan) == ["job-1-1", "job-2-1"]
    assert plan.assign == {}
    assert sim.status["state"] == "Running"
    sim.start(sim.pod(1))
    assert sim.operate().assign == {}
    sim.start(sim.pod(2))
    plan = sim.operate()
    assert new_ranks(plan) == {"job-0-1": 0, "job-1-1": 1, "job-2-1": 2}
    assert all(assigned.graceful for assigned in plan.assign.values())
    assert sim.counters == (2, 0, 0)
    assert sim.reasons == ["Resized", "AttemptStarted"]
    assert sim.condition("Restarting") == "False"
    calm(sim, 2)
    assert sim.status["state"] == "Running"
    assert sim.operate().empty


def test_scaling_up_takes_what_fits() -> None:
    sim = running(1)
    sim.capacity = 2
    sim.scale(3)
    calm(sim, 5)
    assert sim.status["nodes"]["members"] == "0-1"
    assert sim.status["nodes"]["summary"] == "2/3"
    assert sim.counters == (2, 0, 0)


def test_scaling_down_saves_and_ends_the_last_ranks() -> None:
    sim = running(4)
    sim.scale(2)
    plan = sim.operate()
    assert new_ranks(plan) == {"job-0-1": 0, "job-1-1": 1}
    assert all(assigned.graceful and assigned.nnodes == 2 for assigned in plan.assign.values())
    assert plan.delete == {"job-2-1": None, "job-3-1": None}, "they save along with the others"
    assert sim.counters == (2, 0, 0)
    assert sim.status["nodes"]["desired"] == 2
    calm(sim, 2)
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]
    assert (sim.status["state"], sim.reasons) == (
        "Running",
        ["Resized", "AttemptStarted", "AttemptRunning"],
    )


def test_crash_amid_a_resize_is_healed() -> None:
    sim = running(3)
    sim.scale(2)
    sim.operate(crash_after=2)
    assert sim.counters == (2, 0, 0)
    sim.settle()
    assert ranks(sim) == {"job-0-1": 0, "job-1-1": 1}
    assert sim.pod(2).deletion_deadline is not None


def test_member_that_becomes_a_spare_is_held() -> None:
    sim = running(2, spares=1)
    sim.pod(2).phase = "Pending"
    sim.remove(sim.pod(2))
    sim.capacity = 2
    sim.operate()
    sim.scale(1)
    plan = sim.operate()
    assert new_ranks(plan) == {"job-0-1": 0}
    assigned = plan.assign["job-1-1"]
    assert (assigned.is_standby, assigned.graceful, assigned.attempt) == (True, True, 2)
    assert plan.delete == {"job-2-1": None}, "the warm pod is the better spare"
    calm(sim, 2)
    assert sim.status["nodes"]["spareReady"] == 1


def test_scaling_waits_for_pods_of_the_last_scaling() -> None:
    sim = running(3)
    sim.scale(2)
    sim.operate()
    work(sim, 1)
    assert sim.pod(2).deletion_deadline is not None
    sim.scale(1)
    plan = sim.operate()
    assert plan.assign == {}
    assert plan.requeue_after is not None
    sim.exit(sim.pod(2), 75)
    assert new_ranks(sim.operate()) == {"job-0-1": 0}


def test_job_that_is_about_to_end_is_not_resized() -> None:
    sim = running(2)
    sim.finish(sim.pod(1))
    sim.scale(1)
    plan = sim.operate()
    assert plan.assign == {}
    sim.finish(sim.pod(0))
    sim.operate()
    assert (sim.status["state"], sim.counters) == ("Succeeded", (1, 0, 0))


def test_one_node_of_an_elastic_job_is_told_like_any_other() -> None:
    sim = elastic(1)
    plan = sim.operate()
    assert "training.inception.dev/assignment" not in plan.create[0]["metadata"]["annotations"]
    sim.run_until("Running")
    assigned = sim.pod(0).assigned
    assert assigned is not None
    assert (assigned.nnodes, assigned.master_addr) == (1, "127.0.0.1")


def test_suspended_job_resumes_at_the_size_it_has_then() -> None:
    sim = running(2, spares=1)
    sim.suspend(True)
    sim.operate()
    calm(sim, 2)
    assert sim.pods == {}
    sim.scale(3)
    sim.suspend(False)
    sim.run_until("Running")
    assert len(ranks(sim)) == 3
    assert sim.counters == (2, 0, 0)


@pytest.mark.parametrize(("nodes", "least", "most"), [(1, 2, 3), (4, 2, 3)])
def test_size_out_of_its_limits_is_refused(nodes: int, least: int, most: int) -> None:
    sim = elastic(nodes, least=least, most=most)
    sim.operate()
    accepted = sim.full_condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "spec.elasticPolicy.m" in accepted["message"]


def spare_gone_wrong(sim: Sim) -> str:
    """The pod that takes the place of the spare job-2-1, without another attempt."""
    for _ in range(4):
        sim.operate()
    assert sim.counters == (1, 0, 0)
    assert ranks(sim) == {"job-0-1": 0, "job-1-1": 1}
    calm(sim, 3)
    sim.settle()
    assert sim.status["nodes"]["spareReady"] == 1
    (fresh,) = sim.pods.keys() - {"job-0-1", "job-1-1", "job-2-1"}
    return fresh


def test_spare_with_a_broken_device_is_replaced() -> None:
    sim = running(2, spares=1)
    sim.pod(2).broken = True
    assert sim.operate().delete == {"job-2-1": 10}
    assert spare_gone_wrong(sim) == "job-3-1"


def test_spare_that_goes_silent_is_replaced_once_it_has_had_time_to_warm_up() -> None:
    sim = running(2, spares=1)
    sim.lose_node(sim.pod(2))
    sim.tick(300)
    assert not sim.operate().delete
    sim.tick(30)
    assert sim.operate().delete == {"job-2-1": 10}
    assert spare_gone_wrong(sim) == "job-3-1"


def test_spare_that_never_starts_on_a_lost_node_is_replaced() -> None:
    sim = elastic(2, spares=1, failurePolicy={"nodeLostSeconds": 20})
    sim.operate()
    for slot in (0, 1):
        sim.start(sim.pod(slot))
    sim.lose_node(sim.pod(2))
    work(sim, 12)
    assert ranks(sim) == {"job-0-1": 0, "job-1-1": 1}
    sim.tick(20)
    assert sim.operate().delete == {"job-2-1": 10}
    assert spare_gone_wrong(sim) == "job-3-1"


def test_spare_that_somebody_holds_is_replaced_under_another_number() -> None:
    sim = running(2, spares=1)
    sim.pod(2).held = True
    sim.delete(sim.pod(2))
    assert made(sim.operate()) == ["job-3-1"]
    assert spare_gone_wrong(sim) == "job-3-1"
