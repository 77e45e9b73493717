"""Stragglers that are replaced: by a spare or a replacement on another node, seldom, at no step's
cost.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

import sim_moves
from cluster_sim import Pod, Sim
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Plan, Straggler
from inception_operator.decide import departure
from inception_operator.decide.departure import COOL_DOWN, DAY, MOST_IN_A_DAY, PAUSE
from inception_operator.decide.moves import PATIENCE
from inception_operator.decide.reconcile import reconcile
from inception_operator.decide.slow_members import AFTER
from sim_moves import save_and_end
from sim_pods import START

LONG = AFTER.total_seconds()


def running(nodes: int = 2, policy: str = "Replace", **spec: Any) -> Sim:
    return sim_moves.running(nodes, failurePolicy={"stragglerPolicy": policy}, **spec)


def spared() -> Sim:
    return sim_moves.spared(failurePolicy={"stragglerPolicy": "Replace"})


def made(plan: Plan) -> list[str]:
    return [body["metadata"]["name"] for body in plan.create]


def moves_on(sim: Sim) -> None:
    """Until the attempt runs that the job has moved with."""
    attempt = sim.status["attempt"]
    save_and_end(sim)
    sim.run_until("Running")
    sim.calm()
    sim.settle()
    assert (sim.status["attempt"], sim.status["restarts"]) == (attempt, 0)


def is_left(sim: Sim, slot: int = 1) -> Pod:
    """The pod of the slot has been replaced for being slow."""
    slow = sim.pod(slot)
    sim.hold_up(slow, LONG)
    sim.operate()
    sim.start(sim.pod(slot))
    plan = sim.operate()
    assert list(plan.delete) == [slow.name]
    moves_on(sim)
    return slow


def test_a_straggler_of_five_minutes_makes_room_for_a_pod_on_another_node() -> None:
    sim = running()
    slow = sim.pod(1)
    sim.hold_up(slow)
    plan = sim.operate()
    assert (made(plan), plan.requeue_after) == ([], LONG)
    sim.tick(LONG - 1)
    plan = sim.operate()
    assert (made(plan), plan.requeue_after) == ([], 1)
    sim.tick(1)
    plan = sim.operate()
    assert (made(plan), plan.delete) == (["job-1-2"], {}), "the attempt runs on"
    required = plan.create[0]["spec"]["affinity"]["nodeAffinity"]
    (term,) = required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (elsewhere,) = term["matchFields"]
    assert (elsewhere["operator"], elsewhere["values"]) == ("NotIn", [slow.node])
    assert sim.pods_ready() == (
        "True",
        "ReplacingStraggler",
        "2 of 2 pods ready; to leave node node-1-1 (rank 0 holds up all others) with pod job-1-1 "
        "once there is a replacement",
    )
    sim.settle()
    assert sim.counters == (1, 0, 0)

    sim.start(sim.pod(1))
    assert sim.operate().delete == {"job-1-1": None}, "with time to save"
    assert (sim.counters, "straggler" in sim.status) == ((2, 0, 0), False)
    assert sim.status["replacedStragglers"] == [
        {"rank": 0, "pod": "job-1-1", "node": "node-1-1", "time": format_time(sim.now)}
    ]
    moves_on(sim)
    assert sorted(sim.pods) == ["job-0-1", "job-1-2"]
    assert sim.reasons == [
        "StragglerFound",
        "ReplacingStraggler",
        "Moved",
        "AttemptStarted",
        "AttemptRunning",
    ]
    assert sim.events[2].message == (
        "attempt 1 ended: leaving node node-1-1 (rank 0 holds up all others) with pod job-1-1"
    )
    assert sim.pods_ready()[1] == "AllPodsReady"


def test_one_that_was_not_seen_to_be_slow_for_long_enough_waits_for_another_look() -> None:
    sim = running()
    seen = sim.now - timedelta(seconds=60)
    sim.hold_up(sim.pod(1), LONG, until=seen)
    for _ in range(2):
        plan = sim.operate()
        assert (made(plan), plan.requeue_after) == ([], 10)
        sim.tick(600)
    sim.hold_up(sim.pod(1), LONG + 1200, until=sim.now)
    assert made(sim.operate()) == ["job-1-2"]


@pytest.mark.parametrize("policy", ["None", "Report"])
def test_who_does_not_ask_for_it_keeps_the_pod(policy: str) -> None:
    sim = running(policy=policy)
    sim.hold_up(sim.pod(1), 2 * LONG)
    sim.operate()
    sim.settle()
    assert (sorted(sim.pods), sim.pods_ready()[1]) == (["job-0-1", "job-1-1"], "AllPodsReady")


def test_a_slow_device_of_the_only_pod_is_left_with_all_its_ranks() -> None:
    sim = running(1, numProcPerNode=4)
    sim.hold_up(sim.pod(0), LONG, rank=3)
    assert made(sim.operate()) == ["job-0-2"]
    assert "rank 3 holds up all others" in sim.pods_ready()[2]
    sim.start(sim.pod(0))
    assert list(sim.operate().delete) == ["job-0-1"]
    moves_on(sim)
    assert list(sim.pods) == ["job-0-2"]


def test_a_ready_spare_takes_the_place_at_once_and_the_next_one_is_made_elsewhere() -> None:
    sim = spared()
    sim.hold_up(sim.pod(0), LONG)
    plan = sim.operate()
    assert (made(plan), plan.delete) == ([], {"job-0-1": None})
    moves_on(sim)
    assert sim.status["nodes"]["members"] == "2,1"
    sim.tick(10)
    plan = sim.operate()
    assert made(plan) == ["job-0-2"]
    wishes = json.dumps(plan.create[0]["spec"]["affinity"]["nodeAffinity"])
    assert ("preferred" in wishes, "required" in wishes, "node-0-1" in wishes) == (
        True,
        False,
        True,
    )


def test_a_spare_on_the_same_node_is_no_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pod, "node", property(lambda pod: f"node-{pod.slot % 2}-{pod.incarnation}"))
    sim = spared()
    assert sim.pod(2).node == sim.pod(0).node
    sim.hold_up(sim.pod(0), LONG)
    plan = sim.operate()
    assert (made(plan), plan.delete) == (["job-0-2"], {})


def test_another_member_on_the_same_node_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pod, "node", property(lambda pod: f"node-{pod.incarnation}"))
    sim = running(3)
    is_left(sim, 1)
    assert sorted(sim.pods) == ["job-0-1", "job-1-2", "job-2-1"]


def test_one_that_keeps_up_again_stays_and_its_replacement_goes() -> None:
    sim = running()
    sim.hold_up(sim.pod(1), LONG)
    assert made(sim.operate()) == ["job-1-2"]
    sim.keep_up()
    assert list(sim.operate().delete) == ["job-1-2"]
    assert sim.pods_ready()[1] == "AllPodsReady"
    sim.calm()
    sim.settle()
    assert (sorted(sim.pods), sim.counters) == (["job-0-1", "job-1-1"], (1, 0, 0))
    assert "replacedStragglers" not in sim.status


def test_so_does_one_of_a_job_that_does_not_want_it_any_more() -> None:
    sim = running()
    sim.hold_up(sim.pod(1), LONG)
    sim.operate()
    sim.edit(failurePolicy={"stragglerPolicy": "Report"})
    assert list(sim.operate().delete) == ["job-1-2"]
    assert "straggler" in sim.status


def test_an_operator_that_has_just_begun_goes_on_with_what_the_status_names() -> None:
    sim = running()
    sim.hold_up(sim.pod(1), LONG)
    sim.operate()
    plan = reconcile(replace(sim.observe(), ranks=None), sim.context)
    assert (plan.delete, plan.create) == ({}, ())
    sim.keep_up()
    assert list(sim.operate().delete) == ["job-1-2"], "the ranks say otherwise"


def test_without_room_elsewhere_the_job_goes_on_with_it_and_says_so() -> None:
    sim = running()
    sim.capacity = 2
    sim.hold_up(sim.pod(1), LONG)
    sim.operate()
    sim.operate()
    assert sim.pods_ready()[1:] == (
        "ReplacingStraggler",
        "2 of 2 pods ready; to leave node node-1-1 (rank 0 holds up all others) with pod job-1-1 "
        "once there is a replacement; pod job-1-2: no node fits",
    )
    sim.tick(PATIENCE.total_seconds())
    assert list(sim.operate().delete) == ["job-1-2"]
    due = sim.now + PAUSE
    status, reason, message = sim.pods_ready()
    assert (status, reason) == ("True", "CannotReplaceStraggler")
    assert message.endswith(
        f"none was ready in time, the next one is made at {due:%H:%M} UTC; the job goes on with it"
    )
    sim.calm()
    assert sim.settle() == 0
    assert (sorted(sim.pods), sim.counters) == (["job-0-1", "job-1-1"], (1, 0, 0))
    assert sim.events[-1].type == "Warning"


def test_a_job_without_checkpoints_keeps_its_straggler_and_says_so() -> None:
    sim = running(checkpoint={})
    sim.hold_up(sim.pod(1), LONG)
    plan = sim.operate()
    assert (plan.create, plan.delete) == ((), {})
    assert sim.pods_ready()[1:] == (
        "CannotReplaceStraggler",
        "2 of 2 pods ready; no replacement for node node-1-1 (rank 0 holds up all others) with "
        "pod job-1-1: spec.checkpoint is not set, so nothing would go on elsewhere; the job goes "
        "on with it",
    )


def test_the_next_one_waits_for_half_an_hour_and_the_job_says_so() -> None:
    sim = running()
    is_left(sim)
    replaced = datetime.fromisoformat(sim.status["replacedStragglers"][0]["time"])
    sim.hold_up(sim.pod(0), LONG)
    plan = sim.operate()
    assert (made(plan), plan.delete) == ([], {})
    due = replaced + COOL_DOWN
    assert plan.requeue_after == (due - sim.now).total_seconds()
    assert sim.pods_ready()[1:] == (
        "CannotReplaceStraggler",
        "2 of 2 pods ready; rank 0 (pod job-0-1 on node node-0-1) holds up all others, but another "
        f"straggler was replaced before: not before {due:%Y-%m-%d %H:%M} UTC",
    )
    assert sim.settle() == 0
    sim.tick((due - sim.now).total_seconds())
    assert made(sim.operate()) == ["job-0-3"]


def test_there_are_three_in_a_day_at_most() -> None:
    sim = running()
    first = sim.now
    for _ in range(MOST_IN_A_DAY):
        is_left(sim)
        sim.tick(COOL_DOWN.total_seconds())
    sim.hold_up(sim.pod(1), LONG)
    assert made(sim.operate()) == []
    assert f"not before {first + DAY:%Y-%m-%d %H:%M} UTC" in sim.pods_ready()[2]
    sim.tick(DAY.total_seconds())
    assert made(sim.operate()) == ["job-1-5"]


def test_one_whose_node_is_about_to_go_leaves_it_for_that() -> None:
    sim = running()
    sim.hold_up(sim.pod(1), LONG)
    sim.cordon(sim.pod(1))
    assert made(sim.operate()) == ["job-1-2"]
    assert sim.pods_ready()[1:] == (
        "LeavingNode",
        "2 of 2 pods ready; to leave node node-1-1 (cordoned) with pod job-1-1 once there is a "
        "replacement",
    )
    sim.start(sim.pod(1))
    sim.operate()
    moves_on(sim)
    assert "replacedStragglers" not in sim.status, "the next straggler need not wait"


def test_it_leaves_together_with_another_member_whose_node_is_about_to_go() -> None:
    sim = running(3)
    sim.hold_up(sim.pod(1), LONG)
    sim.cordon(sim.pod(0))
    assert made(sim.operate()) == ["job-0-2", "job-1-2"]
    assert sim.pods_ready()[1] == "LeavingNode"
    for slot in (0, 1):
        sim.start(sim.pod(slot))
    assert sorted(sim.operate().delete) == ["job-0-1", "job-1-1"]
    moves_on(sim)
    assert [entry["node"] for entry in sim.status["replacedStragglers"]] == ["node-1-1"]
    assert sim.counters == (2, 0, 0)


def test_a_failure_goes_first() -> None:
    sim = running(3)
    sim.hold_up(sim.pod(1), LONG)
    sim.operate()
    sim.fail_ranks(sim.pod(2), 1)
    sim.tick(2)
    sim.operate()
    assert sim.counters == (2, 1, 1)
    sim.run_until("Running")
    assert "replacedStragglers" not in sim.status


@pytest.mark.parametrize("writes", range(5))
def test_an_operator_that_dies_at_any_write_of_it_does_no_harm(writes: int) -> None:
    sim = running()
    sim.hold_up(sim.pod(1), LONG)
    sim.operate()
    sim.start(sim.pod(1))
    sim.operate(crash_after=writes)
    sim.operate(crash_after=writes)
    for _ in range(2):
        sim.run_until("Running")
        sim.calm()
        sim.settle(10)
        if "job-1-1" in sim.pods:
            # The next attempt has begun with it: it is found once more, and waits for its turn.
            sim.hold_up(sim.pods["job-1-1"])
            sim.tick(COOL_DOWN.total_seconds())
            sim.settle(10)
    sim.run_until("Running")
    assert ("job-1-1" in sim.pods, sim.counters[1:]) == (False, (0, 0))


@pytest.mark.parametrize(
    ("pod", "node"), [("job-1-1", "elsewhere"), ("job-7-1", "node-1-1"), ("job-1-1", "")]
)
def test_what_fits_no_pod_is_not_acted_upon(pod: str, node: str) -> None:
    sim = running()
    sim.slow = 1, Straggler(1, pod, node, 3.0, sim.now - AFTER)
    sim.operate()
    sim.settle()
    assert (len(sim.pods), sim.pods_ready()[1]) == (2, "AllPodsReady")


def at(*minutes: float) -> dict[str, Any]:
    """A status with replacements at these minutes."""
    times = [format_time(START + timedelta(minutes=each)) for each in minutes]
    return {"replacedStragglers": [{"node": f"n{time}", "time": time} for time in times]}


@pytest.mark.parametrize(
    ("status", "minute", "due"),
    [
        pytest.param({}, 0, None, id="none yet"),
        pytest.param(at(0), 29, 30, id="half an hour has not passed"),
        pytest.param(at(0), 30, None, id="it has"),
        pytest.param(at(0, 40), 60, 70, id="since the latest"),
        pytest.param(at(0, 40, 80), 90, 24 * 60, id="three in a day"),
        pytest.param(at(0, 40, 80), 24 * 60, None, id="a day later"),
        pytest.param(at(0, 80, 1430), 1445, 1460, id="two of three are not so long ago"),
        pytest.param(at(5), 0, None, id="one that has yet to come"),
        pytest.param({"replacedStragglers": [{"time": "never"}]}, 0, None, id="unreadable"),
    ],
)
def test_when_the_next_one_may_be_replaced(
    status: dict[str, Any], minute: float, due: float | None
) -> None:
    found = departure.next_straggler(status, START + timedelta(minutes=minute))
    assert found == (None if due is None else START + timedelta(minutes=due))


def test_the_list_keeps_the_latest_ones() -> None:
    status: dict[str, Any] = {}
    for number in range(20):
        now = START + number * DAY
        slow = Straggler(number, f"job-0-{number}", f"n{number}", 2.0, now)
        status |= departure.replaced(status, slow, now)
    assert [entry["rank"] for entry in status["replacedStragglers"]] == list(range(4, 20))
    assert departure.slow_nodes(status, now) == ("n19",)
