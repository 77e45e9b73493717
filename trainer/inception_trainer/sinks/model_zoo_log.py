"""The files that ``BENCHMARK_LOG`` and ``AVG_LOG`` name: a line of JSON per run, with the keys of a
model zoo.

Tools that read such a file as one object need a file per run.
"""

from __future__ import annotations

import json
import time
from typing import Any

from inception_trainer.log import logger
from inception_trainer.reporting.records import EndRecord, Sink
from inception_trainer.stores import Remote, place


class BenchmarkLog(Sink):
    """Appends the figures of mode Benchmark."""

    def __init__(self, path: str) -> None:
        self._path = path

    def end(self, record: EndRecord) -> None:
        """Append :func:`measured`."""
        if record.finished:
            append("BENCHMARK_LOG", self._path, measured(record.summary, time.time()))


class AccuracyLog(Sink):
    """Appends the accuracies of modes Train and Evaluate."""

    def __init__(self, path: str) -> None:
        self._path = path

    def end(self, record: EndRecord) -> None:
        """Append ``[top1, top5]`` in percent, those of the last evaluation."""
        if record.finished:
            names = ("accuracyTop1", "accuracyTop5")
            append("AVG_LOG", self._path, [round(100 * record.summary[name], 4) for name in names])


def measured(summary: dict[str, Any], now: float) -> dict[str, Any]:
    """What the summary of mode Benchmark says, under the names and with the words used there.

    Times are seconds of a step, throughput is images/s over all cards; ``now`` is Unix time, the
    date is in UTC.
    """
    cards = summary["worldSize"]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)),
        "net": summary["model"],
        "batch_size": summary["batchPerDevice"] * summary["microBatches"],
        "cards": cards,
        "precision": "fp32" if summary["precision"] == "FP32" else "amp",
        "DPF_mode": "ddp" if cards > 1 else "single",
        "batch_time_avg": summary["stepSeconds"],
        "batch_time_var": summary["stepSecondsVariance"],
        "hardware_time_avg": summary["computeSeconds"],
        "hardware_time_var": summary["computeSecondsVariance"],
        "throughput": summary["imagesPerSecond"],
        "device": summary["deviceName"],
        "dataset": summary["dataKind"],
    }


def append(variable: str, name: str, content: Any) -> None:
    """Add a line to the file ``name``; where that is not possible, warn and name the ``variable``."""
    path = place(name)
    if isinstance(path, Remote):
        logger.warning(
            "%s: %s is not written, nothing can be added to a file in a store; name a path",
            variable,
            name,
        )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(content)}\n")
    except OSError as error:
        logger.warning("%s: %s cannot be written: %s", variable, name, error.strerror or error)
