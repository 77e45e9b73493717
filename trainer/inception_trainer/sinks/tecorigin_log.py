"""tcap_dllogger.json as Tecorigin's logger writes it: lines of ``TCAPPDLL `` and a JSON object
(RECIPES 14.3).

Written for the profile ``tecorigin`` only: nobody else has a use for it. ``data`` is the text of a
Python dict whose values are texts, as there. Figures are those of all ranks; rank 0 alone writes.
"""

from __future__ import annotations

from pathlib import Path

from inception_trainer.reporting.records import EvaluationRecord, LogRecord, RunInfo, Sink

from .dllogger_lines import Lines

PROFILE = "tecorigin"
METRICS = {
    "train.loss": ("", "MINIMIZE", "TRAIN"),
    "train.ips": ("imgs/s", "MAXIMIZE", "TRAIN"),
    "train.total_time": ("s", "MINIMIZE", "TRAIN"),
    "val.loss": ("", "MINIMIZE", "VALID"),
    "val.top1": ("%", "MAXIMIZE", "VALID"),
}
"""Unit, goal and stage of every metric; ``train.total_time`` is that of a step."""


class Tcap(Sink):
    """Appends, so that the file covers all attempts."""

    def __init__(self, output: Path) -> None:
        self._lines = Lines(output / "tcap_dllogger.json", "TCAPPDLL")
        self._rank = 0
        self._steps_per_epoch = 1

    def start(self, info: RunInfo) -> None:
        """Write what the metrics are, if this is a run for the vendor's devices."""
        if info.profile != PROFILE:
            return
        self._rank, self._steps_per_epoch = info.rank, info.steps_per_epoch
        self._lines.open()
        for metric, (unit, goal, stage) in METRICS.items():
            self._lines.metadata(metric, {"unit": unit, "GOAL": goal, "STAGE": stage})

    def log(self, record: LogRecord) -> None:
        """Means over the log interval; step is [epoch, iteration]."""
        values = {
            "train.loss": record.loss,
            "train.ips": record.images_per_second,
            "train.total_time": record.step_seconds,
        }
        self._write(list(divmod(record.step - 1, self._steps_per_epoch)), values)

    def evaluation(self, record: EvaluationRecord) -> None:
        """One line, step is [epoch]; the accuracy in percent."""
        values = {"val.loss": record.loss, "val.top1": 100 * record.accuracy_top1}
        self._write([(record.step - 1) // self._steps_per_epoch], values)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _write(self, step: list[int], values: dict[str, float]) -> None:
        texts = {name: str(value) for name, value in {"rank": self._rank, **values}.items()}
        self._lines.log(step, str(texts))
