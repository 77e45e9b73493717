"""Progress of a job over all its attempts: the plain-data half of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_ROWS = 2000
"""Longer curves are thinned to every other point: a picture cannot show more."""

Row = list[float]
"""One point of a curve; the first value is the step."""


@dataclass
class History:
    """The curves of a job, accuracies from 0 to 1.

    Rows of ``train`` are [step, loss, top-1, learning rate, images/s], those of ``evaluations``
    [step, loss, top-1, top-5].
    """

    train: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    """Steps from which an attempt after the first continued."""

    def add_train(self, row: Row) -> None:
        """Append a row to ``train``, which is thinned when it has become too long."""
        self.train.append(row)
        if len(self.train) > MOST_ROWS:
            # The checkpoint holds the curve, so without a limit it would grow with the job.
            self.train = self.train[::2]


@dataclass
class Progress:
    """How far a job is, and what it has measured.

    Exact over restarts: written with every checkpoint, never derived from a clock of one process.
    """

    step: int = 0
    """Optimizer steps done."""
    samples_seen: int = 0
    """Training samples consumed, over all epochs and ranks."""
    skipped_samples: int = 0
    """Unreadable ones among them."""
    skipped_steps: int = 0
    """Steps whose FP16 gradients overflowed, so that they changed nothing."""
    repeated_steps: int = 0
    """Steps that a restart had to do again, as far as the ranks know."""
    evaluated_step: int = -1
    """The step of the last evaluation, -1 before the first."""
    accuracy_top1: float = 0.0
    accuracy_top5: float = 0.0
    loss: float = 0.0
    """Of the last evaluation, as the accuracies (0 to 1)."""
    raw_accuracy_top1: float | None = None
    """Of the last evaluation of the network itself, beside that of its average."""
    best_accuracy: float = -1.0
    best_step: int = -1
    wall_seconds: float = 0.0
    train_seconds: float = 0.0
    train_samples: int = 0
    """Time and samples of the log intervals that count as warmed up: their ratio is the speed."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The result, once the job is finished."""
    history: History = field(default_factory=History)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint, which later changes of this object leave alone."""
        # The writer thread reads it while training goes on. Rows are never changed, so only their
        # lists are copied: dataclasses.asdict would copy thousands of rows.
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        curves = {
            field.name: list(getattr(self.history, field.name))
            for field in dataclasses.fields(History)
        }
        return {**plain, "summary": dict(self.summary), "history": curves}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Progress:
        """The progress in a checkpoint.

        Keys of another version are dropped, missing ones get their default.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in fields}
        history = History(**data.get("history", {}))
        return cls(**{**values, "history": history})

    @property
    def images_per_second(self) -> float:
        """Global training speed over all attempts, without warm-up; 0 when nothing was measured."""
        return self.train_samples / self.train_seconds if self.train_seconds > 0 else 0.0
