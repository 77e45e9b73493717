"""What a status says of members that leave their nodes; who leaves, and when, is decided in `moves`
and `slow_members`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Reason
from inception_operator.contract.times import format_time, parse_time, whole_seconds
from inception_operator.contract.types import NORMAL, WARNING, Event, Json, Straggler

KEY: Final = "nextMoveTime"
# A replacement that does not start holds devices that others could use.
PAUSE: Final = timedelta(minutes=30)
REPLACED: Final = "replacedStragglers"
# What makes a rank slow may be its share of the work: then it is as slow on any other node.
COOL_DOWN: Final = timedelta(minutes=30)
DAY: Final = timedelta(days=1)
MOST_IN_A_DAY: Final = 3
_MOST_LISTED: Final = 16
_WARNINGS: Final = (Reason.CANNOT_LEAVE_NODE, Reason.CANNOT_REPLACE_STRAGGLER)


@dataclass(frozen=True)
class Departure:
    """What PodsReady says besides the number of pods."""

    reason: str
    text: str

    def event(self, max_text: int) -> Event:
        """The event about it."""
        kind = WARNING if self.reason in _WARNINGS else NORMAL
        return Event(kind, self.reason, self.text[:max_text])


def next_move(status: Json, now: datetime) -> datetime | None:
    """No replacement is made before this time; None when one may be made at once."""
    due = parse_time(status.get(KEY))
    return due if due is not None and due > now else None


def postponed(now: datetime, pause: timedelta) -> Json:
    """The fields of the status after a replacement was given up: the next one is made later."""
    return {KEY: format_time(whole_seconds(now) + pause)}


def replaced(status: Json, straggler: Straggler, now: datetime) -> Json:
    """The field of the status once a straggler has left its node."""
    entry = {
        "rank": straggler.rank,
        "pod": straggler.pod,
        "node": straggler.node,
        "time": format_time(whole_seconds(now)),
    }
    entries = [*(status.get(REPLACED) or ()), entry]
    return {REPLACED: entries[-_MOST_LISTED:]}


def next_straggler(status: Json, now: datetime) -> datetime | None:
    """No straggler is replaced before this time; None when one may be."""
    times = [time for _, time in _of_a_day(status, now)]
    if not times:
        return None
    due = times[-1] + COOL_DOWN
    if len(times) >= MOST_IN_A_DAY:
        due = max(due, times[-MOST_IN_A_DAY] + DAY)
    return due if due > now else None


def slow_nodes(status: Json, now: datetime) -> tuple[str, ...]:
    """The nodes that stragglers have left within a day: new pods go there where there are no others
    alone.
    """
    return tuple(dict.fromkeys(node for node, _ in _of_a_day(status, now)))


def _of_a_day(status: Json, now: datetime) -> Iterator[tuple[str, datetime]]:
    """Node and time of the replacements that count, in their order."""
    for entry in status.get(REPLACED) or ():
        time = parse_time(entry.get("time"))
        if time is not None and time <= now < time + DAY:
            yield str(entry.get("node")), time
