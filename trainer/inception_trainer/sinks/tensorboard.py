"""TensorBoard event files, written by rank 0; the step axis is optimizer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from inception_trainer.reporting.records import EvaluationRecord, LogRecord, RunInfo, Sink

from . import scalars


class TensorBoard(Sink):
    """Writes curves of training, validation and speed (tags: docs/trainer/results.md)."""

    def __init__(self, output: Path) -> None:
        self._folder = output / "tensorboard"
        self._writer: Any = None

    @override
    def start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # A killed attempt has written steps beyond its last checkpoint, which are done again now:
        # TensorBoard drops what it has of later steps when it reads this.
        purge = info.start_step + 1 if info.start_step else None
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    @override
    def log(self, record: LogRecord) -> None:
        self._scalars(record.step, scalars.of_training(record))

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        self._scalars(record.step, scalars.of_evaluation(record))

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
