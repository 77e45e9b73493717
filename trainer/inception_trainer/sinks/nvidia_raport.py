"""raport.json as NVIDIA's DeepLearningExamples write it: lines of ``DLLL `` and a JSON object.

The spelling of the name is theirs, and their tools look for it.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from typing_extensions import override

from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
)

from .dllogger_lines import DLLoggerLines

SECONDS = ("s", ":.5f")
SPEED = ("img/s", ":.2f")
PERCENT = ("%", ":.2f")
NUMBER = (None, ":.5f")
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
"""Values of metrics by their names."""


class NvidiaRaport(Sink):
    """Writes raport.json, which covers all attempts."""

    def __init__(self, output: Path) -> None:
        self._lines = DLLoggerLines(output / "raport.json", "DLLL")
        self._steps_per_epoch = 1
        self._epoch = 0
        self._logged: list[Values] = []
        """The figures of the log intervals of this epoch."""

    @override
    def start(self, info: RunInfo) -> None:
        """Open the file and write units and parameters."""
        self._steps_per_epoch = info.steps_per_epoch
        self._lines.open()
        for metric, (unit, number_format) in METRICS.items():
            self._lines.metadata(metric, {"unit": unit, "format": number_format})
        parameters = {"attempt": info.attempt, "world_size": info.world_size, **info.config}
        self._lines.log("PARAMETER", parameters)

    @override
    def log(self, record: LogRecord) -> None:
        """Write one line per log interval; its step is [epoch, iteration]."""
        epoch, iteration = divmod(record.step - 1, self._steps_per_epoch)
        if epoch != self._epoch:
            # An epoch without an evaluation.
            self._summarise()
        self._epoch = epoch
        values = training_values(record)
        self._logged.append(values)
        self._lines.log([epoch, iteration], values)

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        """Write one summary of the epoch, of training and validation."""
        self._epoch = (record.step - 1) // self._steps_per_epoch
        self._summarise(validation_values(record))

    @override
    def end(self, record: EndRecord) -> None:
        """Write the summary of the run, whose step is []: the best values, not the last."""
        self._summarise()
        if not record.finished:
            return
        summary = record.summary
        evaluations = record.history.evaluations
        # The summary's own, too: without an evaluation there would be no largest value.
        top1 = [summary["accuracyTop1"], *(row[2] for row in evaluations)]
        top5 = [summary["accuracyTop5"], *(row[3] for row in evaluations)]
        values = {
            "val.top1": 100 * max(top1),
            "val.top5": 100 * max(top5),
            "val.loss": summary["loss"],
            "train.total_ips": summary["imagesPerSecond"],
        }
        if record.history.train:
            values["train.loss"] = min(row[1] for row in record.history.train)
        self._lines.log([], values)

    def _summarise(self, validation: Values | None = None) -> None:
        """Write a line for the epoch: of training, over this attempt's log intervals, and of the
        ``validation``.
        """
        rows = self._logged
        self._logged = []
        values = dict(validation or {})
        if rows:
            values |= {name: statistics.fmean(row[name] for row in rows) for name in rows[-1]}
            values |= {name: rows[-1][name] for name in LAST if name in rows[-1]}
        if values:
            self._lines.log([self._epoch], values)

    @override
    def close(self) -> None:
        self._lines.close()


def training_values(record: LogRecord) -> Values:
    """The figures of one log interval; times are seconds of a step."""
    data_time = record.step_seconds * record.data_wait_ratio
    compute_time = record.step_seconds - data_time
    # Their "compute" speed is that of a run whose data is always there.
    compute_speed = record.images_per_second * record.step_seconds / max(compute_time, 1e-9)
    values = {"train.loss": record.loss, "train.lr": record.learning_rate}
    if record.loss_scale is not None:
        values["train.grad_scale"] = record.loss_scale
    return values | {
        "train.total_ips": record.images_per_second,
        "train.compute_ips": compute_speed,
        "train.data_time": data_time,
        "train.compute_time": compute_time,
    }


def validation_values(record: EvaluationRecord) -> Values:
    """The figures of one evaluation: accuracies in percent, seconds per batch of this rank."""
    values = {
        "val.top1": 100 * record.accuracy_top1,
        "val.top5": 100 * record.accuracy_top5,
        "val.loss": record.loss,
        "val.total_ips": record.samples / max(record.seconds, 1e-9),
        "val.compute_ips": record.samples / max(record.seconds - record.data_seconds, 1e-9),
    }
    times = sorted(record.batch_seconds)
    # A rank whose part of the validation set is empty has no batch.
    if not times:
        return values
    values["val.data_time"] = record.data_seconds / len(times)
    values["val.compute_latency"] = statistics.fmean(times)
    for percent in (95, 99, 100):
        values[f"val.compute_latency_at{percent}"] = percentile(times, percent)
    return values


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest value that ``percent`` % of the ``ordered`` ones do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
