"""Failures one by one, on the simulated cluster: what counts, ends the job, or is replaced."""

from __future__ import annotations

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract import assignment
from inception_operator.contract.types import Report
from inception_operator.decide.reconcile import reconcile

CONDITIONS = ("Accepted", "Suspended", "PodsReady", "Running", "Restarting", "Succeeded", "Failed")


@pytest.mark.parametrize(
    ("code", "counted"), [(1, 1), (7, 1), (70, 1), (137, 1), (143, 1), (75, 0)], ids=str
)
def test_failed_ranks_restart_in_the_same_pods(sim: Sim, code: int, counted: int) -> None:
    before = sorted(sim.pods)
    sim.fail_ranks(sim.pod(1), code)
    if code in (70, 75):
        assert not sim.operate().assign, (
            "ranks stop and hang together: the cause may be another pod's"
        )
        sim.tick(2)
    plan = sim.operate()
    assert sim.counters == (2, 1, counted)
    assert sorted(sim.pods) == before
    assert {assigned.attempt for assigned in plan.assign.values()} == {2}
    assert {assigned.is_standby for assigned in plan.assign.values()} == {False}
    assert {assigned.graceful for assigned in plan.assign.values()} == {code == 75}
    assert sim.reasons == ["Restarting", "AttemptStarted"]
    cause = sim.status["rootCause"]
    assert (cause["attempt"], cause["pod"], cause["rank"], cause["exitCode"]) == (
        1,
        "job-1-1",
        1,
        code,
    )
    assert sim.status["state"] == "Restarting"
    sim.run_until("Running")
    assert sim.condition("Restarting") == "False"


@pytest.mark.parametrize("heard", ["before the ranks end", "with the end of its ranks"])
@pytest.mark.parametrize("kubelet", ["has seen it", "has not looked yet"])
def test_one_sigterm_to_one_launcher_is_one_attempt(sim: Sim, heard: str, kubelet: str) -> None:
    told, other = sim.pod(0), sim.pod(1)
    sim.terminate(told)
    told.ready = kubelet == "has not looked yet"
    if heard == "before the ranks end":
        assert sim.hear(told).leaving
        plan = sim.operate()
        touched = (*plan.assign, *plan.delete, *plan.create)
        assert not touched, "they are saving"
        assert sim.counters == (1, 0, 0)
    sim.tick()
    sim.fail_ranks(other, 75)
    if heard == "with the end of its ranks":
        sim.fail_ranks(told, 75)
        sim.hear(told)
        told.ready = kubelet == "has not looked yet"
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    cause = sim.status["rootCause"]
    assert (cause["pod"], cause["exitCode"], cause["reason"]) == ("job-0-1", 75, "Stopped")
    assert told.name not in plan.delete, "a second SIGTERM would cut its saving short"
    assert sim.condition("PodsReady") == "False", "an attempt must not be given to it"
    sim.tick()
    sim.leave(told)
    sim.operate()
    assert sorted(sim.pods) == ["job-0-1", "job-0-2", "job-1-1"]
    sim.run_until("Running")
    assert sim.counters == (2, 1, 0)


def test_a_launcher_without_ranks_that_was_told_to_end_takes_no_attempt(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(1), 7)
    sim.terminate(sim.pod(0))
    sim.hear(sim.pod(0))
    sim.operate()
    assert sim.counters == (2, 1, 1)
    assert sim.condition("PodsReady") == "False"
    sim.run_until("Running")
    assert sim.counters == (2, 1, 1)


@pytest.mark.parametrize("code", [64, 65, 66, 78, 126, 127])
def test_hopeless_codes_end_the_job_at_once(sim: Sim, code: int) -> None:
    sim.fail_ranks(sim.pod(0), code)
    plan = sim.operate()
    assert sim.status["state"] == "Failed"
    assert sim.counters == (1, 0, 0)
    assert plan.delete == {}
    told = [assigned for _, assigned in sorted(plan.assign.items())]
    assert [assigned.end for assigned in told] == [True, True]
    # Who reads a log afterwards, of the rank that failed for example, looks for them.
    assert [(each.attempt, each.node_rank, each.nnodes) for each in told] == [(1, 0, 2), (1, 1, 2)]
    assert sim.status["completionTime"]
    assert sim.condition("Succeeded") == "False"
    assert "because" in sim.full_condition("Failed")["message"]
    assert sim.reasons == ["PermanentFailure"]


