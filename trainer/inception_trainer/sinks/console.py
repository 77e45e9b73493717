"""Progress for people: a line per log interval, or one line redrawn in place on a terminal."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from inception_trainer.log import logger
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
)

BAR = 24


class Console(Sink):
    """Epoch, step, loss, accuracy, speed and remaining time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._redraws = self._stream.isatty()
        self._info: RunInfo | None = None

    def start(self, info: RunInfo) -> None:
        """Remember the lengths."""
        self._info = info

    def log(self, record: LogRecord) -> None:
        """Draw or print."""
        if self._info is None:
            return
        text = describe(record, self._info)
        if self._redraws:
            filled = round(BAR * record.progress)
            self._stream.write(f"\r\x1b[K{'█' * filled}{'░' * (BAR - filled)} {text}")
            self._stream.flush()
        else:
            logger.info("%s", text)

    def evaluation(self, record: EvaluationRecord) -> None:
        """Print."""
        self._break()
        logger.info(
            "step %d: validation top-1 %.2f %%, top-5 %.2f %%, loss %.4f over %d images in %.1f s%s",
            record.step,
            100 * record.accuracy_top1,
            100 * record.accuracy_top5,
            record.loss,
            record.samples,
            record.seconds,
            ", best so far" if record.is_best else "",
        )

    def end(self, record: EndRecord) -> None:
        """Print the result."""
        self._break()
        logger.info("%s", conclude(record.summary))

    def _break(self) -> None:
        if self._redraws:
            self._stream.write("\n")


def conclude(summary: dict[str, Any]) -> str:
    """One line with the result of a run."""
    figures = {
        name: summary.get(name, 0) for name in ("steps", "samplesSeen", "imagesPerSecond", "loss")
    }
    accuracy = f"top-1 {100 * summary.get('accuracyTop1', 0):.2f} %, top-5 {100 * summary.get('accuracyTop5', 0):.2f} %"
    speed = f"{figures['imagesPerSecond']:.0f} img/s"
    match summary.get("mode", "Train"):
        case "Evaluate":
            return f"Evaluated {summary['samples']} images: {accuracy}, loss {figures['loss']:.4f}, {speed}"
        case "Benchmark":
            each = summary["imagesPerSecondPerDevice"]
            return (
                f"Measured {summary['measuredSteps']} steps: {speed}, {each:.0f} img/s per device"
            )
        case "Infer":
            return _inferred(summary)
        case "Export":
            return "Exported and checked " + ", ".join(one["file"] for one in summary["exports"])
    return (
        f"{summary['exitReason']} after {figures['steps']} steps: {accuracy}, loss {figures['loss']:.4f}, "
        f"{figures['samplesSeen']} samples seen, {speed}"
    )


def _inferred(summary: dict[str, Any]) -> str:
    if "samples" not in summary:
        return f"Measured the latencies of {len(summary['latencies'])} batch sizes"
    skipped = (
        f", {summary['skippedSamples']} more could not be read" if summary["skippedSamples"] else ""
    )
    return (
        f"Classified {summary['samples']} images{skipped}, {summary['imagesPerSecond']:.0f} img/s: "
        f"{summary['predictions']}"
    )


def describe(record: LogRecord, info: RunInfo) -> str:
    """One line with everything worth seeing every few seconds."""
    minutes, seconds = divmod(round(record.remaining_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"epoch {min(int(record.epoch) + 1, info.epochs)}/{info.epochs} step {record.step}/{info.total_steps} "
        f"{100 * record.progress:.0f} % loss {record.loss:.4f} top-1 {100 * record.accuracy_top1:.1f} % "
        f"lr {record.learning_rate:.5f} {record.images_per_second:.0f} img/s {record.step_seconds * 1000:.0f} ms/step "
        f"data {100 * record.data_wait_ratio:.0f} % left {hours}:{minutes:02}:{seconds:02}"
    )
