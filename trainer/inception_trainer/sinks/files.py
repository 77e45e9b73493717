"""Small files that other programs read: the launcher's progress file, summary.json, config.yaml."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from inception_trainer.checkpoint.base import SaveRecord
from inception_trainer.reporting.outputs import replacing
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
    StepRecord,
)

LEAST_SECONDS = 1.0
"""Between two writes of the progress file."""


def replace_file(path: Path, text: str) -> None:
    """Write a small file as :func:`replacing` does."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


class ProgressFile(Sink):
    """``{"step", "metrics", "time"}`` for the launcher's report; the first step and the end are
    never held back.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, 0.0
        self._metrics: dict[str, Any] = {}
        self._total = 1
        self._steps_per_epoch = 1

    def start(self, info: RunInfo) -> None:
        """Remember the lengths, and the accuracy of an earlier attempt."""
        self._total, self._steps_per_epoch = info.total_steps, info.steps_per_epoch
        if info.evaluated is not None:
            self._metrics |= dict(
                zip(("accuracyTop1", "accuracyTop5"), info.evaluated, strict=True)
            )

    def step(self, record: StepRecord) -> None:
        """Write unless the last write is younger than a second."""
        if time.monotonic() - self._written >= LEAST_SECONDS:
            self._metrics |= {
                "progress": round(record.step / self._total, 6),
                "epoch": record.step // self._steps_per_epoch,
                "samplesSeen": record.samples_seen,
            }
            self._write(record.step)

    def log(self, record: LogRecord) -> None:
        """Take the figures; the next step writes them."""
        self._metrics |= {
            "loss": record.loss,
            "samplesPerSecond": round(record.images_per_second, 3),
            "estimatedRemainingSeconds": round(record.remaining_seconds, 1),
        }

    def evaluation(self, record: EvaluationRecord) -> None:
        """Take the accuracy and write."""
        self._metrics |= {
            "accuracyTop1": record.accuracy_top1,
            "accuracyTop5": record.accuracy_top5,
        }
        self._write(record.step)

    def checkpoint(self, record: SaveRecord) -> None:
        """Take the time; another thread writes."""
        self._metrics["lastCheckpointTime"] = datetime.now(UTC).isoformat(timespec="milliseconds")

    def end(self, record: EndRecord) -> None:
        """Write the final figures."""
        summary = record.summary
        self._metrics |= {
            "progress": round(summary["steps"] / self._total, 6) if not record.finished else 1.0,
            "epoch": summary["steps"] // self._steps_per_epoch,
            "samplesSeen": summary["samplesSeen"],
            "estimatedRemainingSeconds": 0.0
            if record.finished
            else self._metrics.get("estimatedRemainingSeconds"),
        }
        if summary["evaluatedStep"] >= 0:
            self._metrics |= {name: summary[name] for name in ("accuracyTop1", "accuracyTop5")}
        self._write(summary["steps"])

    def _write(self, step: int) -> None:
        self._written = time.monotonic()
        metrics = {name: value for name, value in dict(self._metrics).items() if value is not None}
        content = {
            "step": step,
            "metrics": metrics,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        }
        replace_file(self._path, json.dumps(content))


class Summary(Sink):
    """``summary.json`` with the final figures, ``config.yaml`` with every default filled in."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def start(self, info: RunInfo) -> None:
        """Write the configuration."""
        self._output.mkdir(parents=True, exist_ok=True)
        replace_file(self._output / "config.yaml", yaml.safe_dump(info.config, sort_keys=False))

    def end(self, record: EndRecord) -> None:
        """Write the figures."""
        replace_file(self._output / "summary.json", json.dumps(record.summary, indent=2) + "\n")
