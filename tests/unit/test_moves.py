"""Leaving nodes that are about to go: replacements, spares, one attempt, and what comes between."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from cluster_sim import CONTEXT, Pod, Sim
from inception_operator.contract.types import Plan
from inception_operator.decide.departure import PAUSE
from inception_operator.decide.moves import PATIENCE, RETRY
from inception_operator.decide.reconcile import reconcile
from sim_moves import running, save_and_end, spared


def ranks(sim: Sim) -> dict[str, int]:
    """The node rank of each pod that trains in the latest attempt."""
    return {
        pod.name: pod.accepted.node_rank
        for pod in sim.pods.values()
        if pod.training and pod.accepted and pod.accepted.attempt == sim.status["attempt"]
    }


@pytest.mark.parametrize("slot", [0, 1])
def test_a_member_leaves_once_a_replacement_is_ready_and_nobody_counts_a_restart(slot: int) -> None:
    sim = running()
    member, other = sim.pod(slot), sim.pod(1 - slot)
    sim.cordon(member)
    plan = sim.operate()
    assert [body["metadata"]["name"] for body in plan.create] == [f"job-{slot}-2"]
    assert (plan.delete, plan.assign) == ({}, {}), "the attempt runs on"
    assert sim.pods_ready() == (
        "True",
        "LeavingNode",
        f"2 of 2 pods ready; to leave node {member.node} (cordoned) with pod {member.name} "
        "once there is a replacement",
    )
    sim.settle()
    assert sim.counters == (1, 0, 0)

    sim.start(sim.pod(slot))
    plan = sim.operate()
    assert (plan.delete, plan.assign, plan.create) == ({member.name: None}, {}, ())
    assert (sim.counters, sim.status["state"]) == ((2, 0, 0), "Restarting")
    plan = sim.operate()
    assert {name: told.is_standby and told.graceful for name, told in plan.assign.items()} == {
        other.name: True
    }, "its ranks save along with those of the pod that goes"
    assert sim.pods_ready()[2] == f"waiting for pod {member.name} to save and end"
    save_and_end(sim)
    sim.run_until("Running")
    assert ranks(sim) == {f"job-{slot}-2": slot, other.name: 1 - slot}
    assert sim.counters == (2, 0, 0)
    assert sim.reasons == ["LeavingNode", "Moved", "AttemptStarted", "AttemptRunning"]
    assert sim.events[1].message == (
        f"attempt 1 ended: leaving node {member.node} (cordoned) with pod {member.name}"
    )
    assert sim.condition("Restarting") == "False"
    sim.finish_all()
    sim.operate()
    assert sim.status["state"] == "Succeeded"


def test_no_new_rank_begins_before_the_old_ones_have_saved() -> None:
    sim = running()
    member = sim.pod(0)
    sim.cordon(member)
    sim.operate()
    for _ in range(20):
        sim.work()
        sim.operate()
    assert member.deletion_deadline is not None
    assert sim.condition("PodsReady") == "False"
    assert ranks(sim) == {}
    save_and_end(sim)
    sim.run_until("Running")
    assert ranks(sim) == {"job-0-2": 0, "job-1-1": 1}


def test_a_job_of_one_node_moves_too() -> None:
    sim = running(1)
    sim.cordon(sim.pod(0))
    plan = sim.operate()
    annotations = plan.create[0]["metadata"]["annotations"]
    assert not any(key.endswith("/assignment") for key in annotations), "its ranks would start"
    sim.start(sim.pod(0))
    sim.operate()
    sim.run_until("Running")
    assert (list(sim.pods), sim.counters) == (["job-0-2"], (2, 0, 0))
    assert ranks(sim) == {"job-0-2": 0}


def test_a_replacement_is_demanded_to_be_elsewhere_in_each_of_the_terms_of_the_user() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, {}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    template = {"spec": {"affinity": {"nodeAffinity": required}}}
    elsewhere = {"key": "metadata.name", "operator": "NotIn", "values": ["node-1-1"]}
    for given, expected in (
        ({}, [{"matchFields": [elsewhere]}]),
        ({"template": template}, [{**terms[0], "matchFields": [elsewhere]}, {}]),
    ):
        sim = running(**given)
        sim.cordon(sim.pod(1))
        (body,) = sim.operate().create
        affinity = body["spec"]["affinity"]["nodeAffinity"]
        assert affinity["requiredDuringSchedulingIgnoredDuringExecution"] == {
            "nodeSelectorTerms": expected
        }


def test_a_ready_spare_takes_the_place_at_once_and_another_spare_is_made_elsewhere() -> None:
    sim = spared()
    sim.cordon(sim.pod(0))
    plan = sim.operate()
    assert (plan.create, plan.delete) == ((), {"job-0-1": None})
    assert sim.counters == (2, 0, 0)
    save_and_end(sim)
    sim.run_until("Running")
    assert ranks(sim) == {"job-2-1": 0, "job-1-1": 1}
    assert sim.status["nodes"]["members"] == "2,1"
    sim.tick(10)
    plan = sim.operate()
    assert [body["metadata"]["name"] for body in plan.create] == ["job-0-2"]
    sim.calm()
    sim.settle()
    assert sim.status["nodes"]["spareReady"] == 1
    assert sim.counters == (2, 0, 0)


def test_a_spare_on_a_node_that_goes_as_well_takes_over_from_nobody() -> None:
    sim = spared()
    sim.cordon(sim.pod(2))
    assert sim.operate().empty, "it has no ranks, so it may wait for its eviction"
    sim.cordon(sim.pod(0))
    plan = sim.operate()
    assert [body["metadata"]["name"] for body in plan.create] == ["job-0-2"]
    assert plan.delete == {}


def test_several_members_leave_in_one_attempt() -> None:
    sim = running(4)
    for slot in (1, 3):
        sim.cordon(sim.pod(slot))
    plan = sim.operate()
    assert [body["metadata"]["name"] for body in plan.create] == ["job-1-2", "job-3-2"]
    sim.start(sim.pod(1))
    assert sim.operate().requeue_after is not None
    assert sim.counters == (1, 0, 0), "the other one is about to be ready"
    sim.tick(5)
    sim.start(sim.pod(3))
    assert sorted(sim.operate().delete) == ["job-1-1", "job-3-1"]
    sim.run_until("Running")
    assert sorted(ranks(sim)) == ["job-0-1", "job-1-2", "job-2-1", "job-3-2"]
    assert sim.counters == (2, 0, 0)


def test_a_member_does_not_wait_for_long_for_the_replacement_of_another_one() -> None:
    sim = running(3)
    sim.cordon(sim.pod(1))
    sim.cordon(sim.pod(2))
    sim.capacity = 4
    sim.operate()
    sim.start(sim.pod(1))
    sim.tick(3)
    plan = sim.operate()
    assert list(plan.delete) == ["job-1-1"], "nobody knows when there is room for the other one"
    sim.run_until("Running")
    assert (sorted(ranks(sim)), sim.counters) == (["job-0-1", "job-1-2", "job-2-1"], (2, 0, 0))


def test_the_spare_and_a_replacement_go_together() -> None:
    sim = spared()
    sim.cordon(sim.pod(0))
    sim.cordon(sim.pod(1))
    plan = sim.operate()
    assert [body["metadata"]["name"] for body in plan.create] == ["job-1-2"]
    sim.start(sim.pod(1))
    assert sorted(sim.operate().delete) == ["job-0-1", "job-1-1"]
    assert sim.operate().create == (), "a spare that starts would take cores from the ranks"
    save_and_end(sim)
    sim.run_until("Running")
    assert (ranks(sim), sim.counters) == ({"job-2-1": 0, "job-1-2": 1}, (2, 0, 0))


def test_a_node_that_stays_after_all_costs_nothing() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.operate()
    member = sim.pods["job-0-1"]
    sim.uncordon(member)
    plan = sim.operate()
    assert list(plan.delete) == ["job-0-2"]
    assert sim.pods_ready() == ("True", "AllPodsReady", "2 of 2 pods ready")
    sim.calm()
    sim.settle()
    assert (sorted(sim.pods), sim.counters) == (["job-0-1", "job-1-1"], (1, 0, 0))


def test_without_room_the_job_stays_and_says_so_and_tries_again_later() -> None:
    sim = running()
    sim.capacity = 2
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.operate()
    assert sim.pods_ready()[1:] == (
        "LeavingNode",
        "2 of 2 pods ready; to leave node node-0-1 (cordoned) with pod job-0-1 once there is a "
        "replacement; pod job-0-2: no node fits",
    )
    sim.tick(PATIENCE.total_seconds())
    plan = sim.operate()
    assert list(plan.delete) == ["job-0-2"]
    due = datetime.fromisoformat(sim.status["nextMoveTime"])
    assert due - sim.now == PAUSE
    status, reason, message = sim.pods_ready()
    assert (status, reason) == ("True", "CannotLeaveNode")
    assert message.endswith(
        f"none was ready in time, the next one is made at {due:%H:%M} UTC; "
        "the job stays there until it is evicted"
    )
    sim.calm()
    assert sim.settle() == 0
    assert sim.operate() == Plan(requeue_after=PAUSE.total_seconds() - 1)
    sim.tick(PAUSE.total_seconds() - 1)
    assert [body["metadata"]["name"] for body in sim.operate().create] == ["job-0-2"]
    sim.capacity = None
    sim.run_until("Restarting")
    sim.calm()
    sim.run_until("Running")
    assert (sim.counters, "nextMoveTime" in sim.status) == ((2, 0, 0), False)


def test_a_member_that_is_evicted_meanwhile_has_its_successor_already() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.disrupt(sim.pods["job-0-1"])
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    assert "job-0-2" not in plan.delete
    sim.run_until("Running")
    assert (ranks(sim), sim.counters) == ({"job-0-2": 0, "job-1-1": 1}, (2, 1, 0))


@pytest.mark.parametrize("ready", [False, True])
def test_a_hard_failure_goes_first_and_never_waits_for_a_replacement(ready: bool) -> None:
    sim = running(3)
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.cordon(sim.pod(1))
    sim.operate()
    if ready:
        sim.start(sim.pod(0))
    sim.fail_ranks(sim.pod(2), 1)
    sim.tick(2)
    sim.operate()
    assert sim.counters == (2, 1, 1)
    sim.operate()
    assert sim.condition("PodsReady") == "True", "all launchers were up, so the attempt is issued"
    sim.run_until("Running")
    assert sorted(ranks(sim)) == ["job-0-1", "job-1-1", "job-2-1"]
    sim.calm()
    sim.run_until("Restarting")
    sim.run_until("Running")
    assert (sorted(ranks(sim)), sim.counters) == (["job-0-3", "job-1-3", "job-2-1"], (3, 1, 1))


def test_a_replacement_that_is_ready_takes_over_after_a_failure_of_all() -> None:
    sim = running(3)
    sim.cordon(sim.pod(0))
    sim.cordon(sim.pod(1))
    sim.operate()
    sim.start(sim.pod(0))
    sim.operate()
    sim.fail_ranks(sim.pod(2), 1)
    sim.lose_peers()
    for slot in (0, 1):
        sim.fail_ranks(sim.pods[f"job-{slot}-1"], 1, "PeerLost")
    sim.operate()
    sim.run_until("Running")
    assert (sorted(ranks(sim)), sim.counters) == (["job-0-2", "job-1-1", "job-2-1"], (2, 1, 1))


def test_a_replacement_that_breaks_or_lands_on_a_node_that_goes_is_replaced_itself() -> None:
    for spoil in (lambda sim, pod: setattr(pod, "broken", True), Sim.cordon, Sim.exit):
        sim = running()
        sim.cordon(sim.pod(0))
        sim.operate()
        replacement = sim.pod(0)
        replacement.phase = "Running"
        spoil(sim, replacement)
        for _ in range(80):
            sim.operate()
            sim.calm()
            if sim.counters[0] > 1:
                break
            assert sim.condition("Running") == "True"
            # A node of its own for each pod of the same name.
            if sim.pods.get("job-0-2") is not replacement:
                sim.leaving.pop(replacement.node, None)
        sim.run_until("Running")
        assert sim.counters == (2, 0, 0), spoil
        assert "job-0-1" not in sim.pods


def excluded(body: dict[str, Any]) -> list[str]:
    """The nodes that a pod's affinity demands to keep away from."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    (term,) = body["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    return [field["values"][0] for field in term["matchFields"]]


