"""What a report is made of, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from inception_operator.contract.types import Json

Point = tuple[float, float]
"""Time in seconds since 1970, and the value then."""


@dataclass(frozen=True)
class Curve:
    """One figure over time."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """Curves of one unit."""

    title: str
    unit: str
    """``%`` for ratios from 0 to 1; any other text is shown behind the numbers."""
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Span:
    """A time in which something was the same: the state of a job, or the number of its attempt."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Restart:
    """The end of an attempt, and why."""

    time: float | None
    """In seconds since 1970; None where nobody wrote it down."""
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Report:
    """All that is known of a job. What is not known is empty, and left out of the page."""

    title: str
    made: datetime
    sources: tuple[str, ...] = ()
    """Where this comes from, for people."""
    status: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    """The trainer's summary.json."""
    configuration: str = ""
    charts: tuple[Chart, ...] = ()
    spans: tuple[Span, ...] = ()
    restarts: tuple[Restart, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be read."""

    @property
    def goodput(self) -> Mapping[str, object]:
        """Seconds of the job by cause."""
        seconds = (self.status.get("goodput") or {}).get("seconds")
        return seconds if isinstance(seconds, dict) else {}
