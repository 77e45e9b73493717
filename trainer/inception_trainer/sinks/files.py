"""Small files that other programs read: the launcher's progress file, summary.json, config.yaml.

Each is replaced as a whole, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from inception_trainer.checkpoint.base import SaveRecord
from inception_trainer.reporting.outputs import replace_file
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
    StepRecord,
)

LEAST_SECONDS = 1.0
"""Least time between two writes of the progress file, in seconds."""


class ProgressFile(Sink):
    """``{"step", "metrics", "time"}`` for the launcher, which reports it to the operator.

    The first step and the end are never held back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = 0.0
        self._metrics: dict[str, Any] = {}
        self._total_steps = 1
        self._steps_per_epoch = 1

    @override
    def start(self, info: RunInfo) -> None:
        self._total_steps = info.total_steps
        self._steps_per_epoch = info.steps_per_epoch
        self._metrics["repeatedSteps"] = info.repeated_steps
        # The status of the job must not lose the accuracy that an earlier attempt has measured.
        if info.evaluated is not None:
            top1, top5 = info.evaluated
            self._metrics |= {"accuracyTop1": top1, "accuracyTop5": top5}

    @override
    def step(self, record: StepRecord) -> None:
        """Write, unless the last write is younger than a second."""
        # Steps of small networks take milliseconds; nobody needs the figures that often.
        if time.monotonic() - self._written_at >= LEAST_SECONDS:
            self._metrics |= {
                "progress": round(record.step / self._total_steps, 6),
                "epoch": record.step // self._steps_per_epoch,
                "samplesSeen": record.samples_seen,
            }
            self._write(record.step)

    @override
    def log(self, record: LogRecord) -> None:
        """Take the figures; the next step writes them."""
        self._metrics |= {
            "loss": record.loss,
            "samplesPerSecond": round(record.images_per_second, 3),
            "estimatedRemainingSeconds": round(record.remaining_seconds, 1),
        }

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        """Take the accuracy and write at once: the next may be an epoch away."""
        self._metrics |= {
            "accuracyTop1": record.accuracy_top1,
            "accuracyTop5": record.accuracy_top5,
        }
        self._write(record.step)

    @override
    def checkpoint(self, record: SaveRecord) -> None:
        """Take the time; the next step writes it."""
        # Not written here: this is the writer thread, and a draft has one name per process.
        self._metrics["lastCheckpointTime"] = datetime.now(UTC).isoformat(timespec="milliseconds")

    @override
    def end(self, record: EndRecord) -> None:
        summary = record.summary
        self._metrics |= {
            "progress": round(summary["steps"] / self._total_steps, 6),
            "epoch": summary["steps"] // self._steps_per_epoch,
            "samplesSeen": summary["samplesSeen"],
        }
        if record.finished:
            self._metrics |= {"progress": 1.0, "estimatedRemainingSeconds": 0.0}
        if summary["evaluatedStep"] >= 0:
            self._metrics |= {
                "accuracyTop1": summary["accuracyTop1"],
                "accuracyTop5": summary["accuracyTop5"],
            }
        self._write(summary["steps"])

    def _write(self, step: int) -> None:
        self._written_at = time.monotonic()
        content = {
            "step": step,
            # A copy: the writer thread may add a key while the JSON is made.
            "metrics": dict(self._metrics),
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        replace_file(self._path, json.dumps(content))


class Summary(Sink):
    """``summary.json`` with the final figures, ``config.yaml`` with every default filled in."""

    def __init__(self, output: Path) -> None:
        self._output = output

    @override
    def start(self, info: RunInfo) -> None:
        self._output.mkdir(parents=True, exist_ok=True)
        replace_file(self._output / "config.yaml", yaml.safe_dump(info.config, sort_keys=False))

    @override
    def end(self, record: EndRecord) -> None:
        replace_file(self._output / "summary.json", json.dumps(record.summary, indent=2) + "\n")
