"""Times in a status that lie ahead of the operator's clock are read as the present.

A status is anybody's to edit, and its last writer may have been an operator on a node whose clock
is ahead. Deadlines and pauses that are counted from such a time would end late or never, and
figures would count as older than those that are there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from inception_operator.contract.times import format_time, parse_time
from inception_operator.contract.types import Json

from . import avoided_nodes, backoff, departure

SLACK: Final = timedelta(seconds=5)
"""Clocks that are kept in time differ by less."""
# How far ahead the operator itself writes each of them. `lastCheckpointTime` is not among them: it
# is the trainer's word, which comes anew with all figures, and no decision rests on it.
_AHEAD: Final = {
    "startTime": timedelta(),
    "completionTime": timedelta(),
    "causeStartTime": timedelta(),
    "lastUpdatedTime": timedelta(),
    "lastTransitionTime": timedelta(),
    "time": timedelta(),
    # Rounded up to a whole second.
    "nextAttemptTime": timedelta(seconds=backoff.LONGEST + 1),
    "expirationTime": avoided_nodes.LASTING,
    departure.KEY: departure.PAUSE,
}


def none_ahead(status: Json, now: datetime) -> Json:
    """The status with the present for each time that no operator can have written by now."""
    return {key: _none_ahead(key, value, now) for key, value in status.items()}


def _none_ahead(key: str, value: Any, now: datetime) -> Any:
    if isinstance(value, dict):
        return none_ahead(value, now)
    if isinstance(value, list):
        return [_none_ahead(key, each, now) for each in value]
    if key not in _AHEAD:
        return value
    time = parse_time(value)
    if time is not None and time <= now + _AHEAD[key] + SLACK:
        return value
    # Years that are none of a job's life are ahead as well: a date-time of the schema has them.
    return format_time(now)
