"""tcap_dllogger.json as Tecorigin's logger writes it: lines of ``TCAPPDLL `` and a JSON object.

Written for the profile ``tecorigin`` only: nobody else has a use for it. Figures are those of all
ranks; rank 0 alone writes.
"""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from inception_trainer.reporting.records import EvaluationRecord, LogRecord, RunInfo, Sink

from .dllogger_lines import DLLoggerLines

PROFILE = "tecorigin"
METRICS = {
    "train.loss": ("", "MINIMIZE", "TRAIN"),
    "train.ips": ("imgs/s", "MAXIMIZE", "TRAIN"),
    "train.total_time": ("s", "MINIMIZE", "TRAIN"),
    "val.loss": ("", "MINIMIZE", "VALID"),
    "val.top1": ("%", "MAXIMIZE", "VALID"),
}
"""Unit, goal and stage of every metric; ``train.total_time`` is that of a step."""


class TecoriginLog(Sink):
    """Writes tcap_dllogger.json, which covers all attempts."""

    def __init__(self, output: Path) -> None:
        self._lines = DLLoggerLines(output / "tcap_dllogger.json", "TCAPPDLL")
        self._rank = 0
        self._steps_per_epoch = 1

    @override
    def start(self, info: RunInfo) -> None:
        """Open the file and write what the metrics are, on the vendor's devices only."""
        # Lines that are not open write nothing, so the other methods need not ask again.
        if info.profile != PROFILE:
            return
        self._rank = info.rank
        self._steps_per_epoch = info.steps_per_epoch
        self._lines.open()
        for metric, (unit, goal, stage) in METRICS.items():
            self._lines.metadata(metric, {"unit": unit, "GOAL": goal, "STAGE": stage})

    @override
    def log(self, record: LogRecord) -> None:
        """Write means over the log interval; the step is [epoch, iteration]."""
        values = {
            "train.loss": record.loss,
            "train.ips": record.images_per_second,
            "train.total_time": record.step_seconds,
        }
        epoch, iteration = divmod(record.step - 1, self._steps_per_epoch)
        self._write([epoch, iteration], values)

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        """Write one line, whose step is [epoch]; the accuracy in percent."""
        values = {"val.loss": record.loss, "val.top1": 100 * record.accuracy_top1}
        self._write([(record.step - 1) // self._steps_per_epoch], values)

    @override
    def close(self) -> None:
        self._lines.close()

    def _write(self, step: list[int], values: dict[str, float]) -> None:
        # The vendor's files have the text of a Python dict here, whose values are texts.
        texts = {"rank": str(self._rank)}
        texts |= {name: str(value) for name, value in values.items()}
        self._lines.log(step, str(texts))