def test_pods_of_a_failed_job_end_by_themselves_and_keep_their_logs(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 66)
    sim.operate()
    for pod in sim.pods.values():
        sim.obey(pod)
    sim.tick(60)
    sim.settle()
    assert [pod.exit_code for pod in sim.pods.values()] == [66, 75]
    assert all(pod.deletion_deadline is None for pod in sim.pods.values())


def test_pod_that_does_not_end_with_its_job_is_deleted(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 66)
    sim.operate()
    sim.obey(sim.pod(0))
    sim.tick(29)
    assert sim.operate().delete == {}
    sim.tick(2)
    assert list(sim.operate().delete) == ["job-1-1"]


def test_launcher_that_has_not_seen_its_assignment_is_reminded(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(1), 1)
    sim.operate()
    sim.obey(sim.pod(0))
    assert sim.operate().assign == {}
    sim.tick(3)
    (reminder,) = sim.operate().assign.items()
    assert (reminder[0], reminder[1].attempt, reminder[1].is_standby) == ("job-1-1", 2, False)
    assert reminder[1].reminder >= 1
    assert sim.operate().assign == {}, "one reminder at a time"
    sim.obey(sim.pod(1))
    sim.tick(3)
    assert sim.operate().assign == {}


def test_launcher_that_holds_for_the_attempt_and_has_not_seen_its_rank_is_reminded(
    sim: Sim,
) -> None:
    sim.remove(sim.pod(0))
    sim.operate()
    sim.obey(sim.pod(1))
    assert sim.pod(1).report.state == "Idle"
    sim.operate()
    sim.start(sim.pod(0))
    sim.operate()
    sim.operate()
    assert not sim.pod(1).assigned.is_standby
    sim.obey(sim.pod(0))
    assert sim.operate().assign == {}
    sim.tick(3)
    ((name, assigned),) = sim.operate().assign.items()
    assert (name, assigned.attempt, assigned.is_standby, assigned.reminder) == (
        "job-1-1",
        2,
        False,
        3,
    )


def test_a_broken_device_ends_the_attempt_and_costs_its_pod_but_not_the_budget(sim: Sim) -> None:
    sim.pod(1).broken = True
    sim.fail_ranks(sim.pod(1), 134)
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    cause = sim.status["rootCause"]
    assert (cause["reason"], cause["pod"]) == ("DeviceUnhealthy", "job-1-1")
    assert cause["message"].startswith("unhealthy: cambricon.com/mlu mlu-1"), (
        "the healthy one is not named"
    )
    assert list(plan.delete) == ["job-1-1"]
    sim.run_until("Running")
    assert sorted(pod.name for pod in sim.pods.values() if pod.deletion_deadline is None) == [
        "job-0-1",
        "job-1-2",
    ]


def test_a_device_that_breaks_while_the_attempt_gathers_is_not_trained_on() -> None:
    sim = Sim(job(2))
    sim.settle()
    sim.start(sim.pod(1))
    sim.pod(1).broken = True
    sim.run_until("Running")
    assert sim.status["attempt"] == 2
    assert sim.pod(1).name == "job-1-2"


