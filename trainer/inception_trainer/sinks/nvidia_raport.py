"""raport.json as NVIDIA's DeepLearningExamples write it: lines of ``DLLL `` and a JSON object
(RECIPES 14.1).
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
)

from .dllogger_lines import Lines

SECONDS, SPEED, PERCENT, NUMBER = ("s", ":.5f"), ("img/s", ":.2f"), ("%", ":.2f"), (None, ":.5f")
METRICS = {
    "train.loss": NUMBER,
    "train.lr": NUMBER,
    "train.grad_scale": NUMBER,
    "train.compute_ips": SPEED,
    "train.total_ips": SPEED,
    "train.data_time": SECONDS,
    "train.compute_time": SECONDS,
    "val.top1": PERCENT,
    "val.top5": PERCENT,
    "val.loss": NUMBER,
    "val.compute_ips": SPEED,
    "val.total_ips": SPEED,
    "val.data_time": SECONDS,
    "val.compute_latency": SECONDS,
    "val.compute_latency_at95": SECONDS,
    "val.compute_latency_at99": SECONDS,
    "val.compute_latency_at100": SECONDS,
}
"""Unit and format of every metric."""
LAST = ("train.lr", "train.grad_scale")
"""Metrics of which an epoch keeps the last value; of the others it keeps the mean."""
Values = dict[str, float]


class Raport(Sink):
    """Appends, so that the file covers all attempts."""

    def __init__(self, output: Path) -> None:
        self._lines = Lines(output / "raport.json", "DLLL")
        self._steps_per_epoch = 1
        self._epoch = 0
        self._logged: list[Values] = []

    def start(self, info: RunInfo) -> None:
        """Write units and parameters."""
        self._steps_per_epoch = info.steps_per_epoch
        self._lines.open()
        for metric, (unit, form) in METRICS.items():
            self._lines.metadata(metric, {"unit": unit, "format": form})
        self._lines.log(
            "PARAMETER", {"attempt": info.attempt, "world_size": info.world_size, **info.config}
        )

    def log(self, record: LogRecord) -> None:
        """One line per log interval; step is [epoch, iteration]."""
        epoch, iteration = divmod(record.step - 1, self._steps_per_epoch)
        if epoch != self._epoch:
            self._summarise()
        self._epoch = epoch
        values = training(record)
        self._logged.append(values)
        self._lines.log([epoch, iteration], values)

    def evaluation(self, record: EvaluationRecord) -> None:
        """One epoch summary, of training and validation."""
        self._epoch = (record.step - 1) // self._steps_per_epoch
        self._summarise(validation(record))

    def end(self, record: EndRecord) -> None:
        """The run summary; its step is []. The best, not the last, as there."""
        self._summarise()
        if record.finished:
            summary, evaluations = record.summary, record.history.evaluations
            data = {
                "val.top1": 100 * max([summary["accuracyTop1"], *(row[2] for row in evaluations)]),
                "val.top5": 100 * max([summary["accuracyTop5"], *(row[3] for row in evaluations)]),
                "val.loss": summary["loss"],
                "train.total_ips": summary["imagesPerSecond"],
            }
            losses = [row[1] for row in record.history.train]
            self._lines.log([], data | ({"train.loss": min(losses)} if losses else {}))

    def _summarise(self, measured: Values | None = None) -> None:
        """What was ``measured``, beside the training figures of the epoch over the log intervals of
        this attempt.
        """
        rows, self._logged = self._logged, []
        values = dict(measured or {})
        if rows:
            values |= {name: statistics.fmean(row[name] for row in rows) for name in rows[-1]}
            values |= {name: rows[-1][name] for name in LAST if name in rows[-1]}
        if values:
            self._lines.log([self._epoch], values)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def training(record: LogRecord) -> Values:
    """The figures of one log interval."""
    data_time = record.step_seconds * record.data_wait_ratio
    compute_time = record.step_seconds - data_time
    scale = {} if record.loss_scale is None else {"train.grad_scale": record.loss_scale}
    return {
        "train.loss": record.loss,
        "train.lr": record.learning_rate,
        **scale,
        "train.total_ips": record.images_per_second,
        "train.compute_ips": record.images_per_second
        * record.step_seconds
        / max(compute_time, 1e-9),
        "train.data_time": data_time,
        "train.compute_time": compute_time,
    }


def validation(record: EvaluationRecord) -> Values:
    """The figures of one evaluation; accuracies in percent as there, latencies per batch of this
    rank.
    """
    values = {
        "val.top1": 100 * record.accuracy_top1,
        "val.top5": 100 * record.accuracy_top5,
        "val.loss": record.loss,
        "val.total_ips": record.samples / max(record.seconds, 1e-9),
        "val.compute_ips": record.samples / max(record.seconds - record.data_seconds, 1e-9),
    }
    times = sorted(record.batch_seconds)
    if not times:
        return values
    return values | {
        "val.data_time": record.data_seconds / len(times),
        "val.compute_latency": statistics.fmean(times),
        **{f"val.compute_latency_at{share}": at_share(times, share) for share in (95, 99, 100)},
    }


def at_share(ordered: list[float], percent: int) -> float:
    """The smallest value that ``percent`` of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
