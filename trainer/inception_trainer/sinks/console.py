"""Progress for people: a line per log interval, or one line redrawn in place on a terminal."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from typing_extensions import override

from inception_trainer.log import logger
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
)

BAR_WIDTH = 24
"""Characters of the bar on a terminal."""


class Console(Sink):
    """Shows epoch, step, loss, accuracy, speed and remaining time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._redraws = self._stream.isatty()
        self._info: RunInfo | None = None

    @override
    def start(self, info: RunInfo) -> None:
        self._info = info

    @override
    def log(self, record: LogRecord) -> None:
        if self._info is None:
            return
        text = describe(record, self._info)
        if self._redraws:
            filled = round(BAR_WIDTH * record.progress)
            bar = "█" * filled + "░" * (BAR_WIDTH - filled)
            # Back to the start of the line, and clear it: the line before may have been longer.
            self._stream.write(f"\r\x1b[K{bar} {text}")
            self._stream.flush()
        else:
            logger.info("%s", text)

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        self._end_redrawn_line()
        logger.info(
            "step %d: validation top-1 %.2f %%, top-5 %.2f %%, loss %.4f "
            "over %d images in %.1f s%s",
            record.step,
            100 * record.accuracy_top1,
            100 * record.accuracy_top5,
            record.loss,
            record.samples,
            record.seconds,
            _beside_average(record) + (", best so far" if record.is_best else ""),
        )

    @override
    def end(self, record: EndRecord) -> None:
        self._end_redrawn_line()
        logger.info("%s", conclude(record.summary))

    def _end_redrawn_line(self) -> None:
        if self._redraws:
            self._stream.write("\n")


def _beside_average(record: EvaluationRecord) -> str:
    raw = record.raw_accuracy_top1
    return "" if raw is None else f"; of the weights without their average {100 * raw:.2f} %"


def conclude(summary: dict[str, Any]) -> str:
    """One line with the result of a run; ``summary`` is the content of summary.json."""
    # Not every mode has every figure.
    steps = summary.get("steps", 0)
    samples_seen = summary.get("samplesSeen", 0)
    loss = summary.get("loss", 0)
    top1 = 100 * summary.get("accuracyTop1", 0)
    top5 = 100 * summary.get("accuracyTop5", 0)
    accuracy = f"top-1 {top1:.2f} %, top-5 {top5:.2f} %"
    speed = f"{summary.get('imagesPerSecond', 0):.0f} img/s"
    match summary.get("mode", "Train"):
        case "Evaluate":
            return f"Evaluated {summary['samples']} images: {accuracy}, loss {loss:.4f}, {speed}"
        case "Benchmark":
            each = f"{summary['imagesPerSecondPerDevice']:.0f} img/s per device"
            return f"Measured {summary['measuredSteps']} steps: {speed}, {each}"
        case "Infer":
            return _conclude_infer(summary)
        case "Export":
            return "Exported and checked " + ", ".join(one["file"] for one in summary["exports"])
        case "Preflight":
            return _conclude_preflight(summary)
    return (
        f"{summary['exitReason']} after {steps} steps: {accuracy}, loss {loss:.4f}, "
        f"{samples_seen} samples seen, {speed}"
    )


def _conclude_preflight(summary: dict[str, Any]) -> str:
    failed = [str(rank["rank"]) for rank in summary["ranks"] if rank["failed"]]
    if failed:
        return f"Preflight: failed on rank {', '.join(failed)} of {summary['worldSize']}"
    return f"Preflight: all {summary['worldSize']} ranks are fit for the job"


def _conclude_infer(summary: dict[str, Any]) -> str:
    if "samples" not in summary:
        return f"Measured the latencies of {len(summary['latencies'])} batch sizes"
    skipped = ""
    if summary["skippedSamples"]:
        skipped = f", {summary['skippedSamples']} more could not be read"
    return (
        f"Classified {summary['samples']} images{skipped}, {summary['imagesPerSecond']:.0f} img/s: "
        f"{summary['predictions']}"
    )


def describe(record: LogRecord, info: RunInfo) -> str:
    """One line with everything worth seeing every few seconds."""
    minutes, seconds = divmod(round(record.remaining_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    # After the last step the epoch is the number of epochs, and no further one begins.
    epoch = min(int(record.epoch) + 1, info.epochs)
    idle = ""
    if record.device_idle_ratio is not None:
        idle = f"idle {100 * record.device_idle_ratio:.0f} % "
    return (
        f"epoch {epoch}/{info.epochs} "
        f"step {record.step}/{info.total_steps} "
        f"{100 * record.progress:.0f} % "
        f"loss {record.loss:.4f} "
        f"top-1 {100 * record.accuracy_top1:.1f} % "
        f"lr {record.learning_rate:.5f} "
        f"{record.images_per_second:.0f} img/s "
        f"{record.step_seconds * 1000:.0f} ms/step "
        f"data {100 * record.data_wait_ratio:.0f} % "
        f"{idle}"
        f"left {hours}:{minutes:02}:{seconds:02}"
    )
