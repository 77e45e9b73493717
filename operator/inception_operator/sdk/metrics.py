"""The figures in the lines of the bundled trainer's log. Pure.

Rank 0 writes them: a line every few steps, and one after each validation. They have fewer digits
than the files of the run, but every pod that exists has them, and nothing else is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from inception_operator.client.pod_logs import Line

from .views import time_of

_NUMBER: Final = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|-?inf)"
_HEAD: Final = r"\d\d:\d\d:\d\d \[(?:\S+ )?attempt (?P<attempt>\d{1,9}) rank 0\] "
_TRAINING: Final = re.compile(
    _HEAD
    + r"epoch (?P<epoch>\d{1,9})/\d+ step (?P<step>\d{1,18})/\d+ \d+ % "
    + rf"loss (?P<loss>{_NUMBER}) top-1 (?P<top1>{_NUMBER}) % "
    + rf"lr (?P<rate>{_NUMBER}) (?P<speed>{_NUMBER}) img/s "
)
_VALIDATION: Final = re.compile(
    _HEAD
    + r"step (?P<step>\d{1,18}): validation "
    + rf"top-1 (?P<top1>{_NUMBER}) %, top-5 (?P<top5>{_NUMBER}) %, loss (?P<loss>{_NUMBER}) over "
)


@dataclass(frozen=True)
class Metric:
    """Figures at one step: of training, or of a validation after it."""

    time: datetime
    attempt: int
    step: int
    epoch: int | None = None
    """Counted from 1."""
    loss: float | None = None
    accuracy_top1: float | None = None
    """From 0 to 1, on what was trained on."""
    learning_rate: float | None = None
    images_per_second: float | None = None
    validation_loss: float | None = None
    validation_top1: float | None = None
    """From 0 to 1."""
    validation_top5: float | None = None


def metric_of(line: Line) -> Metric | None:
    """The figures in a line; None when it has none."""
    if found := _TRAINING.match(line.text):
        return Metric(
            time=time_of(line),
            attempt=int(found["attempt"]),
            step=int(found["step"]),
            epoch=int(found["epoch"]),
            loss=float(found["loss"]),
            accuracy_top1=_ratio(found["top1"]),
            learning_rate=float(found["rate"]),
            images_per_second=float(found["speed"]),
        )
    if found := _VALIDATION.match(line.text):
        return Metric(
            time=time_of(line),
            attempt=int(found["attempt"]),
            step=int(found["step"]),
            validation_loss=float(found["loss"]),
            validation_top1=_ratio(found["top1"]),
            validation_top5=_ratio(found["top5"]),
        )
    return None


def _ratio(percentage: str) -> float:
    return float(percentage) / 100
