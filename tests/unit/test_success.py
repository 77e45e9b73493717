"""Whose success is the job's: all nodes', or rank 0's, whose end the others notice first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster_sim import Sim, job
from inception_operator.contract.assignment import work
from inception_operator.contract.types import PodView
from inception_operator.decide import success
from inception_operator.decide.failure import SETTLE, AttemptView, Failure

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def chief() -> Sim:
    sim = Sim(job(3, successPolicy="Chief"))
    sim.run_until("Running")
    sim.settle()
    return sim


def lose(sim: Sim, slot: int, reason: str = "PeerLost", code: int = 1) -> None:
    """The ranks of a slot end because rank 0's have, and their launcher says so."""
    sim.fail_ranks(sim.pod(slot), code, reason)


def message(sim: Sim) -> str:
    return str(sim.full_condition("Succeeded")["message"])


def test_success_of_rank_0_ends_the_job_and_the_other_pods(chief: Sim) -> None:
    chief.finish(chief.pod(0))
    plan = chief.operate()
    assert (chief.status["state"], message(chief)) == (
        "Succeeded",
        "the node of rank 0 has ended with success",
    )
    assert chief.status["trainerStatus"]["accuracyTop1"] == "0.9700"
    assert {name: assigned.end for name, assigned in plan.assign.items()} == {
        "job-1-1": True,
        "job-2-1": True,
    }
    assert plan.delete == {}
    chief.calm()
    chief.settle()
    assert all(pod.over for pod in chief.pods.values())
    assert len(chief.pods) == 3, "pods stay for their logs"
    assert chief.counters == (1, 0, 0)


def test_others_may_be_done_before(chief: Sim) -> None:
    chief.finish(chief.pod(1))
    assert chief.operate().empty
    chief.finish(chief.pod(0))
    chief.operate()
    assert chief.condition("Succeeded") == "True"


@pytest.mark.parametrize(
    ("reason", "code"), [("PeerLost", 1), ("Error", 1), ("Error", 65)], ids=str
)
def test_what_others_say_waits_for_the_success_of_rank_0(
    chief: Sim, reason: str, code: int
) -> None:
    """The watch shows the end of the container later than the launchers of the others tell of their
    loss.
    """
    chief.finish(chief.pod(0), seen=False)
    lose(chief, 1, reason, code)
    lose(chief, 2, reason, code)
    plan = chief.operate()
    assert (plan.status or chief.status)["attempt"] == 1
    assert plan.requeue_after is not None
    chief.tick(SETTLE.total_seconds() + 1)
    chief.operate()
    assert chief.counters == (1, 0, 0)
    chief.leave(chief.pod(0))
    chief.operate()
    assert (chief.condition("Succeeded"), chief.counters) == ("True", (1, 0, 0))


def test_a_chief_that_does_not_succeed_is_not_waited_for_any_longer(chief: Sim) -> None:
    lose(chief, 1, "Error")
    chief.operate()
    chief.tick(success.CHIEF_SETTLE.total_seconds())
    chief.operate()
    assert chief.counters == (2, 1, 1)
    assert chief.status["rootCause"]["pod"] == "job-1-1"


def test_a_chief_that_fails_as_well_is_not_waited_for(chief: Sim) -> None:
    lose(chief, 1)
    lose(chief, 0, "Error", 7)
    chief.operate()
    assert (chief.counters, chief.status["rootCause"]["rank"]) == ((2, 1, 1), 0)


def test_a_lost_pod_is_no_echo(chief: Sim) -> None:
    chief.remove(chief.pod(1))
    chief.operate()
    assert chief.counters == (2, 1, 0)


def test_all_nodes_have_to_succeed_by_default() -> None:
    sim = Sim(job(2))
    sim.run_until("Running")
    sim.settle()
    sim.finish(sim.pod(0))
    assert sim.operate().empty
    sim.finish(sim.pod(1))
    sim.operate()
    assert message(sim) == "all ranks have ended with success"


def test_failures_of_all_mode_do_not_wait_for_rank_0() -> None:
    sim = Sim(job(2))
    sim.run_until("Running")
    sim.settle()
    lose(sim, 1, "Error")
    sim.operate()
    assert sim.counters == (2, 1, 1)


def test_success_of_an_earlier_attempt_is_none_of_this_one(chief: Sim) -> None:
    """Told too late, it costs an attempt, which starts from the last checkpoint."""
    lose(chief, 1, "Error")
    chief.tick(success.CHIEF_SETTLE.total_seconds() + 1)
    chief.operate()
    chief.finish(chief.pod(0))
    chief.exit(chief.pod(0), 0)
    chief.operate()
    assert chief.condition("Succeeded") == "Unknown"
    chief.run_until("Running")
    chief.finish(chief.pod(0))
    chief.operate()
    assert chief.condition("Succeeded") == "True"


def test_patience_is_longer_than_for_a_lost_peer() -> None:
    assert SETTLE < success.CHIEF_SETTLE < timedelta(seconds=30)


@pytest.mark.parametrize("reason", ["LauncherUnreachable", "ContractMismatch"])
def test_what_the_operator_itself_finds_in_every_pass_is_no_echo(reason: str) -> None:
    """It would never be old enough to be acted on."""
    told = work(1, 0, 2, 1, "10.0.0.1", graceful=False)
    first = PodView("job-0-1", "uid", 0, 1, phase="Running", assignment=told)
    found = [Failure(1, 1, reason, NOW)]
    view = AttemptView("job", 1, 1, NOW, NOW)
    assert not success.must_wait(found, (first, None), view, "Chief")
    lost = [Failure(1, 1, "PeerLost", NOW - timedelta(hours=1), heard=NOW)]
    assert success.must_wait(lost, (first, None), view, "Chief")
