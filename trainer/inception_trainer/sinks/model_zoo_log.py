"""The files that ``BENCHMARK_LOG`` and ``AVG_LOG`` name: results for the scripts of a model zoo.

One line of JSON per run is added. Tools that read such a file as one object need a file per run.
"""

from __future__ import annotations

import json
import time
from typing import Any

from typing_extensions import override

from inception_trainer.log import logger
from inception_trainer.reporting.outputs import append_lines
from inception_trainer.reporting.records import EndRecord, Sink
from inception_trainer.stores import Remote, place


class BenchmarkLog(Sink):
    """Appends the figures of mode Benchmark."""

    def __init__(self, path: str) -> None:
        self._path = path

    @override
    def end(self, record: EndRecord) -> None:
        if record.finished:
            append("BENCHMARK_LOG", self._path, benchmark_figures(record.summary, time.time()))


class AccuracyLog(Sink):
    """Appends the accuracies of modes Train and Evaluate."""

    def __init__(self, path: str) -> None:
        self._path = path

    @override
    def end(self, record: EndRecord) -> None:
        """Append ``[top1, top5]`` in percent, those of the last evaluation."""
        if record.finished:
            top1 = round(100 * record.summary["accuracyTop1"], 4)
            top5 = round(100 * record.summary["accuracyTop5"], 4)
            append("AVG_LOG", self._path, [top1, top5])


def benchmark_figures(summary: dict[str, Any], now: float) -> dict[str, Any]:
    """The figures of mode Benchmark's summary, under the zoo's names and with its words.

    Times are seconds of a step, throughput is images/s over all cards; ``now`` is Unix time, the
    date is in UTC.
    """
    cards = summary["worldSize"]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)),
        "net": summary["model"],
        "batch_size": summary["batchPerDevice"] * summary["microBatches"],
        "cards": cards,
        "precision": "fp32" if summary["precision"] in ("FP32", "TF32") else "amp",
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
    """Add a line to the file ``name``; where that is not possible, warn and name the ``variable``.

    No error: the result is in summary.json, too.
    """
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
        with append_lines(path) as file:
            file.write(f"{json.dumps(content)}\n")
    except OSError as error:
        logger.warning("%s: %s cannot be written: %s", variable, name, error.strerror or error)
