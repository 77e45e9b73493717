"""What a disturbance cost, from the steps that ranks were seen to finish: when the job came back,
when it did something new, and what it did twice.

A step is new when no attempt before has finished one of its number or a later one. That a step of
an attempt is finished is said by the slowest of its ranks; that it may not be lost, by the fastest.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """One rank of an attempt has finished the optimizer step of this number, counted over the whole
    job from 1; ``time`` is this machine's clock.
    """

    time: float
    attempt: int
    rank: str
    step: int


@dataclass(frozen=True)
class Recovery:
    """How a job came back from a disturbance. Times are this machine's clock."""

    first_step: float
    """All ranks of the next attempt that makes steps have finished their first one."""
    first_new_step: float
    """All ranks have finished a step that no attempt before had."""
    repeated: int
    """Steps finished before and done again, over all attempts until then."""
    skipped: int
    """Steps that no attempt has finished and the next ones did not do: anything but 0 is a
    fault.
    """
    attempts: int
    """Attempts that made steps until then, 1 if the first got so far."""


class StepBook:
    """The steps of a job by attempt and rank, in the order of time."""

    def __init__(self) -> None:
        self._attempts: dict[int, dict[str, list[StepRecord]]] = {}

    def add(self, record: StepRecord) -> None:
        """Enter a step; those of one rank must come in their order."""
        self._attempts.setdefault(record.attempt, {}).setdefault(record.rank, []).append(record)

    @property
    def attempt(self) -> int:
        """The newest attempt that has made a step, 0 for none."""
        return max(self._attempts, default=0)

    def furthest(self, attempt: int | None = None) -> int:
        """The furthest step that any rank has finished, up to and with an attempt."""
        return max(
            (
                records[-1].step
                for number, ranks in self._attempts.items()
                if attempt is None or number <= attempt
                for records in ranks.values()
            ),
            default=0,
        )

    def recovery(self, attempt: int, ranks: int) -> Recovery | None:
        """How the job of so many ranks came back after a disturbance of this attempt; None as long
        as it has not done anything new.
        """
        first_step: float | None = None
        repeated = skipped = 0
        later = sorted(number for number in self._attempts if number > attempt)
        for count, number in enumerate(later, start=1):
            before = self.furthest(number - 1)
            seen = self._attempts[number]
            start = _first(seen) - 1
            if first_step is None:
                first_step = _finished(seen, start + 1, ranks)
            repeated += max(0, min(_last(seen), before) - start)
            skipped += max(0, start - before)
            new = _finished(seen, before + 1, ranks)
            if new is not None and first_step is not None:
                return Recovery(first_step, new, repeated, skipped, count)
        return None

    def step_seconds(self) -> float:
        """The median time of a step, 0 before there are two in a row."""
        seconds = [
            later.time - earlier.time
            for ranks in self._attempts.values()
            for records in ranks.values()
            for earlier, later in itertools.pairwise(records)
            if later.step == earlier.step + 1
        ]
        return statistics.median(seconds) if seconds else 0.0


def _first(ranks: Mapping[str, list[StepRecord]]) -> int:
    return min(records[0].step for records in ranks.values())


def _last(ranks: Mapping[str, list[StepRecord]]) -> int:
    return max(records[-1].step for records in ranks.values())


def _finished(ranks: Mapping[str, list[StepRecord]], step: int, count: int) -> float | None:
    """When the last of ``count`` ranks had finished this step or, where it was not seen, a later
    one; None as long as one has not.
    """
    times = sorted(
        next(record.time for record in records if record.step >= step)
        for records in ranks.values()
        if records[-1].step >= step
    )
    return times[count - 1] if len(times) >= count else None
