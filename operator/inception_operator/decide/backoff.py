"""How long a job waits before its next attempt: not at all at first, then longer and longer while
it gets nowhere.

Whatever does not count towards ``maxRestarts`` could otherwise restart a job for ever at full
speed. Two things are counted. Attempts in a row that fail before their first step: two restart at
once, for the usual failure is a single one. And attempts since the last that got beyond every step
reached before: steps that only repeat lost ones are work, but no progress, so after thirty such
attempts the job slows down as well. A program that tells no steps makes progress by lasting.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.times import parse_time, whole_seconds
from inception_operator.contract.types import Json

FREE_FAILURES: Final = 2
FREE_REPEATS: Final = 30
LONGEST: Final = 60
# Ten times the longest wait: at most a tenth of the time is lost to waiting.
LASTING: Final = timedelta(minutes=10)
KEYS: Final = ("failuresInARow", "furthest", "nextAttemptTime")


def delay(failures: int) -> int:
    """Seconds to wait after so many failures in a row."""
    doublings = failures - FREE_FAILURES - 1
    if doublings < 0:
        return 0
    # A job may fail without end; the power of two must not grow with it.
    return min(LONGEST, 1 << min(doublings, 10))


@dataclass(frozen=True)
class Streak:
    """Failures in a row, the furthest step of all attempts, and the last attempt that made
    progress.
    """

    failures: int = 0
    attempt: int = 0
    step: int = 0

    @staticmethod
    def of(status: Json) -> Streak:
        """What a status says."""
        furthest = status.get("furthest") or {}
        return Streak(
            failures=int(status.get("failuresInARow") or 0),
            attempt=int(furthest.get("attempt") or 0),
            step=int(furthest.get("step") or 0),
        )

    def after(self, attempt: int, reached: int, ran: timedelta, *, failed: bool = True) -> Streak:
        """The streak once this attempt has ended; it ``ran`` so long and ``reached`` that step, 0
        for none.
        """
        lasted = ran >= LASTING
        progressed = lasted or reached > self.step or not self.attempt
        return Streak(
            failures=(0 if reached or lasted else self.failures) + failed,
            attempt=attempt if progressed else self.attempt,
            step=max(reached, self.step),
        )

    def seconds(self, attempt: int) -> int:
        """The wait between this attempt, which has failed, and the next."""
        return max(delay(self.failures), delay(self._repeats(attempt)))

    def explain(self, following: int) -> str:
        """Why the following attempt does not begin at once; the same text as long as it waits."""
        seconds = self.seconds(following - 1)
        text = f"{self.failures} failures in a row without a step"
        if seconds > delay(self.failures):
            # It is the repeats that ask for the longer pause.
            text = f"no attempt since {self.attempt} got beyond step {self.step}"
        return f"waiting {seconds} s before attempt {following}: {text}"

    def not_before(self, attempt: int, now: datetime) -> datetime | None:
        """When the next attempt may begin once this one has failed; None means at once."""
        seconds = self.seconds(attempt)
        if not seconds:
            return None
        # The status has whole seconds; rounded up, so that the pause is never shorter than said.
        return whole_seconds(now) + timedelta(seconds=seconds + bool(now.microsecond))

    def to_status(self) -> Json:
        """The fields of the status that `of` reads."""
        return {
            "failuresInARow": self.failures,
            "furthest": {"attempt": self.attempt, "step": self.step},
        }

    def _repeats(self, attempt: int) -> int:
        """Attempts without progress, as a number of failures with the same pause."""
        return attempt - self.attempt - FREE_REPEATS + FREE_FAILURES


def remaining(status: Json, now: datetime) -> float:
    """Seconds until the next attempt may begin, 0 when nothing waits."""
    due = parse_time(status.get("nextAttemptTime"))
    if due is None:
        return 0.0
    return max(0.0, (due - now).total_seconds())
