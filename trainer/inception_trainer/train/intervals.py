"""Clocks of the training loop: of the log interval, of the saves, and of the copies in memory.

What a restart must not lose (the time of all attempts together) is in ``reporting/progress.py``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence


class LogInterval:
    """The steps since the last log record, and the time of those among them that a speed counts.

    Not counted are the first steps of a process and what happens between steps: evaluations, saves,
    recorded steps.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.timed_steps = 0
        self._since = time.monotonic()

    def add_step(self) -> None:
        """A step has been done."""
        self.steps += 1
        self.timed_steps += 1

    def forget_time(self) -> None:
        """Count the time only from here on, and none of the steps until here."""
        self.timed_steps = 0
        self._since = time.monotonic()

    def restart(self) -> None:
        """Begin a new interval."""
        self.steps = 0
        self.forget_time()

    def seconds(self) -> float:
        """What the timed steps have taken."""
        return time.monotonic() - self._since


class SaveClock:
    """When the last checkpoint was asked for, and whether the next one is due."""

    def __init__(
        self, saved_step: int, rhythms: Sequence[int | None], every_seconds: float | None
    ) -> None:
        """``rhythms`` are numbers of steps after each of which a save is due."""
        self.step = saved_step
        """The last step that was saved, -1 before the first."""
        self._rhythms = [rhythm for rhythm in rhythms if rhythm]
        self._every_seconds = every_seconds
        self._at = time.monotonic()

    def saved(self, step: int) -> None:
        """The state after ``step`` steps has been copied."""
        self.step = step
        self._at = time.monotonic()

    def is_due_after(self, step: int) -> bool:
        """Whether one of the rhythms asks for a save once ``step`` steps are done; equal on all
        ranks.
        """
        if step == 0 or step == self.step:
            return False
        return any(step % rhythm == 0 for rhythm in self._rhythms)

    def is_time(self) -> bool:
        """Whether ``checkpoint.everySeconds`` have passed, by the clock of this rank."""
        return bool(self._every_seconds) and time.monotonic() - self._at >= (
            self._every_seconds or 0.0
        )


class CopyClock:
    """When the next periodic copy in memory is due: so seldom that copies take one hundredth of the
    training's time, but at least every ``LONGEST_SECONDS``.
    """

    SHARE = 0.01
    SHORTEST_SECONDS = 1.0
    LONGEST_SECONDS = 10.0

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cost = 0.0

    def add_cost(self, seconds: float) -> None:
        """The copy that was begun last has held up the training so long."""
        self._cost += seconds

    def restart(self) -> None:
        """A copy is begun."""
        self._at = time.monotonic()
        self._cost = 0.0

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        seconds = max(self.SHORTEST_SECONDS, min(self.LONGEST_SECONDS, self._cost / self.SHARE))
        return time.monotonic() - self._at >= seconds
