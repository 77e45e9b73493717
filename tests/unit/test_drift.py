"""What others do by hand: pods lose labels and owners, finalizers hold them, names are taken, the
status is wiped.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract import conditions
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json, Progress
from inception_operator.decide import clocks
from inception_operator.decide.reconcile import reconcile
from inception_operator.pod import identity
from operator_objects import job as small_job
from operator_objects import pod

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def sim() -> Sim:
    """A job at work on two nodes."""
    sim = Sim(job(2))
    sim.run_until("Running")
    sim.calm()
    sim.settle()
    return sim


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("job-0-1", ("job", 0, 1)),
        ("a-b-7-12-30", ("a-b-7", 12, 30)),
        ("job-0-0", None),
        ("job-00-1", None),
        ("0-1", None),
        ("job-0-99999999999", None),
        ("job-0", None),
    ],
)
def test_a_name_says_job_slot_and_incarnation(name: str, expected: Any) -> None:
    assert identity.identity(name) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {}},
        {"labels": {"training.inception.dev/slot": "1"}},
        {"ownerReferences": []},
        {
            "labels": {
                **identity.labels("job", "job-uid", 0, 1),
                "training.inception.dev/job": "other",
            }
        },
        {"labels": {**identity.labels("job", "job-uid", 0, 1), "app.kubernetes.io/name": "other"}},
    ],
    ids=["labels gone", "another slot", "owner gone", "another job", "another app"],
)
def test_what_was_taken_from_a_pod_is_put_back_and_the_job_runs_on(sim: Sim, change: Json) -> None:
    raw = sim.pod(0).raw["metadata"]
    before = dict(raw)
    # Without its owner, the label is what says whose it is.
    raw |= change
    plan = sim.operate()
    assert list(plan.repair) == ["job-0-1"]
    assert (plan.status, plan.delete, plan.create, plan.assign) == (None, {}, (), {})
    assert raw.keys() == before.keys()
    assert sim.pod(0).raw["metadata"]["ownerReferences"] == before["ownerReferences"]
    assert before["labels"].items() <= sim.pod(0).raw["metadata"]["labels"].items()
    assert sim.operate().empty


def test_a_pod_without_owner_and_uid_is_nobody_s_and_is_replaced_untouched(sim: Sim) -> None:
    sim.pod(0).raw["metadata"] |= {"ownerReferences": [], "labels": {}}
    plan = sim.operate()
    assert (plan.repair, plan.delete) == ({}, {})
    sim.settle()
    assert sim.counters == (2, 1, 0)
    assert {"job-0-1", "job-0-2"} <= set(sim.pods)


@pytest.mark.parametrize("text", [None, "", "{", '{"attempt": 1, "nnodes": 0}', "[]"])
def test_a_stomped_assignment_is_written_again(sim: Sim, text: str | None) -> None:
    assigned = sim.pod(1).assigned
    sim.pod(1).tell(text)
    plan = sim.operate()
    assert plan.assign.keys() == {"job-1-1"}
    assert sim.pod(1).assigned == assigned
    assert sim.counters == (1, 0, 0)


def test_an_assignment_of_a_later_attempt_is_overtaken(sim: Sim) -> None:
    """The launcher has obeyed it and ignores everything older."""
    sim.pod(1).tell('{"attempt": 7, "nnodes": 0}')
    sim.obey(sim.pod(1))
    sim.settle()
    assert sim.status["attempt"] == 8
    assert sim.reasons[-1] == "AttemptStarted"
    assert "StatusRestored" in sim.reasons
    sim.calm()
    sim.run_until("Running")
    assert sim.counters == (8, 0, 0)
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"], "no pod is replaced"


@pytest.mark.parametrize("number", [2**31, -1])
def test_an_assignment_that_no_attempt_can_have_is_none(sim: Sim, number: int) -> None:
    sim.pod(1).tell(f'{{"attempt": {number}, "nnodes": 0}}')
    sim.operate()
    assert sim.counters == (1, 0, 0)


def test_a_wiped_status_is_rebuilt_on_the_same_pods(sim: Sim) -> None:
    sim.job["status"] = {}
    sim.operate()
    assert sim.counters == (2, 0, 0)
    assert {c["type"] for c in sim.status["conditions"]} == conditions.OWN
    assert "StatusRestored" in sim.reasons
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]


def test_an_attempt_set_back_by_hand_is_overtaken_and_counters_stay(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Running")
    sim.settle()
    assert sim.counters == (2, 1, 1)
    sim.status["attempt"] = 1
    sim.run_until("Running")
    sim.settle()
    assert sim.counters == (3, 1, 1)


@pytest.mark.parametrize("number", [9_999_999, 10_000_000, 2**31 - 1])
def test_an_attempt_that_no_job_reaches_counts_as_removed(sim: Sim, number: int) -> None:
    """Assignments and names of pods have no room for it, or for the one after it."""
    sim.status["attempt"] = number
    sim.operate()
    assert sim.counters == (2, 0, 0)
    assert f"the status said attempt {number}," in sim.events[-2].message
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]


def test_a_pod_that_makes_up_the_last_attempt_of_all_is_replaced(sim: Sim) -> None:
    sim.pod(1).tell('{"attempt": 9999999, "nnodes": 0}')
    sim.obey(sim.pod(1))
    sim.hear(sim.pod(1))
    sim.settle()
    sim.tick(31)
    sim.settle()
    assert sim.counters == (2, 1, 0)
    sim.run_until("Running")
    assert sim.pod(1).name == "job-1-2"


def test_missing_conditions_and_counters_come_back(sim: Sim) -> None:
    whole = [condition["type"] for condition in sim.status["conditions"]]
    sim.status["conditions"] = sim.status["conditions"][2:3]
    del sim.status["restarts"]
    sim.run_until("Running")
    sim.settle()
    assert sorted(c["type"] for c in sim.status["conditions"]) == sorted(whole)
    assert sim.counters == (1, 0, 0)
    assert sim.status["state"] == "Running"


def test_an_attempt_whose_conditions_were_removed_is_not_issued_a_second_time(sim: Sim) -> None:
    sim.status["conditions"] = []
    sim.operate()
    assert sim.counters == (2, 0, 0)
    assert "StatusRestored" in sim.reasons
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]


def held(sim: Sim, slot: int) -> None:
    sim.pod(slot).held = True
    sim.delete(sim.pod(slot), 1)


def test_a_held_pod_of_a_running_attempt_is_replaced_when_its_containers_have_ended(
    sim: Sim,
) -> None:
    held(sim, 1)
    sim.settle()
    assert sim.counters == (2, 1, 0)
    sim.calm()
    sim.run_until("Running")
    assert {"job-1-1", "job-1-2"} <= set(sim.pods), "the first is still there"


def test_a_held_pod_that_never_ran_is_replaced_under_another_name() -> None:
    sim = Sim(job(2))
    sim.operate()
    held(sim, 1)
    sim.settle()
    assert (
        sim.pods_ready()[2]
        == "0 of 2 pods ready; pod job-1-1 was deleted and is held by example.com/hold"
    )
    assert sim.counters == (1, 0, 0), "it may go by itself"
    sim.tick(10)
    sim.settle()
    assert sim.counters == (2, 1, 0)
    assert (
        sim.status["rootCause"]["message"] == "the pod was deleted and is held by example.com/hold"
    )
    sim.run_until("Running")
    assert {"job-1-1", "job-1-2"} <= set(sim.pods)


def test_a_taken_name_is_told_once_and_the_job_goes_on_when_it_is_free(sim: Sim) -> None:
    sim.squat(0)
    sim.remove(sim.pods["job-0-1"])
    for _ in range(5):
        sim.operate()
        sim.tick()
    _, reason, text = sim.pods_ready()
    assert reason == "PodCreationRejected"
    assert "pod ns/job-0-2 has a name that this job needs and belongs to nobody; delete it" in text
    assert sim.reasons.count("PodCreationRejected") == 1
    assert (
        sim.pods["job-0-2"].raw["metadata"]["labels"]["training.inception.dev/incarnation"] == "1"
    ), "untouched"
    assert sim.pods["job-0-2"].deletion_deadline is None
    sim.remove(sim.pods["job-0-2"])
    sim.run_until("Running")
    assert sim.counters == (2, 1, 0)


def foreign(**metadata: Any) -> Json:
    raw = pod("job-0-2", owner="another")
    raw["metadata"] |= metadata
    return raw


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ownerReferences": []}, "belongs to nobody; delete it"),
        ({"ownerReferences": [{"kind": "Job", "name": "x"}]}, "belongs to nobody; delete it"),
        (
            {"ownerReferences": [{"kind": "Job", "name": "x", "controller": True}]},
            "belongs to Job x; delete it",
        ),
        ({}, None),
        ({"deletionTimestamp": "2026-01-01T11:59:55Z"}, None),
        ({"deletionTimestamp": "2026-01-01T11:59:00Z"}, "does not go (no answer of its node)"),
        (
            {"deletionTimestamp": "2026-01-01T11:59:00Z", "finalizers": ["a/b", "c/d"]},
            "does not go (a/b, c/d)",
        ),
    ],
    ids=["nobody", "no controller", "a Job", "an earlier job", "leaving", "dead node", "held"],
)
def test_who_has_our_name(metadata: Json, words: str | None) -> None:
    text = identity.name_taken(foreign(**metadata), small_job(), NOW)
    assert (text is None) == (words is None)
    if text is not None:
        assert text.startswith("pod ns/job-0-2 ")
        assert words is not None
        assert words in text


def test_a_name_is_free_when_the_pod_had_its_time() -> None:
    gone = NOW - identity.LEAVING - timedelta(seconds=1)
    text = identity.name_taken(
        foreign(deletionTimestamp=gone.isoformat().replace("+00:00", "Z")), small_job(), NOW
    )
    assert text is not None


# Of an operator whose clock is an hour ahead; of somebody who means well; of nobody.
AHEAD = ("2026-01-01T13:00:06Z", "2998-01-01T00:00:00Z", "9999-12-31T23:59:59Z")


def late(path: str, time: str, sim: Sim) -> None:
    """Somebody writes a time into the status."""
    *way, last = path.split(".")
    found: Any = sim.status
    for key in way:
        found = found[int(key) if key.isdigit() else key]
    found[last] = time


@pytest.mark.parametrize("time", AHEAD)
def test_no_time_of_a_status_lies_ahead(time: str) -> None:
    held = {"time": time, "other": time, "causeStartTime": time, "list": [{"startTime": time}]}
    now = clocks.none_ahead({"rootCause": held, "completionTime": time, "n": 1}, NOW)
    present = "2026-01-01T12:00:00Z"
    held = {
        "time": present,
        "other": time,
        "causeStartTime": present,
        "list": [{"startTime": present}],
    }
    assert now == {"rootCause": held, "completionTime": present, "n": 1}


@pytest.mark.parametrize(
    ("key", "seconds"),
    [
        ("startTime", 5),
        ("lastTransitionTime", 5),
        ("nextAttemptTime", 66),
        ("expirationTime", 605),
        ("nextMoveTime", 1805),
    ],
)
def test_what_the_operator_writes_itself_stays(key: str, seconds: int) -> None:
    for more in (0, 1):
        time = format_time(NOW + timedelta(seconds=seconds + more))
        read = clocks.none_ahead({key: time}, NOW)[key]
        assert (read == time) is (not more)


@pytest.mark.parametrize("time", AHEAD)
@pytest.mark.parametrize("path", ["startTime", "conditions.2.lastTransitionTime"])
def test_deadlines_come_though_a_time_lies_ahead(path: str, time: str) -> None:
    limits = {"activeDeadlineSeconds": 100, "preRunningDeadlineSeconds": 100}
    sim = Sim(job(2, runPolicy=limits))
    sim.operate()
    sim.tick(6)
    sim.operate()
    late(path, time, sim)
    sim.settle()
    sim.tick(93)
    sim.operate()
    assert not sim.terminal
    sim.tick(7)
    sim.operate()
    assert sim.condition("Failed") == "True"


@pytest.mark.parametrize("time", AHEAD)
def test_a_time_to_live_ends_though_the_completion_lies_ahead(time: str) -> None:
    sim = Sim(job(2, runPolicy={"ttlSecondsAfterFinished": 60}))
    sim.run_until("Running")
    sim.finish_all()
    sim.settle()
    late("completionTime", time, sim)
    sim.settle()
    sim.tick(60)
    sim.operate()
    assert sim.deleted


@pytest.mark.parametrize("time", AHEAD)
def test_a_silent_survivor_is_replaced_though_the_root_cause_lies_ahead(
    sim: Sim, time: str
) -> None:
    sim.remove(sim.pod(1))
    sim.operate()
    late("rootCause.time", time, sim)
    mute = sim.pod(0)
    mute.reachable = False
    sim._ready(mute, False)
    sim.tick(31)
    sim.operate()
    sim.tick(31)
    sim.operate()
    assert sim.pod(0).name == "job-0-2"


@pytest.mark.parametrize("time", AHEAD)
def test_figures_are_written_though_the_last_ones_lie_ahead(sim: Sim, time: str) -> None:
    sim.status["trainerStatus"] = {"step": 7, "lastUpdatedTime": time}
    sim.operate()
    sim.tick(10)
    figures = Progress(sim.now, step=8)
    plan = reconcile(replace(sim.observe(), progress=figures), CONTEXT)
    assert plan.status is not None
    assert plan.status["trainerStatus"]["step"] == 8
