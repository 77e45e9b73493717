"""raport.json as NVIDIA's DeepLearningExamples write it: lines of ``DLLL `` and a JSON object (RECIPES 14.1)."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from inception_trainer.metrics import EndRecord, EvaluationRecord, LogRecord, RunInfo, Sink

UNITS = {
    "train.loss": None,
    "train.lr": None,
    "train.compute_ips": "images/s",
    "train.total_ips": "images/s",
    "train.data_time": "s",
    "train.compute_time": "s",
    "val.top1": "%",
    "val.top5": "%",
    "val.loss": None,
    "val.total_ips": "images/s",
}


class Raport(Sink):
    """Appends, so that the file covers all attempts."""

    def __init__(self, output: Path) -> None:
        self._path = output / "raport.json"
        self._file: TextIO | None = None
        self._began = time.time()
        self._steps_per_epoch = 1

    def start(self, info: RunInfo) -> None:
        """Write units and parameters."""
        self._steps_per_epoch = info.steps_per_epoch
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        for metric, unit in UNITS.items():
            self._line("METADATA", None, {"metric": metric, "metadata": {"unit": unit}})
        self._line("LOG", "PARAMETER", {"attempt": info.attempt, "world_size": info.world_size, **info.config})

    def log(self, record: LogRecord) -> None:
        """One line per log interval; step is [epoch, iteration]."""
        data_time = record.step_seconds * record.data_wait_ratio
        compute_time = record.step_seconds - data_time
        self._line(
            "LOG",
            list(divmod(record.step - 1, self._steps_per_epoch)),
            {
                "train.loss": record.loss,
                "train.lr": record.learning_rate,
                "train.total_ips": record.images_per_second,
                "train.compute_ips": record.images_per_second * record.step_seconds / max(compute_time, 1e-9),
                "train.data_time": data_time,
                "train.compute_time": compute_time,
            },
        )

    def evaluation(self, record: EvaluationRecord) -> None:
        """One epoch summary; percent as there."""
        self._line(
            "LOG",
            [(record.step - 1) // self._steps_per_epoch],
            {
                "val.top1": 100 * record.accuracy_top1,
                "val.top5": 100 * record.accuracy_top5,
                "val.loss": record.loss,
                "val.total_ips": record.samples / max(record.seconds, 1e-9),
            },
        )

    def end(self, record: EndRecord) -> None:
        """The run summary; its step is []."""
        if record.finished:
            summary = record.summary
            data = {"val.top1": 100 * summary["accuracyTop1"], "val.top5": 100 * summary["accuracyTop5"]}
            self._line("LOG", [], {**data, "val.loss": summary["loss"], "train.total_ips": summary["imagesPerSecond"]})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _line(self, kind: str, step: Any, data: dict[str, Any]) -> None:
        if self._file is None:
            return
        now = time.time()
        head: dict[str, Any] = {
            "timestamp": f"{now:.6f}",
            "datetime": str(datetime.fromtimestamp(now)),
            "elapsedtime": f"{now - self._began:.6f}",
            "type": kind,
        }
        body = data if kind == "METADATA" else {"step": step, "data": data}
        self._file.write(f"DLLL {json.dumps(head | body)}\n")
        self._file.flush()
