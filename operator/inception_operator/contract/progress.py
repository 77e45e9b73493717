"""Training figures: read from rank 0's metrics page or a report, written as ``trainerStatus``.

The names of the series are in docs/architecture/names.md. Figures come from user code, so
each is checked before it reaches the status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from .times import format_time, from_timestamp, parse_time
from .types import Json, Progress, Report

# Seconds between two status writes for figures alone: each costs a write to etcd and a watch event.
INTERVAL: Final = timedelta(seconds=10)
PREFIX: Final = "trainer_"
_CHECKPOINT: Final = "checkpoint_last_success_timestamp_seconds"
_READ: Final = tuple(
    PREFIX + name
    for name in (
        "progress_ratio",
        "estimated_remaining_seconds",
        "epoch",
        "step",
        "samples_per_second",
        "accuracy_ratio",
        "loss",
        "samples_seen",
        "checkpoint_failing",
        "repeated_steps_total",
        "step_duration_seconds_sum",
        "checkpoint_stall_seconds_total",
        _CHECKPOINT,
    )
)
# A few series have several label sets; a page with thousands is none of the trainer's.
_MAX_LINES: Final = 200
_MAX_LINE: Final = 1024
_READABLE: Final = 1e15
_TIME: Final = "lastUpdatedTime"
_SPEED: Final = ("samplesPerSecond", "estimatedRemainingSeconds")
_INT32: Final = 2**31 - 1
_INT64: Final = 2**63 - 1


def from_metrics(text: str, now: datetime) -> Progress | None:
    """The figures on a page in Prometheus' text format; None when none of the trainer's are."""
    figures = _Figures(_samples(text))
    if not figures.values:
        return None
    checkpoint = figures.number(_CHECKPOINT)
    last_checkpoint = from_timestamp(checkpoint) if checkpoint else None
    return Progress(
        time=now,
        progress=figures.number("progress_ratio"),
        remaining_seconds=figures.number("estimated_remaining_seconds"),
        epoch=figures.whole("epoch"),
        step=figures.whole("step"),
        samples_per_second=figures.number("samples_per_second"),
        accuracy_top1=figures.number("accuracy_ratio", split="val", k="1"),
        accuracy_top5=figures.number("accuracy_ratio", split="val", k="5"),
        loss=figures.any_number("loss"),
        samples_seen=figures.whole("samples_seen"),
        repeated_steps=figures.whole("repeated_steps_total"),
        last_checkpoint=last_checkpoint,
        checkpoint_failing=bool(figures.number("checkpoint_failing")),
        data_seconds=figures.number("step_duration_seconds_sum", part="data"),
        checkpoint_seconds=figures.number("checkpoint_stall_seconds_total"),
        # The usual mistake is milliseconds.
        ignored=PREFIX + _CHECKPOINT if checkpoint and last_checkpoint is None else "",
    )


def from_report(report: Report, now: datetime) -> Progress:
    """The last figures a launcher knows of; the only source once the pod has ended."""
    figures = {name: value for name, value in report.metrics.items() if math.isfinite(value)}
    return Progress(
        time=now,
        progress=figures.get("progress"),
        remaining_seconds=figures.get("estimatedRemainingSeconds"),
        epoch=_to_int(figures.get("epoch")),
        step=report.step,
        samples_per_second=figures.get("samplesPerSecond"),
        accuracy_top1=figures.get("accuracyTop1"),
        accuracy_top5=figures.get("accuracyTop5"),
        loss=report.metrics.get("loss"),
        samples_seen=_to_int(figures.get("samplesSeen")),
        repeated_steps=_to_int(figures.get("repeatedSteps")),
    )


def without_speed(status: Json) -> Json:
    """A ``trainerStatus`` without what is not true any more once no rank runs."""
    return {key: value for key, value in status.items() if key not in _SPEED}


def to_json(progress: Progress) -> Json:
    """``status.trainerStatus`` without what is unknown."""
    last_checkpoint = progress.last_checkpoint
    # Decimals are strings: Kubernetes' API conventions allow no floats, which lose digits on the
    # way through other languages.
    data: Json = {
        "progressPercentage": _percent(progress.progress),
        "estimatedRemainingSeconds": _seconds(progress.remaining_seconds),
        "epoch": _whole(progress.epoch, _INT32),
        "step": _whole(progress.step),
        "samplesPerSecond": _decimal(progress.samples_per_second, 1),
        "accuracyTop1": _decimal(progress.accuracy_top1, 4),
        "accuracyTop5": _decimal(progress.accuracy_top5, 4),
        "loss": _decimal(progress.loss, 4),
        "samplesSeen": _whole(progress.samples_seen),
        "repeatedSteps": _whole(progress.repeated_steps),
        "lastCheckpointTime": format_time(last_checkpoint) if last_checkpoint else None,
        _TIME: format_time(progress.time),
    }
    return {key: value for key, value in data.items() if value is not None}


def merged(current: Json | None, progress: Progress, *, at_once: bool) -> Json | None:
    """The trainerStatus to write, or None to leave ``current``: too soon, older, or nothing new.

    ``at_once`` passes over the interval: the status is about to be written anyway.
    """
    previous = current or {}
    written = parse_time(previous.get(_TIME))
    if written is not None and progress.time < written:
        return None
    if written is not None and progress.time - written < INTERVAL and not at_once:
        return None
    # A figure that is missing now (no validation yet in this attempt) keeps its last value.
    latest = previous | to_json(progress)
    changed = any(previous.get(key) != value for key, value in latest.items() if key != _TIME)
    return latest if changed else None


@dataclass(frozen=True)
class _Figures:
    """Values of a metrics page by name, without its prefix, and labels."""

    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def any_number(self, name: str, **labels: str) -> float | None:
        """The first value with this name and at least these labels, NaN and infinities included."""
        for (key, present), value in self.values.items():
            if key == name and labels.items() <= present:
                return value
        return None

    def number(self, name: str, **labels: str) -> float | None:
        """The same, but None where it is not finite."""
        value = self.any_number(name, **labels)
        return value if value is not None and math.isfinite(value) else None

    def whole(self, name: str) -> int | None:
        """The same, cut to an integer."""
        return _to_int(self.number(name))


def _samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    # The parser is slow, most of a page are series of the process and of Python, and a program of
    # the user's may have any number of its own.
    ours = [line for line in text.splitlines() if line.startswith(_READ) and len(line) < _MAX_LINE]
    try:
        return {
            (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families("\n".join(ours[:_MAX_LINES]) + "\n")
            for sample in family.samples
        }
    except (ValueError, IndexError, KeyError):
        # What the parser raises for lines that are not in the format; it promises nothing.
        return {}


def _to_int(value: float | None) -> int | None:
    return None if value is None else int(value)


def _percent(ratio: float | None) -> int | None:
    # A tiny shortfall is rounding of the division, not a missing step.
    return None if ratio is None else math.floor(max(0.0, min(1.0, ratio)) * 100 + 1e-9)


def _seconds(value: float | None) -> int | None:
    return None if value is None else _whole(max(0, round(value)))


def _whole(value: int | None, most: int = _INT64) -> int | None:
    """The number if the CRD's schema takes it, else None."""
    # A program may say anything, and a status that the API server refuses would stop its job.
    return value if value is not None and 0 <= value <= most else None


def _decimal(value: float | None, digits: int) -> str | None:
    if value is None:
        return None
    # The schema allows 32 characters, and 1e300 has 301 digits.
    return f"{value:.{digits}f}" if abs(value) < _READABLE else f"{value:g}"
