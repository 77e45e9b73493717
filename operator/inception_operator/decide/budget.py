"""How many restarts a job has left: ``failurePolicy.maxRestarts`` that count, until it gets on.

A count over the whole life ends every training that lasts long enough. A count within a window of
time never ends one whose attempts fail slowly, each at the same step. So the count goes back to 0
once attempts have trained for ``failurePolicy.resetAfterSeconds`` beyond the furthest step before
them, counted from the latest restart that counts. Of a program that never tells a step, an attempt
that lasts is all the progress there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from inception_operator.contract.types import Json

from .backoff import Streak

PROGRESS: Final = "progressSeconds"
NON_FINITE: Final = "nonFiniteStep"
KEYS: Final = ("restarts", "restartsCountTowardsMax", PROGRESS, NON_FINITE)


@dataclass(frozen=True)
class Budget:
    """What the spec allows: ``limit`` restarts that count, and after how many seconds of progress
    none of them counts any more.

    ``tells_steps`` says that attempts of this job are known to tell how far they have got.
    """

    limit: int
    reset_after: int
    tells_steps: bool = True

    def gets_on(self, streak: Streak, reached: int) -> bool:
        """Whether an attempt that has reached this step, 0 for none, makes progress; ``streak`` is
        what was known before it.
        """
        if self.tells_steps or reached or streak.step:
            return reached > streak.step
        return True


@dataclass(frozen=True)
class Counters:
    """What the status counts: all restarts, those that count towards the limit, the seconds of
    progress since the latest of these, and the failures in a row that the pause depends on.

    ``non_finite_step`` is the step at which the loss was last no number, None for none.
    """

    restarts: int = 0
    counted: int = 0
    progress: int = 0
    non_finite_step: int | None = None
    streak: Streak = field(default_factory=Streak)

    @staticmethod
    def of(status: Json) -> Counters:
        """What a status says."""
        step = status.get(NON_FINITE)
        return Counters(
            restarts=int(status.get("restarts") or 0),
            counted=int(status.get("restartsCountTowardsMax") or 0),
            progress=int(status.get(PROGRESS) or 0),
            non_finite_step=None if step is None else int(step),
            streak=Streak.of(status),
        )

    def to_status(self) -> Json:
        """The fields of the status that `of` reads; what is not there is to be removed."""
        fields: Json = {
            "restarts": self.restarts,
            "restartsCountTowardsMax": self.counted,
            **self.streak.to_status(),
        }
        if self.progress:
            fields[PROGRESS] = self.progress
        if self.non_finite_step is not None:
            fields[NON_FINITE] = self.non_finite_step
        return fields

    def seconds_of_progress(self, budget: Budget, reached: int, ran: timedelta) -> int:
        """Since the latest restart that counts, with an attempt that has reached this step and has
        run so long.
        """
        if not budget.gets_on(self.streak, reached):
            return self.progress
        return self.progress + max(0, int(ran.total_seconds()))

    def after_progress(self, budget: Budget, reached: int, ran: timedelta) -> Counters:
        """With what an attempt has achieved, at its end."""
        seconds = self.seconds_of_progress(budget, reached, ran)
        if seconds >= budget.reset_after:
            return replace(self, counted=0, progress=0)
        return replace(self, progress=seconds)

    def after_end(self, budget: Budget, attempt: int, reached: int, ran: timedelta) -> Counters:
        """With an attempt that has ended without a failure."""
        counters = self.after_progress(budget, reached, ran)
        return replace(counters, streak=self.streak.after(attempt, reached, ran, failed=False))

    def after_restart(self, counted: bool, streak: Streak) -> Counters:
        """With one more restart."""
        return replace(
            self,
            restarts=self.restarts + 1,
            counted=self.counted + counted,
            progress=0 if counted else self.progress,
            streak=streak,
        )
