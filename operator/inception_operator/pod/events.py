"""Why a pod does not start, in the words of the events about it.

The kubelet says of an image or of a container that it cannot start in the pod itself. Of what comes
before (volumes, Secrets and ConfigMaps as volumes, devices, the network) it tells in events alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from inception_operator.contract.limits import cut_text
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

MAX_TEXT: Final = 1024
# Whatever failed before the kubelet got so far has succeeded since.
_OVER_AFTER: Final = frozenset(("Pulling", "Pulled", "Created", "Started"))
# Of the scheduler's trouble the pod's own conditions tell, as long as it lasts.
_NOT_THE_NODES: Final = frozenset(("FailedScheduling",))
# Says again, later and in other words, that something is missing which another event names.
_VAGUE: Final = "timed out waiting for the condition"
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def trouble(events: Iterable[Json]) -> str | None:
    """Reason and message of the event that says what keeps the pod from starting, such as
    ``FailedMount: MountVolume.SetUp failed …``; None if none does.
    """
    events = list(events)
    over = max(
        (_time(event) for event in events if event.get("reason") in _OVER_AFTER), default=None
    )
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning"
        and event.get("reason") not in _NOT_THE_NODES
        and (over is None or _time(event) > over)
    ]
    if not warnings:
        return None
    latest = max(warnings, key=_tells)
    text = f"{latest.get('reason')}: {latest.get('message') or 'without a message'}"
    return cut_text(" ".join(text.split()), MAX_TEXT)


def _tells(event: Json) -> tuple[bool, datetime, str]:
    message = str(event.get("message") or "")
    # The message breaks ties, so that every pass chooses the same event.
    return _VAGUE not in message, _time(event), message


def _time(event: Json) -> datetime:
    """When it was last seen: each kind of recorder has its own field for that."""
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime") if isinstance(series, dict) else None,
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
    )
    return next((time for time in map(parse_time, times) if time is not None), _LONG_AGO)
