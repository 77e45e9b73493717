"""The budget of restarts: it is used up by attempts that get nowhere and full again by progress."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_sim import Sim, job
from inception_operator.contract.limits import clip
from inception_operator.contract.names import Reason
from inception_operator.contract.types import Json
from inception_operator.decide.backoff import FREE_REPEATS, Streak
from inception_operator.decide.budget import Budget, Counters
from inception_operator.decide.failure import Failure
from inception_operator.decide.restart_policy import EndedAttempt, Restart, decide_restart
from inception_operator.spec.failure_policy import Action
from sim_moves import save_and_end

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Life:
    """A job that fails again and again; all it knows between two failures is its status."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.now, self.attempt = budget, NOW, 1
        self.status: Json = {}
        self.last: Restart | None = None

    @property
    def over(self) -> bool:
        return self.last is not None and self.last.action is Action.FAIL

    @property
    def counted(self) -> int:
        return int(self.status["restartsCountTowardsMax"])

    def fail(self, reached: int = 0, ran: timedelta = timedelta(), reason: str = "Error") -> None:
        """The attempt has reached a step, 0 for none, has run so long and has failed."""
        self.now += ran
        cause = Failure(self.attempt, 0, reason, self.now, exit_code=1)
        counters = Counters.of(self.status)
        self.last = decide_restart(
            EndedAttempt(cause, reached, ran), None, (), self.budget, counters, self.now
        )
        if not self.over:
            self.status = self.last.to_status()
            self.attempt += 1

    def end(self, reached: int, ran: timedelta = timedelta()) -> None:
        """The attempt ends for one of another size."""
        counters = Counters.of(self.status)
        self.status = counters.after_end(self.budget, self.attempt, reached, ran).to_status()
        self.attempt += 1


budgets = st.builds(Budget, st.integers(0, 20), st.integers(1, 100_000), st.booleans())
durations = st.timedeltas(timedelta(0), timedelta(days=3))


@settings(max_examples=30)
@given(budget=budgets, first=st.integers(1, 10**6), data=st.data())
def test_a_loop_without_a_new_step_ends_after_as_many_restarts_as_are_allowed(
    budget: Budget, first: int, data: st.DataObject
) -> None:
    life = Life(budget)
    life.fail(first, data.draw(durations))
    while not life.over:
        # However long an attempt lasts, it gets no further than the first one.
        life.fail(data.draw(st.integers(0, first)), data.draw(durations))
        assert life.attempt <= budget.limit + 1
    assert life.attempt == budget.limit + 1
    assert life.last is not None
    assert life.last.reason == Reason.MAX_RESTARTS_EXCEEDED


@settings(max_examples=30)
@given(
    limit=st.integers(1, 20),
    reset_after=st.integers(1, 86_400),
    tells_steps=st.booleans(),
    steps=st.lists(st.integers(1, 10**6), min_size=20, max_size=40),
)
def test_a_failure_a_day_with_progress_between_never_ends_a_job(
    limit: int, reset_after: int, tells_steps: bool, steps: list[int]
) -> None:
    life, reached = Life(Budget(limit, reset_after, tells_steps)), 0
    for new in steps:
        reached += new
        life.fail(reached, DAY)
        assert not life.over
        assert life.counted == 1
    assert life.status["restarts"] == len(steps)


@given(parts=st.lists(st.integers(1, 599), min_size=1, max_size=30), counted=st.integers(1, 9))
def test_progress_adds_up_over_restarts_that_do_not_count(parts: list[int], counted: int) -> None:
    life, step = Life(Budget(10, 600)), 1
    for _ in range(counted):
        life.fail(step)
    before = life.counted
    total = 0
    for seconds in parts:
        step += 1
        total += seconds
        life.fail(step, timedelta(seconds=seconds), "PodDeleted")
        if total >= 600:
            break
    assert life.counted == (0 if total >= 600 else before)
    assert life.status.get("progressSeconds", 0) == (0 if total >= 600 else total)


@settings(max_examples=30)
@given(
    budget=budgets,
    story=st.lists(
        st.tuples(
            st.integers(0, 2**70), durations, st.sampled_from(["Error", "PodDeleted", "Hang"])
        ),
        max_size=30,
    ),
)
def test_counters_are_in_the_status_and_stay_within_the_limits(
    budget: Budget, story: list[tuple[int, timedelta, str]]
) -> None:
    life = Life(budget)
    for reached, ran, reason in story:
        life.fail(min(reached, 2**63 - 1), ran, reason)
        if life.over:
            return
        assert life.last is not None
        assert Counters.of(life.status) == life.last.counters
        assert clip(life.status) == life.status
        assert life.counted <= budget.limit
        assert life.status.get("progressSeconds", 0) < budget.reset_after


def test_a_crash_at_once_is_over_within_minutes() -> None:
    life = Life(Budget(10, 600))
    while not life.over:
        life.fail(1, timedelta(seconds=5))
        if life.last is not None and life.last.not_before is not None:
            life.now = life.last.not_before
    assert life.now - NOW < timedelta(minutes=5)
    assert life.last is not None
    assert life.last.message.startswith(
        "all 10 restarts are used up without 600 s of progress between them "
        "(spec.failurePolicy.maxRestarts and resetAfterSeconds); the last cause is Error"
    )