def test_a_replacement_that_waits_may_use_a_node_again_that_stays_after_all() -> None:
    sim = running()
    sim.capacity = 2
    sim.cordon(sim.pod(0))
    sim.leaving["other"] = "cordoned"
    (body,) = sim.operate().create
    assert excluded(body) == ["node-0-1", "other"]
    sim.settle()
    assert not sim.pod(0).placed

    del sim.leaving["other"]
    assert list(sim.operate().delete) == ["job-0-2"]
    sim.calm()
    sim.tick(RETRY.total_seconds())
    (body,) = sim.operate().create
    assert excluded(body) == ["node-0-1"]
    sim.capacity = None
    sim.run_until("Restarting")
    sim.calm()
    sim.run_until("Running")
    assert sim.counters == (2, 0, 0)


def test_a_replacement_that_has_a_node_does_not_care_which_others_stay() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.leaving["other"] = "cordoned"
    sim.operate()
    del sim.leaving["other"]
    assert sim.pod(0).placed
    assert sim.operate().delete == {}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"checkpoint": {}}, "spec.checkpoint is not set, so nothing would go on elsewhere"),
        (
            {"template": {"spec": {"nodeName": "n"}}},
            "spec.template.spec.nodeName demands the node",
        ),
    ],
)
def test_a_job_that_could_not_go_on_elsewhere_stays_and_says_so(
    spec: dict[str, Any], why: str
) -> None:
    sim = running(**spec)
    sim.cordon(sim.pod(0))
    plan = sim.operate()
    assert (plan.create, plan.delete, plan.assign) == ((), {}, {})
    assert sim.pods_ready()[1:] == (
        "CannotLeaveNode",
        f"2 of 2 pods ready; no replacement for node node-0-1 (cordoned) with pod job-0-1: {why}; "
        "the job stays there until it is evicted",
    )
    assert sim.settle() == 0


