"""A job's resource as Python reads it: how far it is, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from inception_operator.client.figures import decimal, name_of, part, state
from inception_operator.client.pod_logs import Line
from inception_operator.client.progress_line import progress_line
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .fields import Status


@dataclass(frozen=True)
class Progress:
    """A job at one moment. What is not known, as before the first step, is None.

    Printed it is the line of ``kubectl inception watch``.
    """

    state: str
    """Pending, Starting, Running, Restarting, Suspended, Succeeded, Failed or Rejected."""
    attempt: int = 0
    restarts: int = 0
    percentage: int | None = None
    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    accuracy_top1: float | None = None
    """From 0 to 1, on the data for validation."""
    accuracy_top5: float | None = None
    samples_per_second: float | None = None
    samples_seen: int | None = None
    remaining: timedelta | None = None
    """The trainer's estimate."""
    nodes: str | None = None
    """Those that are ready, of those wanted: 2/2."""
    time: datetime | None = None
    """When the trainer's figures were read."""
    line: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.line

    @classmethod
    def of(cls, resource: Json) -> Progress:
        """That of a resource."""
        status = resource.get("status") or {}
        trainer = status.get("trainerStatus") or {}
        seconds = trainer.get("estimatedRemainingSeconds")
        return cls(
            state=state(resource),
            attempt=status.get("attempt") or 0,
            restarts=status.get("restarts") or 0,
            percentage=trainer.get("progressPercentage"),
            epoch=trainer.get("epoch"),
            step=trainer.get("step"),
            loss=decimal(trainer.get("loss")),
            accuracy_top1=decimal(trainer.get("accuracyTop1")),
            accuracy_top5=decimal(trainer.get("accuracyTop5")),
            samples_per_second=decimal(trainer.get("samplesPerSecond")),
            samples_seen=trainer.get("samplesSeen"),
            remaining=None if seconds is None else timedelta(seconds=seconds),
            nodes=part(status, "nodes", "summary"),
            time=parse_time(trainer.get("lastUpdatedTime")),
            line=progress_line(resource),
        )


@dataclass(frozen=True)
class Result:
    """What came of a job that has succeeded. What nobody measured is None."""

    name: str
    namespace: str
    accuracy_top1: float | None
    """From 0 to 1, on the data for validation."""
    accuracy_top5: float | None
    loss: float | None
    epoch: int | None
    step: int | None
    samples_seen: int | None
    samples_per_second: float | None
    """Mean over the time in which samples were trained on."""
    duration: timedelta | None
    """From its start to its end, with all restarts."""
    goodput: float | None
    """The share of that time that made progress, from 0 to 1."""
    attempts: int
    restarts: int
    checkpoints: str | None
    """Where they are: a path in the pods' volume, or a URI. None when the job keeps none."""
    status: Status = field(repr=False)
    """All of it, as the API has it."""

    @classmethod
    def of(cls, resource: Json) -> Result:
        """That of the resource of a job that is over."""
        status: Any = resource.get("status") or {}
        trainer = status.get("trainerStatus") or {}
        return cls(
            name=name_of(resource),
            namespace=str(resource["metadata"].get("namespace", "")),
            accuracy_top1=decimal(trainer.get("accuracyTop1")),
            accuracy_top5=decimal(trainer.get("accuracyTop5")),
            loss=decimal(trainer.get("loss")),
            epoch=trainer.get("epoch"),
            step=trainer.get("step"),
            samples_seen=trainer.get("samplesSeen"),
            samples_per_second=_mean_speed(status, trainer),
            duration=_duration(status),
            goodput=decimal(part(status, "goodput", "ratio")),
            attempts=status.get("attempt") or 0,
            restarts=status.get("restarts") or 0,
            checkpoints=status.get("checkpointPath"),
            status=cast("Status", status),
        )


def _mean_speed(status: Json, trainer: Json) -> float | None:
    # With all that it imports it takes a third of a second.
    from inception_operator.decide import goodput

    seen = trainer.get("samplesSeen")
    seconds = part(status, goodput.KEY, "seconds", goodput.PRODUCTIVE)
    return seen / seconds if seen and seconds else None


def _duration(status: Json) -> timedelta | None:
    began, ended = parse_time(status.get("startTime")), parse_time(status.get("completionTime"))
    return ended - began if began is not None and ended is not None else None


@dataclass(frozen=True)
class LogLine:
    """A line that a pod of a job has written, without what a terminal would obey."""

    pod: str
    time: datetime
    text: str

    def __str__(self) -> str:
        return f"[{self.pod}] {self.text}"

    @classmethod
    def of(cls, line: Line) -> LogLine:
        """That of a line as the API server gives it."""
        return cls(line.pod, time_of(line), line.shown)


def time_of(line: Line) -> datetime:
    """When a line was written; now where the API server does not say so."""
    # Nanoseconds, which Python 3.11 cuts to what it knows.
    try:
        found = datetime.fromisoformat(line.time)
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