@pytest.mark.parametrize(
    ("tells_steps", "furthest", "reached", "gets_on"),
    [
        (True, 100, 101, True),
        (True, 100, 100, False),
        (True, 100, 0, False),
        (True, 0, 0, False),
        (True, 0, 1, True),
        (False, 0, 0, True),
        (False, 100, 0, False),
        (False, 100, 101, True),
    ],
    ids=[
        *("a new step", "no new one", "no step", "none at all", "the first step"),
        *("a program without steps", "a program that told steps before", "its new step"),
    ],
)
def test_what_counts_as_progress(
    tells_steps: bool, furthest: int, reached: int, gets_on: bool
) -> None:
    counters = Counters(counted=3, streak=Streak(1, 1, furthest))
    budget = Budget(10, 600, tells_steps)
    assert budget.gets_on(counters.streak, reached) is gets_on
    ran = timedelta(seconds=600)
    assert counters.after_progress(budget, reached, ran).counted == (0 if gets_on else 3)
    assert counters.after_progress(budget, reached, ran - timedelta(seconds=1)).counted == 3


def test_a_status_of_an_operator_before_this_one_is_read() -> None:
    old = {"restarts": 4, "restartsCountTowardsMax": 3, "failuresInARow": 1}
    assert Counters.of(old) == Counters(4, 3, 0, None, Streak(1))


def running(spec: Json | None = None, **policy: int) -> Sim:
    """A job whose first attempt has failed at step 100 and whose second runs."""
    sim = Sim(job(2, failurePolicy=policy, **(spec or {})))
    sim.run_until("Running")
    sim.step(sim.pod(1), 100)
    sim.fail_ranks(sim.pod(1), 7)
    sim.run_until("Running")
    sim.events.clear()
    assert sim.counters == (2, 1, 1)
    return sim


def test_the_status_says_at_once_that_no_restart_counts_any_more() -> None:
    sim = running()
    sim.tick(900)
    assert sim.operate().status is None, "it only repeats steps"
    sim.step(sim.pod(1), 101)
    sim.hear(sim.pod(1))
    sim.operate()
    assert sim.counters == (2, 1, 0)
    assert sim.settle() == 0
    sim.fail_ranks(sim.pod(1), 7)
    sim.operate()
    assert sim.counters == (3, 2, 1), "what the attempt has achieved counts once"


def test_it_is_looked_at_when_the_time_is_over() -> None:
    sim = running(resetAfterSeconds=50)
    sim.step(sim.pod(1), 101)
    sim.hear(sim.pod(1))
    left = sim.operate().requeue_after
    assert left is not None
    assert 0 < left <= 50
    sim.tick(left)
    sim.operate()
    assert sim.counters == (2, 1, 0)


def resize(sim: Sim) -> None:
    sim.scale(3)
    sim.operate()
    sim.start(sim.pod(2))


def move(sim: Sim) -> None:
    sim.cordon(sim.pod(0))
    sim.operate()
    sim.start(sim.pod(0))
    sim.settle()
    save_and_end(sim)


def suspend(sim: Sim) -> None:
    sim.suspend(True)
    sim.settle()
    save_and_end(sim)
    sim.suspend(False)


@pytest.mark.parametrize("end", [resize, move, suspend])
def test_progress_counts_over_an_attempt_that_ends_without_a_failure(
    end: Callable[[Sim], None],
) -> None:
    spec = {"checkpoint": {"path": "/mnt"}, "elasticPolicy": {"minNodes": 1, "maxNodes": 3}}
    sim = running(spec)
    sim.step(sim.pod(1), 200)
    sim.hear(sim.pod(1))
    sim.tick(500)
    end(sim)
    sim.operate()
    sim.run_until("Running")
    assert sim.counters == (3, 1, 1)
    assert 500 <= sim.status["progressSeconds"] < 510
    sim.step(sim.pod(1), 300)
    sim.hear(sim.pod(1))
    sim.tick(100)
    sim.operate()
    assert sim.counters == (3, 1, 0)


def test_attempts_that_ended_without_a_failure_are_none_that_got_nowhere() -> None:
    life = Life(Budget(10, 600))
    life.fail(100)
    for _ in range(2 * FREE_REPEATS):
        life.end(life.attempt * 100)
    life.fail()
    assert life.last is not None
    assert life.last.not_before is None
    assert life.status["failuresInARow"] == 1


def test_an_operator_that_dies_before_or_after_the_write_counts_the_same() -> None:
    sim = running(maxRestarts=1)
    sim.step(sim.pod(1), 200)
    sim.tick(600)
    sim.fail_ranks(sim.pod(1), 7)
    for writes in (0, 1, 2):
        sim.operate(crash_after=writes)
    sim.operate()
    assert sim.counters == (3, 2, 1)


def test_a_resume_keeps_what_has_been_counted() -> None:
    sim = running()
    sim.suspend(True)
    sim.operate()
    sim.suspend(False)
    sim.operate()
    assert sim.counters == (3, 1, 1)


def test_the_loss_is_no_number_at_the_same_step_until_the_job_is_resumed() -> None:
    sim = Sim(job(2))
    sim.run_until("Running")
    for suspend in (False, True):
        sim.diverge(sim.pod(0), 550)
        sim.operate()
        assert not sim.terminal
        assert sim.status["nonFiniteStep"] == sim.status["rootCause"]["step"] == 550
        if suspend:
            break
        sim.suspend(True)
        sim.operate()
        sim.suspend(False)
        sim.operate()
        assert "nonFiniteStep" not in sim.status, "the learning rate may be another one now"
        sim.run_until("Running")
    sim.run_until("Running")
    sim.diverge(sim.pod(0), 550)
    sim.operate()
    failed = sim.full_condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "NonFinite")
    assert "second time at step 550" in failed["message"]