def test_a_pod_that_vanished_is_named_in_any_attempt(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Running")
    sim.remove(sim.pod(1))
    sim.operate()
    cause = sim.status["rootCause"]
    assert (cause["reason"], cause["pod"], cause["node"]) == ("PodDeleted", "job-1-1", "node-1-1")


def test_limit_counts_only_what_counts() -> None:
    sim = Sim(job(2, failurePolicy={"maxRestarts": 2}))
    for code in (1, 75, 1, 75, 1):
        sim.run_until("Running")
        sim.fail_ranks(sim.pod(0), code)
        sim.tick(2)
        sim.operate()
    assert sim.status["state"] == "Failed"
    assert sim.counters == (5, 4, 2)
    failed = sim.full_condition("Failed")
    assert failed["reason"] == "MaxRestartsExceeded"
    assert "exit code 1" in failed["message"]


def test_out_of_memory_twice_in_a_row_ends_the_job(sim: Sim) -> None:
    for reason, state in (
        ("OOMKilled", "Running"),
        ("Error", "Running"),
        ("OOMKilled", "Running"),
        ("OOMKilled", "Failed"),
    ):
        sim.fail_ranks(sim.pod(0), 137 if reason == "OOMKilled" else 1, reason)
        sim.operate()
        if state == "Running":
            sim.run_until("Running")
        assert sim.status["state"] == state
    assert sim.full_condition("Failed")["reason"] == "OutOfMemory"


def test_lost_peer_waits_for_the_cause(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1, "PeerLost")
    plan = sim.operate()
    assert plan.empty
    assert plan.requeue_after == 0.2
    sim.tick(1)
    sim.fail_ranks(sim.pod(1), 137)
    sim.operate()
    assert (sim.status["rootCause"]["pod"], sim.status["rootCause"]["reason"]) == (
        "job-1-1",
        "Signal",
    )
    assert sim.counters == (2, 1, 1)


def test_lost_peer_alone_restarts_after_two_seconds(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1, "PeerLost")
    sim.tick(1.9)
    assert sim.operate().empty
    sim.tick(0.2)
    sim.operate()
    assert sim.status["rootCause"]["reason"] == "PeerLost"
    assert sim.counters == (2, 1, 1)


def test_all_slots_having_spoken_nobody_is_waited_for(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1, "PeerLost")
    sim.fail_ranks(sim.pod(1), 1, "PeerLost")
    sim.operate()
    assert sim.counters == (2, 1, 1)


def test_earliest_genuine_failure_is_the_cause(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(1), 7)
    sim.tick(0.5)
    sim.fail_ranks(sim.pod(0), 9)
    sim.operate()
    assert sim.status["rootCause"]["exitCode"] == 7


def test_deleted_pod_is_replaced_and_the_survivor_saves_and_waits(sim: Sim) -> None:
    sim.delete(sim.pod(1))
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    assert [p["metadata"]["name"] for p in plan.create] == ["job-1-2"]
    assert plan.assign == {"job-0-1": assignment.standby(2, graceful=True)}
    assert sim.status["rootCause"]["reason"] == "PodDeleted"
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-2"]
    assert sim.counters == (2, 1, 0)


def test_vanished_pod_leaves_nobody_to_save_with(sim: Sim) -> None:
    sim.remove(sim.pod(1))
    plan = sim.operate()
    assert plan.assign == {"job-0-1": assignment.standby(2, graceful=False)}
    cause = sim.status["rootCause"]
    assert (cause["pod"], cause["rank"], cause["reason"]) == ("job-1-1", 1, "PodDeleted")


def test_next_attempt_waits_while_a_deleted_pod_saves(sim: Sim) -> None:
    leaving = sim.pod(1)
    sim.delete(leaving)
    sim.operate()
    for _ in range(5):
        sim.work()
        sim.operate()
    assert sim.pods_ready() == (
        "False",
        "WaitingForPods",
        "waiting for pod job-1-1 to save and end",
    )
    sim.exit(leaving, 75)
    sim.operate()
    assert sim.condition("PodsReady") == "True"


@pytest.mark.parametrize("dead", [True, False])
def test_taint_alone_does_not_say_that_a_pod_is_dead(sim: Sim, dead: bool) -> None:
    leaving = sim.pod(1)
    sim.disrupt(leaving, "DeletionByTaintManager")
    if dead:
        sim._ready(leaving, False)
    sim.operate()
    sim.work()
    sim.operate()
    assert (sim.condition("PodsReady") == "True") is dead


def test_pod_of_a_dead_node_is_not_waited_for_for_ever(sim: Sim) -> None:
    sim.delete(sim.pod(1))
    sim.operate()
    sim.work()
    plan = sim.operate()
    assert plan.requeue_after is not None
    sim.tick(126)
    sim.operate()
    assert sim.condition("PodsReady") == "True"


@pytest.mark.parametrize(
    ("disruption", "cause", "graceful"),
    [
        ("EvictionByEvictionAPI", "Disrupted", True),
        ("PreemptionByScheduler", "Disrupted", True),
        ("DeletionByTaintManager", "NodeLost", False),
    ],
)
def test_disruption_does_not_count(sim: Sim, disruption: str, cause: str, graceful: bool) -> None:
    sim.disrupt(sim.pod(0), disruption)
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    assert sim.status["rootCause"]["reason"] == cause
    assert plan.assign["job-1-1"].graceful is graceful


@pytest.mark.parametrize(
    ("reason", "cause"),
    [("Evicted", "Evicted"), ("UnexpectedAdmissionError", "UnexpectedAdmissionError")],
)
def test_kubelet_ended_the_pod(sim: Sim, reason: str, cause: str) -> None:
    sim.refuse(sim.pod(0), reason)
    sim.operate()
    assert sim.counters == (2, 1, 0)
    assert sim.status["rootCause"]["reason"] == cause
    sim.run_until("Running")
    assert sim.counters == (2, 1, 0)


def test_pod_that_cannot_start_counts_while_gathering() -> None:
    sim = Sim(job(2, failurePolicy={"maxRestarts": 2}))
    for _ in range(12):
        sim.operate()
        for each in list(sim.pods.values()):
            sim.start(each)
            if each.slot == 1:
                sim.exit(each, 1)
        if sim.terminal:
            break
    assert sim.counters == (3, 2, 2)
    assert sim.status["state"] == "Failed"


def test_pod_lost_while_gathering_is_simply_replaced() -> None:
    sim = Sim()
    sim.operate()
    gone = sim.pods["job-1-1"]
    sim.delete(gone)
    assert sim.operate().empty, "the name is still taken"
    sim.remove(gone)
    plan = sim.operate()
    assert [p["metadata"]["name"] for p in plan.create] == ["job-1-1"]
    sim.tick(10)
    sim.operate()
    assert sim.counters == (1, 0, 0)


def test_ended_survivor_is_replaced_without_counting_again(sim: Sim) -> None:
    victim = sim.pod(1)
    sim.fail_ranks(victim, 1)
    seen = sim.observe()
    sim.exit(victim)
    sim._apply(reconcile(seen, CONTEXT), None)
    assert sim.counters == (2, 1, 1)
    sim.run_until("Running")
    assert sim.counters == (3, 2, 1)
    assert sorted(sim.pods) == ["job-0-1", "job-1-3"]


def test_success_of_an_earlier_attempt_is_none_of_this_one(sim: Sim) -> None:
    sim.finish(sim.pod(1))
    sim.fail_ranks(sim.pod(0), 1)
    sim.operate()
    assert sim.counters == (2, 1, 1)
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-2"]
    sim.calm()
    sim.finish_all()
    sim.operate()
    assert sim.status["state"] == "Succeeded"


def test_launcher_that_does_not_take_up_the_attempt_is_replaced(sim: Sim) -> None:
    sim.pod(1).stuck = True
    sim.fail_ranks(sim.pod(0), 1)
    sim.operate()
    for _ in range(29):
        sim.work()
        plan = sim.operate()
        assert plan.requeue_after is not None
        assert plan.requeue_after <= 1
    assert sim.counters == (2, 1, 1)
    sim.work()
    plan = sim.operate()
    assert sim.counters == (3, 2, 1)
    assert plan.delete == {"job-1-1": 10}
    assert [p["metadata"]["name"] for p in plan.create] == ["job-1-3"]
    assert sim.status["rootCause"]["reason"] == "NotResponding"
    sim.run_until("Running")
    assert sim.counters == (3, 2, 1)


def test_ranks_that_still_save_get_their_time(sim: Sim) -> None:
    sim.pod(1).stuck = True
    sim.fail_ranks(sim.pod(0), 75)
    sim.operate()
    sim.work()
    sim.tick(100)
    sim.operate()
    assert sim.counters == (2, 1, 0)
    sim.tick(60)
    sim.operate()
    assert sim.status["rootCause"]["reason"] == "NotResponding"


def test_pod_that_has_gone_silent_is_replaced(sim: Sim) -> None:
    mute = sim.pod(1)
    mute.reachable = False
    sim._ready(mute, False)
    sim.tick(29)
    assert sim.operate().status is None or sim.counters == (1, 0, 0)
    sim.tick(1)
    sim.operate()
    assert sim.status["rootCause"]["reason"] == "NotResponding"
    assert sim.counters == (2, 1, 0)


def cut_off(sim: Sim) -> None:
    """Time passes in a namespace whose NetworkPolicy keeps the operator from all pods; the kubelet
    is let through.
    """
    for pod in sim.pods.values():
        pod.reachable = False
    sim.calm()


def fail_unreached(sim: Sim) -> None:
    """Attempts fail, and nobody reaches their pods, until the job ends."""
    for _ in range(40):
        sim.operate()
        if sim.terminal:
            break
        cut_off(sim)
        for pod in sim.pods.values():
            sim.fail_ranks(pod, 1)
        sim.tick(31)


def test_pods_that_were_never_reached_use_up_the_restarts() -> None:
    sim = Sim(job(failurePolicy={"maxRestarts": 1}))
    fail_unreached(sim)
    assert sim.counters == (2, 1, 1)
    failed = sim.full_condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "MaxRestartsExceeded")
    assert "LauncherUnreachable of rank 0 in pod job-0-2" in failed["message"]
    assert "NetworkPolicies have to let the operator to ports 8080 and 8081" in failed["message"]
    assert sim.status["rootCause"]["reason"] == "LauncherUnreachable"


