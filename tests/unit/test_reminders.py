"""Who is reminded of an assignment, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from inception_operator.contract import assignment
from inception_operator.contract.types import PodView, Report
from inception_operator.decide import reminders
from inception_operator.pod.view import view
from operator_objects import pod

ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = assignment.work(3, 1, 2, 1, "10.0.0.1", graceful=False)


def told(reminder: int = 0, **changes: object) -> PodView:
    """A pod that is up and has been told its rank in attempt 3."""
    found = view(pod("job-1-1", ip="10.0.0.2"))
    assert found is not None
    steady = replace(
        found, ready=True, reachable=True, assignment=replace(ORDER, reminder=reminder)
    )
    return replace(steady, **changes)  # type: ignore[arg-type]


def after(seconds: float) -> datetime:
    return ISSUED + timedelta(seconds=seconds)


def says(attempt: int, state: str) -> Report:
    return Report(attempt=attempt, state=state)


@pytest.mark.parametrize(
    ("report", "waits"),
    [
        (says(2, "Failed"), True),
        (says(2, "Running"), True),
        (says(3, "Idle"), True),
        (says(3, "Running"), False),
        (says(3, "Succeeded"), False),
        (says(3, "Failed"), False),
        (None, False),
    ],
    ids=str,
)
def test_a_launcher_that_answers_is_reminded_every_second_until_it_runs(
    report: Report | None, waits: bool
) -> None:
    numbers = [
        reminders.due(told(report=report), 3, ISSUED, after(seconds))
        for seconds in (0.9, 1, 2.5, 60)
    ]
    assert numbers == ([0, 1, 2, reminders.MOST] if waits else [0, 0, 0, 0])
    assert reminders.look_again(told(report=report), 3, ISSUED, after(1)) is None


@pytest.mark.parametrize("report", [None, says(2, "Failed"), says(2, "Running")], ids=str)
def test_one_that_is_ready_and_does_not_answer_is_reminded_less_and_less(
    report: Report | None,
) -> None:
    unheard, now, seen = told(report=report, reachable=False), ISSUED, []
    while (pause := reminders.look_again(unheard, 3, ISSUED, now)) is not None:
        now += timedelta(seconds=pause)
        number = reminders.due(unheard, 3, ISSUED, now)
        assert unheard.assignment is not None
        unheard = replace(unheard, assignment=replace(unheard.assignment, reminder=number))
        assert reminders.due(unheard, 3, ISSUED, now) == 0, "one reminder at a time"
        assert reminders.wants_answer(unheard, 3) is (number < reminders.MOST_UNHEARD)
        seen.append((number, (now - ISSUED).total_seconds()))
    assert seen == [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0)]


def test_nobody_is_reminded_of_what_is_not_said_or_done() -> None:
    late = after(5)
    for quiet in (
        told(report=says(3, "Running"), reachable=False),
        told(assignment=None),
        told(assignment=assignment.standby(3, graceful=False)),
        told(reachable=False, exit_code=1),
    ):
        assert reminders.due(quiet, 3, ISSUED, late) == 0
        assert reminders.look_again(quiet, 3, ISSUED, late) is None
    assert reminders.due(told(report=says(2, "Failed")), 3, None, late) == 0


def test_the_first_assignment_follows_no_other_and_is_not_lost() -> None:
    first = told(
        reachable=False, assignment=assignment.work(1, 1, 2, 1, "10.0.0.1", graceful=False)
    )
    assert reminders.due(first, 1, ISSUED, after(5)) == 0
    assert reminders.look_again(first, 1, ISSUED, after(5)) is None
    assert not reminders.wants_answer(first, 1)
