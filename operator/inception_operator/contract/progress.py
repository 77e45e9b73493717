"""Figures of the training: from rank 0's Prometheus text or its final report, and as
``status.trainerStatus``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from .times import format_time, parse_time
from .types import Json, Progress, Report

INTERVAL: Final = timedelta(seconds=10)
PREFIX: Final = "trainer_"
_TIME: Final = "lastUpdatedTime"
_INT32: Final = 2**31 - 1
_INT64: Final = 2**63 - 1


def from_metrics(text: str, now: datetime) -> Progress | None:
    """The figures in a Prometheus exposition; None when it has none of the trainer's."""
    figures = _Figures(_samples(text))
    if not figures.values:
        return None
    checkpoint = figures.number("checkpoint_last_success_timestamp_seconds")
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
        last_checkpoint=datetime.fromtimestamp(checkpoint, UTC) if checkpoint else None,
    )


def from_report(report: Report, now: datetime) -> Progress:
    """The last figures of a launcher; the only source once the pod has ended."""
    metrics = report.metrics

    def number(name: str) -> float | None:
        value = metrics.get(name)
        return value if value is not None and math.isfinite(value) else None

    epoch, seen = number("epoch"), number("samplesSeen")
    return Progress(
        time=now,
        progress=number("progress"),
        remaining_seconds=number("estimatedRemainingSeconds"),
        epoch=None if epoch is None else int(epoch),
        step=report.step,
        samples_per_second=number("samplesPerSecond"),
        accuracy_top1=number("accuracyTop1"),
        accuracy_top5=number("accuracyTop5"),
        loss=metrics.get("loss"),
        samples_seen=None if seen is None else int(seen),
    )


def to_json(progress: Progress) -> Json:
    """``status.trainerStatus``: whole numbers as they are, decimals as strings, nothing that is
    unknown.
    """
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
        "lastCheckpointTime": None
        if progress.last_checkpoint is None
        else format_time(progress.last_checkpoint),
        _TIME: format_time(progress.time),
    }
    return {key: value for key, value in data.items() if value is not None}


def merged(current: Json | None, progress: Progress, *, at_once: bool) -> Json | None:
    """The trainerStatus to write, or None to leave it: too soon, older than what is known, or
    nothing new.
    """
    known = current or {}
    last = parse_time(known.get(_TIME))
    if last is not None and (
        progress.time < last or (not at_once and progress.time - last < INTERVAL)
    ):
        return None
    news = known | to_json(progress)
    changed = any(known.get(key) != value for key, value in news.items() if key != _TIME)
    return news if changed else None


@dataclass(frozen=True)
class _Figures:
    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def any_number(self, name: str, **labels: str) -> float | None:
        wanted = labels.items()
        found = (
            value for (key, own), value in self.values.items() if key == name and wanted <= own
        )
        return next(found, None)

    def number(self, name: str, **labels: str) -> float | None:
        value = self.any_number(name, **labels)
        return value if value is not None and math.isfinite(value) else None

    def whole(self, name: str) -> int | None:
        value = self.number(name)
        return None if value is None else int(value)


def _samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(PREFIX))
    try:
        return {
            (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(wanted + "\n")
            for sample in family.samples
        }
    except ValueError:
        return {}


def _percent(ratio: float | None) -> int | None:
    # A tiny shortfall is rounding of the division, not a missing step.
    return None if ratio is None else max(0, min(100, math.floor(ratio * 100 + 1e-9)))


def _seconds(value: float | None) -> int | None:
    return None if value is None else _whole(max(0, round(value)))


def _whole(value: int | None, most: int = _INT64) -> int | None:
    """What the schema takes: a program may say anything, and a status that is refused would stop
    its job.
    """
    return value if value is not None and 0 <= value <= most else None


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"[:32]