def test_a_launcher_that_falls_silent_while_the_operator_is_replaced_does_not_count() -> None:
    sim = Sim(job(failurePolicy={"maxRestarts": 0}))
    sim.run_until("Running")
    sim.forget()
    for pod in sim.pods.values():
        pod.reachable = False
        sim._ready(pod, False)
    sim.operate()
    sim.tick(31)
    sim.operate()
    assert sim.counters == (2, 1, 0)
    assert sim.status["rootCause"]["reason"] == "NotResponding"


def test_what_an_operator_has_not_seen_start_counts_from_its_successor_on() -> None:
    """Behind a NetworkPolicy a new operator learns of it with the pods that it makes itself."""
    sim = Sim(job(failurePolicy={"maxRestarts": 0}))
    sim.run_until("Running")
    sim.forget()
    fail_unreached(sim)
    assert sim.counters == (2, 1, 0)
    assert sim.status["rootCause"]["reason"] == "LauncherUnreachable"


def test_pods_that_run_unreached_are_told_of_with_the_remedy() -> None:
    sim = Sim()
    for _ in range(4):
        sim.operate()
        cut_off(sim)
    assert sim.status["state"] == "Running"
    sim.tick(31)
    plan = sim.operate()
    ready, reason, message = sim.pods_ready()
    assert (ready, reason) == ("True", "AllPodsReady")
    assert message.startswith("2 of 2 pods ready; the operator cannot reach the launcher of pod ")
    assert "job-0-1 and 1 more on port 8080" in message
    assert "NetworkPolicies" in message
    assert sim.reasons.count("LauncherUnreachable") == 1
    assert plan.requeue_after == 30, "it is looked again"
    assert sim.settle() == 0
    sim.tick(31)
    assert sim.operate().empty
    for pod in sim.pods.values():
        pod.reachable = True
    sim.operate()
    assert sim.pods_ready()[2] == "2 of 2 pods ready"
    assert sim.counters == (1, 0, 0)