def test_what_the_api_server_refuses_is_said() -> None:
    sim = running()
    sim.quota = 2
    sim.cordon(sim.pod(1))
    sim.operate()
    sim.operate()
    assert sim.pods_ready()[1:] == (
        "CannotLeaveNode",
        "2 of 2 pods ready; no replacement for node node-1-1 (cordoned) with pod job-1-1: "
        "pods job-1-2 is forbidden: exceeded quota; the job stays there until it is evicted",
    )
    sim.quota = None
    sim.run_until("Restarting")
    sim.run_until("Running")
    assert sim.counters == (2, 0, 0)


def test_a_suspended_job_has_no_replacements_and_a_resumed_one_starts_elsewhere() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.suspend(True)
    plan = sim.operate()
    assert sorted(plan.delete) == ["job-0-1", "job-0-2", "job-1-1"]
    sim.calm()
    sim.settle()
    assert sim.pods == {}
    sim.suspend(False)
    sim.run_until("Running")
    assert (sim.counters, sorted(sim.pods)) == ((2, 0, 0), ["job-0-2", "job-1-2"])


def test_a_job_that_ends_takes_its_replacement_along() -> None:
    sim = running(runPolicy={"cleanPodPolicy": "Running"})
    sim.cordon(sim.pod(0))
    sim.operate()
    for name in ("job-0-1", "job-1-1"):
        sim.finish(sim.pods[name])
    for name in ("job-0-1", "job-1-1"):
        sim.finish(sim.pods[name])
    sim.operate()
    assert sim.status["state"] == "Succeeded"
    sim.settle()
    sim.calm()
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]


