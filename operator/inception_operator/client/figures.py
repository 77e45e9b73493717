"""Figures of a job as people read them: spans of time, percentages, columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from inception_operator.contract.names import MANAGER, State
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

NONE: Final = "-"
HEADER: Final = (
    *("NAME", "STATE", "NODES", "ACCELERATOR", "PROGRESS", "TOP1", "IMG/S", "RESTARTS", "AGE"),
)
WIDE: Final = ("MODEL", "ETA", "GOODPUT", "REASON")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def span(seconds: float | None) -> str:
    """A span of time in its two greatest units, for example 3h12m."""
    if seconds is None:
        return NONE
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        if left >= size or parts:
            parts.append((left // size, unit))
            left %= size
    if not parts:
        return "0s"
    return "".join(f"{count}{unit}" for count, unit in parts[:2] if count)


def since(time: object, now: datetime) -> str:
    """How long ago a time of an object is."""
    found = parse_time(time)
    return NONE if found is None else span((now - found).total_seconds())


def text(value: object) -> str:
    """A figure, or a dash where it is not known."""
    return NONE if value is None or value == "" else str(value)


def percent(value: object) -> str:
    """A percentage that is an integer of the status."""
    return NONE if value is None else f"{value} %"


def ratio(value: object) -> str:
    """A decimal from 0 to 1 as a percentage."""
    number = decimal(value)
    return NONE if number is None else f"{number:.1%}".replace("%", " %")


def decimal(value: object) -> float | None:
    """A decimal of the status, which is a string; None where it is none."""
    try:
        return float(str(value)) if value is not None else None
    except ValueError:
        return None


def part(source: Mapping[str, Any], *path: str) -> Any:
    """What is at this path of an object; None where anything is missing."""
    found: Any = source
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def name_of(resource: Json) -> str:
    """The name of an object."""
    return str(resource["metadata"].get("name", ""))


def other_manager(resource: Json) -> str | None:
    """The controller that has the job, where that is not our operator."""
    found = part(resource, "spec", "runPolicy", "managedBy") or MANAGER
    return None if found == MANAGER else str(found)


def state(resource: Json) -> str:
    """The state of a job; of one that no operator has seen yet it is Pending."""
    return str(part(resource, "status", "state") or State.PENDING)


def row(resource: Json, now: datetime, *, wide: bool = False) -> Sequence[str]:
    """The columns of a job, as ``kubectl get itrain`` has them."""
    status = part(resource, "status") or {}
    trainer = part(status, "trainerStatus") or {}
    cells = (
        str(resource["metadata"]["name"]),
        state(resource),
        text(part(status, "nodes", "summary")),
        text(status.get("accelerator")),
        percent(trainer.get("progressPercentage")),
        text(trainer.get("accuracyTop1")),
        text(trainer.get("samplesPerSecond")),
        text(status.get("restarts", 0)),
        since(resource["metadata"].get("creationTimestamp"), now),
    )
    if not wide:
        return cells
    return (
        *cells,
        text(status.get("model")),
        span(trainer.get("estimatedRemainingSeconds")),
        ratio(part(status, "goodput", "ratio")),
        text(part(status, "rootCause", "reason")),
    )