def test_an_elastic_job_is_told_of_pods_that_are_not_reached() -> None:
    sim = Sim(job(elasticPolicy={"minNodes": 1}))
    for _ in range(4):
        sim.operate()
        cut_off(sim)
    sim.tick(31)
    sim.operate()
    assert "the operator cannot reach the launcher" in sim.pods_ready()[2]
    assert sim.settle() == 0


def test_surviving_silent_launcher_is_replaced_while_gathering(sim: Sim) -> None:
    sim.remove(sim.pod(1))
    sim.operate()
    mute = sim.pod(0)
    mute.reachable = False
    sim._ready(mute, False)
    sim.tick(31)
    plan = sim.operate()
    assert plan.delete == {"job-0-1": 10}
    assert [p["metadata"]["name"] for p in plan.create] == ["job-0-2"]
    assert sim.counters == (2, 1, 0)


def test_one_node_pod_is_made_only_after_the_old_one_has_saved() -> None:
    sim = Sim(job(1))
    sim.run_until("Running")
    leaving = sim.pod(0)
    sim.delete(leaving)
    plan = sim.operate()
    assert plan.create == ()
    assert sim.counters == (2, 1, 0)
    sim.exit(leaving, 75)
    assert [p["metadata"]["name"] for p in sim.operate().create] == ["job-0-2"]


def test_one_node_pod_keeps_the_assignment_it_was_born_with() -> None:
    sim = Sim(job(1))
    sim.operate()
    sim.start(sim.pod(0))
    sim._ready(sim.pod(0), False)
    sim.pod(0).report = Report(0, "Starting")
    plan = sim.operate()
    assert plan.empty
    assert plan.requeue_after == 2


def test_hang_restarts_and_counts(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 70)
    plan = sim.operate()
    assert plan.empty, "rank 0 only waits: its launcher says that it hangs since now"
    sim.tick(1)
    sim.fail_ranks(sim.pod(1), 70, ago=60)
    sim.operate()
    cause = sim.status["rootCause"]
    assert (cause["pod"], cause["reason"], cause["exitCode"]) == ("job-1-1", "Hang", 70)
    assert sim.counters == (2, 1, 1)
    assert "because" in sim.full_condition("Restarting")["message"]
    assert "of it" not in sim.full_condition("Restarting")["message"]
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"], "the slots stay"


def test_hang_of_a_single_speaker_restarts_after_two_seconds(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 70)
    sim.tick(2)
    sim.operate()
    assert sim.status["rootCause"]["pod"] == "job-0-1"
