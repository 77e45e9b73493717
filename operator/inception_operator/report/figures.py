"""The figures of a report: texts for people from a status and from the trainer's summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from inception_operator.contract.decoding import decimal_number
from inception_operator.contract.types import Json

Rows = list[tuple[str, str]]


def number(value: object) -> float | None:
    """A finite number, also one that is written as a text; None for anything else."""
    if isinstance(value, str) and len(value) <= 32:
        try:
            value = float(value)
        except ValueError:
            return None
    found = decimal_number(value)
    return found if found is not None and math.isfinite(found) else None


def plain(value: float) -> str:
    """A number with the digits that people read."""
    if value == 0 or 1e-3 <= abs(value) < 1e15:
        return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A ratio as a percentage."""
    return f"{100 * value:.2f} %"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    whole = round(max(0.0, seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def of_status(status: Json) -> Rows:
    """What a job's status says of it."""
    trainer = _mapping(status.get("trainerStatus"))
    texts = [
        ("state", status.get("state")),
        ("accelerator", status.get("accelerator")),
        ("model", status.get("model")),
        ("nodes", _mapping(status.get("nodes")).get("summary")),
        ("started", status.get("startTime")),
        ("ended", status.get("completionTime")),
        ("checkpoints", status.get("checkpointPath")),
    ]
    rows = [(name, text) for name, text in texts if isinstance(text, str) and text]
    ratio = {"ratio": _mapping(status.get("goodput")).get("ratio")}
    return [
        *rows,
        *_rows(trainer, {"progress": ("progressPercentage", lambda value: f"{value:.0f} %")}),
        *_rows(trainer, _OF_TRAINER),
        *_rows(status, {"attempts": ("attempt", plain), "restarts": ("restarts", plain)}),
        *_rows(ratio, {"goodput": ("ratio", percent)}),
    ]


def of_summary(summary: Json) -> Rows:
    """What the trainer's summary.json says of its run."""
    names = {"end": "exitReason", "mode": "mode", "model": "model", "recipe": "recipe"}
    names |= {"precision": "precision"}
    texts = [(label, summary.get(name)) for label, name in names.items()]
    rows = [(label, text) for label, text in texts if isinstance(text, str) and text]
    return [*rows, *_rows(summary, _OF_SUMMARY)]


Forms = Mapping[str, tuple[str, Callable[[float], str]]]
"""By the word for people: the name of the figure, and how it is written."""

_OF_TRAINER: Forms = {
    "top-1 accuracy": ("accuracyTop1", percent),
    "top-5 accuracy": ("accuracyTop5", percent),
    "loss": ("loss", plain),
    "samples per second": ("samplesPerSecond", plain),
    "steps": ("step", plain),
    "samples": ("samplesSeen", plain),
    "repeated steps": ("repeatedSteps", plain),
}
_OF_SUMMARY: Forms = {
    "top-1 accuracy": ("accuracyTop1", percent),
    "top-5 accuracy": ("accuracyTop5", percent),
    "best top-1 accuracy": ("bestAccuracyTop1", percent),
    "loss": ("loss", plain),
    "images per second": ("imagesPerSecond", plain),
    "training time": ("wallSeconds", duration),
    "ranks": ("worldSize", plain),
    "attempts": ("attempts", plain),
    "epochs": ("epochs", plain),
    "steps": ("steps", plain),
    "repeated steps": ("repeatedSteps", plain),
    "skipped steps": ("skippedSteps", plain),
    "samples": ("samplesSeen", plain),
    "skipped samples": ("skippedSamples", plain),
    "parameters": ("parameters", plain),
}


def _rows(values: Json, forms: Forms) -> Iterator[tuple[str, str]]:
    for label, (name, form) in forms.items():
        value = number(values.get(name))
        if value is not None:
            yield label, form(value)


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
