"""mllog.txt: the time to an accuracy, in the format of MLPerf's logs.

Lines of ``:::MLLOG`` and a JSON object with MLPerf's keys. A record of what happened, no claim to
follow MLPerf's rules. All attempts of a job append to one file: the run starts once, each attempt
has its own initialisation, and an epoch that was begun again is there again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

from typing_extensions import override

from inception_trainer.reporting.outputs import append_lines
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    RunInfo,
    Sink,
    StepRecord,
)

START = "INTERVAL_START"
STOP = "INTERVAL_END"
POINT = "POINT_IN_TIME"
BENCHMARKS = {"resnet50": "resnet"}
"""MLPerf's names of networks; the others keep ours."""


class MLLog(Sink):
    """Writes mllog.txt. Epochs are counted from 1; times are of the events, not of their lines."""

    def __init__(self, output: Path) -> None:
        self._path = output / "mllog.txt"
        self._file: TextIO | None = None
        self._created_at = time.time()
        self._initialised = False
        self._block: float | None = None
        """The first epoch of the block that is open: what lies between two evaluations."""
        self._info: RunInfo | None = None

    @override
    def start(self, info: RunInfo) -> None:
        """Open the file and write what runs, if no earlier attempt has."""
        self._info = info
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A node that dies may leave the file without what was written to it.
        is_first_attempt = not self._path.exists() or not self._path.stat().st_size
        self._file = append_lines(self._path)
        # Sinks start after the first step; the initialisation began when they were made.
        self._line(START, "init_start", None, self._created_at)
        if is_first_attempt:
            for key, value in run_parameters(info).items():
                self._line(POINT, key, value, self._created_at)

    @override
    def step(self, record: StepRecord) -> None:
        """The first step ends the initialisation; first and last steps of an epoch bound it."""
        if self._info is None:
            return
        began_at = time.time() - record.host_seconds
        self._end_initialisation(began_at)
        epoch, position = divmod(record.step - 1, self._info.steps_per_epoch)
        if self._block is None:
            self._begin_block(began_at, epoch, position)
        if position == 0:
            self._line(START, "epoch_start", None, began_at, epoch_num=epoch + 1)
        if position + 1 == self._info.steps_per_epoch:
            self._line(STOP, "epoch_stop", None, epoch_num=epoch + 1)

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        """An evaluation ends a block of epochs; its accuracy is 0 to 1."""
        began_at = time.time() - record.seconds
        epoch = round(record.epoch, 4)
        self._end_initialisation(began_at)
        if self._block is not None:
            self._line(STOP, "block_stop", None, began_at, first_epoch_num=self._block)
            self._block = None
        self._line(START, "eval_start", None, began_at, epoch_num=epoch)
        self._line(POINT, "eval_accuracy", record.accuracy_top1, epoch_num=epoch)
        self._line(STOP, "eval_stop", None, epoch_num=epoch)

    @override
    def end(self, record: EndRecord) -> None:
        """End the run, unless it was stopped and goes on in another attempt."""
        self._end_initialisation(time.time())
        if record.finished:
            samples = record.summary["samplesSeen"]
            self._line(STOP, "run_stop", None, status="success", samples_count=samples)

    @override
    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _end_initialisation(self, at: float) -> None:
        """Write the end of the initialisation once, and the start of the run if the job starts."""
        if self._initialised or self._info is None:
            return
        self._initialised = True
        self._line(STOP, "init_stop", None, at)
        if self._info.start_step == 0:
            self._line(START, "run_start", None, at)

    def _begin_block(self, at: float, epoch: int, position: int) -> None:
        """Write the start of a block; ``position`` is that of the step within its epoch."""
        steps_per_epoch = self._info.steps_per_epoch if self._info else 1
        # A whole number where it is one, as MLPerf has it; an attempt may begin within an epoch.
        self._block = epoch + 1
        if position:
            self._block += round(position / steps_per_epoch, 4)
        self._line(
            START,
            "block_start",
            None,
            at,
            first_epoch_num=self._block,
            epoch_count=self._epochs_between_evaluations(),
        )

    def _epochs_between_evaluations(self) -> float:
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
            # MLPerf's own readers want a place in the source.
            "metadata": {"file": "sinks/mllog.py", "lineno": 1, **metadata},
        }
        self._file.write(f":::MLLOG {json.dumps(content)}\n")
        self._file.flush()


def run_parameters(info: RunInfo) -> dict[str, Any]:
    """The values that MLPerf asks for, from the configuration with its defaults filled in."""
    config = info.config
    optimizer = config.get("optimizer", {})
    schedule = config.get("schedule", {})
    # Samples that a device computes at once, and samples of a rank for a step; without a limit they
    # are the same.
    per_device = config.get("batch", {}).get("perDevice")
    per_rank = info.global_batch // info.world_size
    return {
        "submission_benchmark": BENCHMARKS.get(info.model, info.model),
        "submission_division": "open",
        "submission_platform": f"{info.world_size}x{info.device}",
        "seed": config.get("seed", 0),
        "global_batch_size": info.global_batch,
        "gradient_accumulation_steps": per_rank // per_device if per_device else 1,
        "model_bn_span": per_device or per_rank,
        "train_samples": info.train_samples,
        "eval_samples": info.evaluation_samples,
        "opt_name": str(optimizer.get("name", "")).lower(),
        "opt_base_learning_rate": optimizer.get("learningRate"),
        "opt_weight_decay": optimizer.get("weightDecay"),
        "opt_learning_rate_warmup_epochs": schedule.get("warmupEpochs", 0),
    }
