"""TensorBoard event files, written by rank 0; the step axis is optimizer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inception_trainer.reporting.records import EvaluationRecord, LogRecord, RunInfo, Sink


class TensorBoard(Sink):
    """Tags of RECIPES 14.2. A resumed run purges what a lost one wrote beyond its checkpoint."""

    def __init__(self, output: Path) -> None:
        self._folder = output / "tensorboard"
        self._writer: Any = None

    def start(self, info: RunInfo) -> None:
        """Open the event file."""
        from torch.utils.tensorboard.writer import SummaryWriter

        purge = info.start_step + 1 if info.start_step else None
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    def log(self, record: LogRecord) -> None:
        """Training curves and speed."""
        self._scalars(
            record.step,
            {
                "train/loss": record.loss,
                "train/lr": record.learning_rate,
                "train/top1": record.accuracy_top1,
                "perf/images_per_second": record.images_per_second,
                "perf/data_wait_ratio": record.data_wait_ratio,
                "perf/step_seconds": record.step_seconds,
            },
        )

    def evaluation(self, record: EvaluationRecord) -> None:
        """Validation curves."""
        values = {
            "val/loss": record.loss,
            "val/top1": record.accuracy_top1,
            "val/top5": record.accuracy_top5,
        }
        self._scalars(record.step, values)

    def close(self) -> None:
        """Flush."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
