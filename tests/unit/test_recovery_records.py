"""The benchmark of recovery counts what a disturbance cost from the steps that it saw."""

from __future__ import annotations

import pytest

from benchmarks.recovery_records import Recovery, StepBook, StepRecord

Steps = tuple[float, int, int, int]
"""Time of the first, attempt, first and last step: one step a second on both ranks, rank 1 a tenth
of a second behind rank 0.
"""


def book(*runs: Steps, ranks: int = 2) -> StepBook:
    found = StepBook()
    for begin, attempt, first, last in runs:
        for step in range(first, last + 1):
            for rank in range(ranks):
                time = begin + step - first + rank / 10
                found.add(StepRecord(time, attempt, f"rank {rank}", step))
    return found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (book((0, 1, 1, 10), (20, 2, 11, 12)), Recovery(20.1, 20.1, 0, 0, 1)),
        (book((0, 1, 1, 10), (20, 2, 4, 12)), Recovery(20.1, 27.1, 7, 0, 1)),
        (book((0, 1, 1, 10), (20, 2, 1, 11)), Recovery(20.1, 30.1, 10, 0, 1)),
        (book((0, 1, 1, 10), (20, 2, 4, 6), (30, 3, 4, 11)), Recovery(20.1, 37.1, 10, 0, 2)),
        (book((0, 1, 1, 10), (20, 2, 9, 12), (30, 3, 12, 14)), Recovery(20.1, 22.1, 2, 0, 1)),
        (book((0, 1, 1, 10), (20, 2, 13, 13)), Recovery(20.1, 20.1, 0, 2, 1)),
        (book((0, 3, 1, 10), (20, 5, 11, 11)), Recovery(20.1, 20.1, 0, 0, 1)),
    ],
    ids=[
        "nothing is lost",
        "from a checkpoint",
        "from the beginning",
        "the next attempt is lost too",
        "another loss later is not of this one",
        "steps that nobody did",
        "an attempt without steps between",
    ],
)
def test_a_recovery_is_read_from_the_steps(found: StepBook, expected: Recovery) -> None:
    disturbed = 3 if found.furthest(2) == 0 else 1
    assert found.recovery(disturbed, 2) == expected


@pytest.mark.parametrize(
    "found",
    [
        book((0, 1, 1, 10)),
        book((0, 1, 1, 10), (20, 2, 4, 10)),
        book((0, 1, 1, 10), (20, 2, 4, 12), ranks=1),
    ],
    ids=["no step since", "nothing new yet", "one of two ranks"],
)
def test_a_job_that_did_nothing_new_has_not_recovered(found: StepBook) -> None:
    assert found.recovery(1, 2) is None


def test_a_step_that_one_rank_had_finished_is_not_new() -> None:
    found = book((0, 1, 1, 10))
    found.add(StepRecord(10.0, 1, "rank 0", 11))
    for step in (11, 12):
        for rank in range(2):
            found.add(StepRecord(10.0 + step, 2, f"rank {rank}", step))
    recovery = found.recovery(1, 2)
    assert recovery == Recovery(21.0, 22.0, repeated=1, skipped=0, attempts=1)


def test_steps_of_survivors_after_the_kill_belong_to_their_attempt() -> None:
    """A rank that is asked to save goes on to a common step first."""
    found = book((0, 1, 1, 10))
    assert found.furthest() == 10
    found.add(StepRecord(15.0, 1, "rank 1", 11))
    assert (found.furthest(), found.furthest(0), found.attempt) == (11, 0, 1)


def test_a_step_that_was_missed_is_finished_by_the_next_one() -> None:
    found = StepBook()
    for rank in ("a", "b"):
        found.add(StepRecord(0.0, 1, rank, 5))
    found.add(StepRecord(1.0, 2, "a", 6))
    found.add(StepRecord(3.0, 2, "b", 7))
    assert found.recovery(1, 2) == Recovery(3.0, 3.0, 0, 0, 1)


def test_the_pace_is_that_of_steps_in_a_row() -> None:
    assert StepBook().step_seconds() == 0.0
    assert book((0, 1, 1, 10), (100, 2, 3, 9)).step_seconds() == pytest.approx(1.0)
