"""The pauses between attempts: none at first, then growing and bounded; what counts as progress."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_operator.contract.types import Json
from inception_operator.decide import backoff
from inception_operator.decide.backoff import Streak
from inception_operator.decide.budget import Counters
from inception_operator.decide.restart_policy import Restart
from inception_operator.spec.failure_policy import Action

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT_ONCE = timedelta()
LONG = timedelta(minutes=10)


def status_after(streak: Streak, attempt: int, now: datetime) -> Json:
    """What a status says once this attempt has failed with this streak."""
    return Restart(
        Action.RESTART,
        reason="Restarting",
        message="",
        counted=True,
        not_before=streak.not_before(attempt, now),
        counters=Counters(streak=streak),
    ).to_status()


def test_pauses_double_after_two_failures_up_to_a_minute() -> None:
    assert [backoff.delay(failures) for failures in range(11)] == [
        0,
        0,
        0,
        1,
        2,
        4,
        8,
        16,
        32,
        60,
        60,
    ]


@given(failures=st.integers(0, 10_000))
def test_pauses_never_shrink_and_are_bounded(failures: int) -> None:
    assert 0 <= backoff.delay(failures) <= backoff.delay(failures + 1) <= backoff.LONGEST


@pytest.mark.parametrize(
    ("reached", "ran", "after"),
    [
        (0, AT_ONCE, Streak(5, attempt=2, step=100)),
        (90, AT_ONCE, Streak(1, attempt=2, step=100)),
        (100, AT_ONCE, Streak(1, attempt=2, step=100)),
        (101, AT_ONCE, Streak(1, attempt=7, step=101)),
        (0, LONG, Streak(1, attempt=7, step=100)),
        (0, LONG - timedelta(seconds=1), Streak(5, attempt=2, step=100)),
    ],
    ids=["no step", "lost steps again", "same step again", "a new step", "lasted", "did not last"],
)
def test_what_counts_as_progress(reached: int, ran: timedelta, after: Streak) -> None:
    assert Streak(4, attempt=2, step=100).after(7, reached, ran) == after


def test_the_first_failure_is_where_counting_begins() -> None:
    assert Streak().after(3, 0, AT_ONCE) == Streak(1, attempt=3, step=0)


@pytest.mark.parametrize(
    ("streak", "attempt", "text"),
    [
        (
            Streak(6, attempt=1, step=9),
            6,
            "waiting 8 s before attempt 7: 6 failures in a row without a step",
        ),
        (
            Streak(1, attempt=4, step=9),
            35,
            "waiting 1 s before attempt 36: no attempt since 4 got beyond step 9",
        ),
    ],
    ids=["no step", "no new step"],
)
def test_the_pause_is_explained(streak: Streak, attempt: int, text: str) -> None:
    assert streak.explain(attempt + 1) == text


@pytest.mark.parametrize(("repeats", "seconds"), [(30, 0), (31, 1), (32, 2), (40, 60)])
def test_repeating_lost_steps_is_free_for_a_while(repeats: int, seconds: int) -> None:
    assert Streak(1, attempt=5, step=100).seconds(5 + repeats) == seconds


@pytest.mark.parametrize(("microseconds", "due"), [(0, "12:00:04"), (1, "12:00:05")])
def test_the_time_in_the_status_is_never_too_early(microseconds: int, due: str) -> None:
    now = NOW + timedelta(microseconds=microseconds)
    status = status_after(Streak(5, attempt=1), 5, now)
    assert status["nextAttemptTime"] == f"2026-01-01T{due}Z"
    assert backoff.remaining(status, now) >= 4
    assert backoff.remaining(status, now + timedelta(seconds=5)) == 0


@given(failures=st.integers(0, 50), attempt=st.integers(1, 50), step=st.integers(0, 50))
def test_the_status_holds_all_of_it(failures: int, attempt: int, step: int) -> None:
    streak = Streak(failures, attempt, step)
    assert Streak.of(status_after(streak, attempt + 1, NOW)) == streak


def test_without_a_pause_there_is_no_time() -> None:
    status = status_after(Streak(2, attempt=1), 2, NOW)
    assert "nextAttemptTime" not in status
    assert backoff.remaining(status, NOW) == 0
