"""What a status says of members on nodes that are about to go; who leaves, and when, is decided in
`moves`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Reason
from inception_operator.contract.times import format_time, parse_time, whole_seconds
from inception_operator.contract.types import NORMAL, WARNING, Event, Json

KEY: Final = "nextMoveTime"


@dataclass(frozen=True)
class Departure:
    """What PodsReady says besides the number of pods."""

    reason: str
    text: str

    def event(self, max_text: int) -> Event:
        """The event about it."""
        kind = WARNING if self.reason == Reason.CANNOT_LEAVE_NODE else NORMAL
        return Event(kind, self.reason, self.text[:max_text])


def next_move(status: Json, now: datetime) -> datetime | None:
    """No replacement is made before this time; None when one may be made at once."""
    due = parse_time(status.get(KEY))
    return due if due is not None and due > now else None


def postponed(now: datetime, pause: timedelta) -> Json:
    """The fields of the status after a replacement was given up: the next one is made later."""
    return {KEY: format_time(whole_seconds(now) + pause)}
