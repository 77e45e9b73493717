"""The report: what the launcher tells the operator, over HTTP and as termination message."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .compat import UTC, StrEnum
from .contract import CONTRACT
from .rank_times import RankTimes

TERMINATION_MESSAGE_BYTES = 4096
CUT = " …"
"""Stands where a message was cut off."""


class State(StrEnum):
    """The launcher's state in the words of the contract."""

    STARTING = "Starting"
    IDLE = "Idle"
    RUNNING = "Running"
    FAILED = "Failed"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"

    @property
    def ready(self) -> bool:
        """Tell what ``/readyz`` answers in this state while the launcher stays."""
        return self in (State.IDLE, State.RUNNING, State.SUCCEEDED)


@dataclass(frozen=True)
class Report:
    """One report; ``time`` is seconds since the epoch."""

    attempt: int = 0
    state: State = State.STARTING
    time: float = 0.0
    exit_code: int | None = None
    rank: int | None = None
    reason: str | None = None
    message: str | None = None
    host: str = ""
    step: int | None = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    ranks: tuple[RankTimes, ...] = ()
    """Where the steps of the ranks of this node went, while they run."""
    leaving: bool = False
    """The launcher was told to end and takes no further attempt."""

    @property
    def ready(self) -> bool:
        """Tell what ``/readyz`` answers."""
        return self.state.ready and not self.leaving

    def to_dict(self) -> dict[str, Any]:
        """Make the JSON object of the contract."""
        return {
            "attempt": self.attempt,
            "state": str(self.state),
            "exitCode": self.exit_code,
            "rank": self.rank,
            "host": self.host,
            "reason": self.reason,
            "message": self.message,
            "time": timestamp(self.time),
            "step": self.step,
            "metrics": self.metrics,
            "ranks": [times.to_dict() for times in self.ranks],
            "leaving": self.leaving,
            "contract": CONTRACT,
        }

    def to_bytes(self) -> bytes:
        """Encode the whole report; what is not valid text becomes a question mark."""
        return json.dumps(self.to_dict(), ensure_ascii=False).encode("utf-8", "replace")


def timestamp(seconds: float) -> str:
    """Write a moment as the contract does, UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def with_progress(report: Report, progress: object) -> Report:
    """Add step and metrics of a progress file; anything malformed is left out."""
    if not isinstance(progress, dict):
        return report
    step = progress.get("step")
    metrics = progress.get("metrics")
    return dataclasses.replace(
        report,
        step=step if isinstance(step, int) else report.step,
        metrics=metrics if isinstance(metrics, dict) else report.metrics,
    )


def termination_message(report: Report, limit: int = TERMINATION_MESSAGE_BYTES) -> bytes:
    """Encode a report in at most ``limit`` bytes: what does not fit is cut off the message, but
    metrics that take more than half of it are left out first.

    Where the steps went is left out: it is of interest only while they go on.
    """
    report = dataclasses.replace(report, ranks=())
    data = report.to_bytes()
    if len(data) > limit and len(dataclasses.replace(report, message=None).to_bytes()) > limit // 2:
        # Why an attempt ended is worth more than its last figures.
        report = dataclasses.replace(report, metrics={})
        data = report.to_bytes()
    text = report.message or ""
    while len(data) > limit and text:
        # Six bytes is the longest escape of one character, so a cut of this size never takes too
        # much.
        text = text[: len(text) - max(1, (len(data) - limit) // 6)]
        data = dataclasses.replace(report, message=text + CUT if text else None).to_bytes()
    return data
