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

from inception_operator.contract.times import format_time, parse_time, whole_seconds
from inception_operator.contract.types import Json

FREE_FAILURES: Final = 2
FREE_REPEATS: Final = 30
LONGEST: Final = 60
LASTING: Final = timedelta(minutes=10)
"""Ten times the longest wait: at most a tenth of the time is lost to waiting."""
KEYS: Final = ("failuresInARow", "furthest", "nextAttemptTime")


def delay(failures: int) -> int:
    """Seconds to wait after so many failures in a row."""
    doublings = failures - FREE_FAILURES - 1
    return 0 if doublings < 0 else min(LONGEST, 2 ** min(doublings, 10))


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
            int(status.get("failuresInARow") or 0),
            int(furthest.get("attempt") or 0),
            int(furthest.get("step") or 0),
        )

    def after(self, attempt: int, reached: int, ran: timedelta) -> Streak:
        """The streak once this attempt has failed; it ``ran`` so long and ``reached`` that step, 0
        for none.
        """
        lasted = ran >= LASTING
        failures = 1 if reached or lasted else self.failures + 1
        progress = lasted or reached > self.step or not self.attempt
        return Streak(failures, attempt if progress else self.attempt, max(reached, self.step))

    def seconds(self, attempt: int) -> int:
        """The wait between this attempt, which has failed, and the next."""
        return max(delay(self.failures), delay(self._repeats(attempt)))

    def explain(self, following: int) -> str:
        """Why the following attempt does not begin at once; the same text as long as it waits."""
        seconds = self.seconds(following - 1)
        text = f"{self.failures} failures in a row without a step"
        if seconds > delay(self.failures):
            text = f"no attempt since {self.attempt} got beyond step {self.step}"
        return f"waiting {seconds} s before attempt {following}: {text}"

    def to_status(self, attempt: int, now: datetime) -> Json:
        """The fields of the status once this attempt has failed; no ``nextAttemptTime`` means at
        once.
        """
        seconds = self.seconds(attempt)
        # Rounded up to the whole seconds of the status.
        due = whole_seconds(now) + timedelta(seconds=seconds + bool(now.microsecond))
        fields: Json = {
            "failuresInARow": self.failures,
            "furthest": {"attempt": self.attempt, "step": self.step},
        }
        return fields | {"nextAttemptTime": format_time(due)} if seconds else fields

    def _repeats(self, attempt: int) -> int:
        return attempt - self.attempt - FREE_REPEATS + FREE_FAILURES


def remaining(status: Json, now: datetime) -> float:
    """Seconds until the next attempt may begin, 0 when nothing waits."""
    due = parse_time(status.get("nextAttemptTime"))
    return 0.0 if due is None else max(0.0, (due - now).total_seconds())
