"""mllog.txt: the time to an accuracy, as lines of ``:::MLLOG`` and a JSON object with MLPerf's keys
(RECIPES 14.3).

A record of what happened, no claim to follow MLPerf's rules. All attempts of a job append to one
file: the run starts once, each attempt has its own initialisation, and an epoch that was begun
again is there again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    RunInfo,
    Sink,
    StepRecord,
)

START, STOP, POINT = "INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"
BENCHMARKS = {"resnet50": "resnet"}
"""MLPerf's names of networks; the others keep ours."""


class MLLog(Sink):
    """Epochs are counted from 1 there; times are those of the events, not of their lines."""

    def __init__(self, output: Path) -> None:
        self._path = output / "mllog.txt"
        self._file: TextIO | None = None
        self._born = time.time()
        self._began = False
        self._block: float | None = None
        self._info: RunInfo | None = None

    def start(self, info: RunInfo) -> None:
        """Open the file and say what runs."""
        self._info = info
        self._path.parent.mkdir(parents=True, exist_ok=True)
        first = not self._path.exists()
        self._file = self._path.open("a", encoding="utf-8")
        self._line(START, "init_start", None, self._born)
        for key, value in described(info).items() if first else ():
            self._line(POINT, key, value, self._born)

    def step(self, record: StepRecord) -> None:
        """The first step ends the initialisation; first and last steps of an epoch bound it."""
        if self._info is None:
            return
        began = time.time() - record.data_seconds - record.compute_seconds
        self._begin(began)
        epoch, position = divmod(record.step - 1, self._info.steps_per_epoch)
        if self._block is None:
            share = position / self._info.steps_per_epoch
            self._block = epoch + 1 + (round(share, 4) if position else 0)
            self._line(
                START,
                "block_start",
                None,
                began,
                first_epoch_num=self._block,
                epoch_count=self._every(),
            )
        if position == 0:
            self._line(START, "epoch_start", None, began, epoch_num=epoch + 1)
        if position + 1 == self._info.steps_per_epoch:
            self._line(STOP, "epoch_stop", None, epoch_num=epoch + 1)

    def evaluation(self, record: EvaluationRecord) -> None:
        """An evaluation ends a block of epochs; its accuracy is 0 to 1."""
        began, epoch = time.time() - record.seconds, round(record.epoch, 4)
        self._begin(began)
        if self._block is not None:
            self._line(STOP, "block_stop", None, began, first_epoch_num=self._block)
            self._block = None
        self._line(START, "eval_start", None, began, epoch_num=epoch)
        self._line(POINT, "eval_accuracy", record.accuracy_top1, epoch_num=epoch)
        self._line(STOP, "eval_stop", None, epoch_num=epoch)

    def end(self, record: EndRecord) -> None:
        """A run that was stopped goes on later: only its end is an end."""
        self._begin(time.time())
        if record.finished:
            samples = record.summary["samplesSeen"]
            self._line(STOP, "run_stop", None, status="success", samples_count=samples)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self, at: float) -> None:
        if self._began or self._info is None:
            return
        self._began = True
        self._line(STOP, "init_stop", None, at)
        if self._info.start_step == 0:
            self._line(START, "run_start", None, at)

    def _every(self) -> float:
        """Epochs from one evaluation to the next."""
        evaluation = self._info.config.get("evaluation", {}) if self._info else {}
        if self._info is not None and "everySteps" in evaluation:
            return round(int(evaluation["everySteps"]) / self._info.steps_per_epoch, 4)
        return int(evaluation.get("everyEpochs", 1))

    def _line(
        self, kind: str, key: str, value: Any, at: float | None = None, **metadata: Any
    ) -> None:
        if self._file is None:
            return
        content = {
            "namespace": "",
            "time_ms": round(1000 * (time.time() if at is None else at)),
            "event_type": kind,
            "key": key,
            "value": value,
            # Its readers ask for the place in the source.
            "metadata": {"file": "sinks/mllog.py", "lineno": 1, **metadata},
        }
        self._file.write(f":::MLLOG {json.dumps(content)}\n")
        self._file.flush()


def described(info: RunInfo) -> dict[str, Any]:
    """The values that MLPerf asks for, from the configuration with its defaults filled in."""
    config = info.config
    optimizer, schedule = config.get("optimizer", {}), config.get("schedule", {})
    per_device = config.get("batch", {}).get("perDevice")
    share = info.global_batch // info.world_size
    return {
        "submission_benchmark": BENCHMARKS.get(info.model, info.model),
        "submission_division": "open",
        "submission_platform": f"{info.world_size}x{info.device}",
        "seed": config.get("seed", 0),
        "global_batch_size": info.global_batch,
        "gradient_accumulation_steps": share // per_device if per_device else 1,
        "model_bn_span": per_device or share,
        "train_samples": info.train_samples,
        "eval_samples": info.evaluation_samples,
        "opt_name": str(optimizer.get("name", "")).lower(),
        "opt_base_learning_rate": optimizer.get("learningRate"),
        "opt_weight_decay": optimizer.get("weightDecay"),
        "opt_learning_rate_warmup_epochs": schedule.get("warmupEpochs", 0),
    }
