"""One training that is disturbed again and again: waits until it runs, has it hurt, waits until it
does something new, and writes down what that took.
"""

from __future__ import annotations

import abc
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.recovery_records import Recovery, StepBook, StepRecord

T = TypeVar("T")
LOOK_SECONDS = 0.02
RUNNING_SECONDS = 900.0
"""How long a training may take to get as far as the next disturbance."""
RESERVE_STEPS = 5
"""No disturbance so close to the end that the training could be over before it shows."""
STEPS_UNNOTICED, STEPS_OF_A_SPARE = 15, 75
"""What a disturbance costs of the steps of a training, at most."""
Say = Callable[[str], None]


class DidNotComeError(Exception):
    """What a training was to do did not happen in time."""


@dataclass(frozen=True)
class Trial:
    """One disturbance. Moments are seconds after it, None where they were not seen."""

    kind: str
    rank: int
    """Of the member that was hurt."""
    detected: float | None = None
    decided: float | None = None
    assigned: float | None = None
    read: float | None = None
    """All launchers have read their assignment."""
    begun: float | None = None
    """All ranks run."""
    first_step: float | None = None
    first_new_step: float | None = None
    repeated_steps: int | None = None
    skipped_steps: int | None = None
    attempts: int | None = None
    """Attempts begun until the first new step, 1 if the next one got so far."""

    @property
    def recovered(self) -> bool:
        """Whether the training did anything new afterwards, in the time that it had."""
        return self.first_new_step is not None


@dataclass(frozen=True)
class Plan:
    """How often a training is disturbed, and how far apart."""

    gaps: Sequence[int]
    """New steps before each disturbance."""
    patience: float
    """Seconds that one recovery may take."""

    @classmethod
    def drawn(cls, trials: int, between: int, seed: int, patience: float) -> Plan:
        """A plan whose gaps are ``between`` steps on the average, the same for the same seed."""
        dice = random.Random(seed)  # noqa: S311
        return cls([dice.randint(1, 2 * between - 1) for _ in range(trials)], patience)

    def steps(self, *, spare: bool = False) -> int:
        """How long a training must be for all of it. Each disturbance takes some steps more: those
        until it is noticed, and with a ``spare`` those until there is a new one.
        """
        more = STEPS_OF_A_SPARE if spare else STEPS_UNNOTICED
        return 20 + sum(self.gaps) + more * len(self.gaps)


class Training(abc.ABC):
    """A training under observation."""

    def __init__(self, ranks: int, steps: int, say: Say) -> None:
        self.ranks = ranks
        self.steps = steps
        self.book = StepBook()
        self.say = say
        self.trials: list[Trial] = []
        """All measured disturbances so far."""

    @abc.abstractmethod
    def drain(self) -> Iterable[StepRecord]:
        """Steps that have been seen since the last call."""

    @abc.abstractmethod
    def look(self) -> None:
        """Take note of everything else that has happened; raises when the training has failed."""

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Whether all is there that a disturbance needs."""

    @abc.abstractmethod
    def disturb(self, kind: str, rank: int, patience: float) -> Trial:
        """Hurt the member of this rank and wait for the recovery."""

    @abc.abstractmethod
    def story(self) -> str:
        """What to show when something did not come."""

    def run_trials(self, kind: str, plan: Plan, *, relief: str | None = None) -> None:
        """Disturb the training as planned, each time another rank."""
        dice = random.Random(len(plan.gaps))  # noqa: S311
        for number, gap in enumerate(plan.gaps):
            if self.book.furthest() + gap > self.steps - RESERVE_STEPS:
                self.say(f"{kind}: too few steps are left after {number} of {len(plan.gaps)}")
                break
            self._run_on(gap)
            # Disturbances must hit every phase of a step.
            time.sleep(dice.uniform(0, self.book.step_seconds()))
            self.trials.append(self.disturb(kind, number % self.ranks, plan.patience))
            self.say(f"{kind} {number + 1}/{len(plan.gaps)}: {self.trials[-1]}")
            if relief is not None:
                self._run_on(1)
                self.disturb(relief, number % self.ranks, plan.patience)

    def update(self) -> None:
        """Look at everything, the steps last."""
        self.look()
        for record in self.drain():
            self.book.add(record)

    def wait(self, what: str, found: Callable[[], T | None], seconds: float) -> T:
        """The first answer of ``found`` that is not None; DidNotComeError after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            self.update()
            answer = found()
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                raise DidNotComeError(f"{what}: not within {seconds:.0f} s\n{self.story()}")
            time.sleep(LOOK_SECONDS)

    def recovery(self, attempt: int, patience: float) -> Recovery | None:
        """How the training came back from a disturbance of this attempt; None if it did not."""
        try:
            return self.wait(
                "a new step", lambda: self.book.recovery(attempt, self.ranks), patience
            )
        except DidNotComeError:
            return None

    def wait_steps(self, count: int) -> None:
        """Until the furthest step of any rank is so far."""
        self.wait(f"step {count}", lambda: self.book.furthest() >= count or None, RUNNING_SECONDS)

    def _run_on(self, gap: int) -> None:
        """Let so many new steps pass, and whatever was replaced come back."""
        self.wait_steps(self.book.furthest() + gap)
        self.wait("all members", lambda: self.is_ready() or None, RUNNING_SECONDS)


@dataclass
class Result:
    """All trials of one kind, and whether the training ended as one that nobody disturbed."""

    title: str
    kind: str
    trials: list[Trial]
    samples_exact: bool | None = None
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    """As recovery_compare counts them; empty where no undisturbed training was made."""
    step_seconds: float = 0.0
    failure: str | None = None
    """Why the training did not get to its end."""

    @property
    def parameters_equal(self) -> bool | None:
        """Whether parameters and the optimizer's state have the same bits; None if not compared."""
        if not self.differences:
            return None
        return not any(self.differences[name]["differ"] for name in ("parameters", "optimizer"))

    @property
    def is_well(self) -> bool:
        """Whether nothing was lost and nothing done wrongly."""
        return (
            self.failure is None
            and self.samples_exact is not False
            and self.parameters_equal is not False
            and all(trial.recovered and not trial.skipped_steps for trial in self.trials)
        )