def test_one_that_is_about_to_end_is_left_alone() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.start(sim.pod(0))
    sim.finish(sim.pods["job-0-1"])
    sim.operate()
    assert (sim.counters, sim.condition("PodsReady")) == ((1, 0, 0), "True")
    sim.finish(sim.pods["job-1-1"])
    sim.operate()
    assert sim.status["state"] == "Succeeded"


def test_scaling_goes_on_beside_a_move() -> None:
    sim = running(2, elasticPolicy={"minNodes": 1, "maxNodes": 4})
    sim.cordon(sim.pod(1))
    sim.operate()
    sim.scale(1)
    sim.operate()
    sim.run_until("Running")
    sim.calm()
    sim.settle()
    assert sorted(ranks(sim)) == ["job-0-1"], "the member that leaves is the one that goes"
    assert sorted(sim.pods) == ["job-0-1"]


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("slot", [0, 1])
def test_an_operator_that_dies_at_any_write_of_a_move_does_no_harm(writes: int, slot: int) -> None:
    sim = running()
    sim.cordon(sim.pod(slot))
    sim.operate()
    sim.start(sim.pod(slot))
    sim.operate(crash_after=writes)
    sim.operate(crash_after=writes)
    for _ in range(3):
        sim.run_until("Running")
        sim.calm()
        sim.settle(10)
    sim.run_until("Running")
    assert (f"job-{slot}-1" in sim.pods, sim.counters[1:]) == (False, (0, 0))


def test_deciding_twice_decides_nothing_new() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.settle()
    seen = sim.observe()
    assert reconcile(seen, CONTEXT) == reconcile(seen, CONTEXT)
    assert reconcile(seen, CONTEXT).empty


def test_a_pause_that_somebody_wrote_into_the_status_does_not_last_for_ever() -> None:
    sim = running()
    sim.status["nextMoveTime"] = "2998-01-01T00:00:00Z"
    sim.cordon(sim.pod(0))
    assert [body["metadata"]["name"] for body in sim.operate().create] == ["job-0-2"]


def test_an_operator_that_has_yet_to_look_at_nodes_keeps_the_replacement() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.settle()
    seen = sim.observe()
    pods = tuple(replace(pod, leaving=None) for pod in seen.pods)
    blind = replace(seen, pods=pods, leaving=(), nodes_known=False)
    plan = reconcile(blind, CONTEXT)
    assert (plan.delete, plan.create, plan.assign) == ({}, (), {})
    assert list(reconcile(replace(blind, nodes_known=True), CONTEXT).delete) == ["job-0-2"]


def test_a_status_that_was_wiped_beside_a_replacement_is_restored() -> None:
    sim = running()
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.wipe(None)
    sim.run_until("Running")
    assert sim.status["attempt"] > 1
    seen: set[str] = {pod.name for pod in sim.pods.values() if _trains(pod)}
    assert len(seen) == 2


def _trains(pod: Pod) -> bool:
    return pod.training
