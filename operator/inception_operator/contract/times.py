"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

# Dates of pods and jobs. Within these years a day more or less is a date as well, so that nobody
# who adds a time span has to think of the end of the calendar.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2999


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> datetime | None:
    """The time a string names, in UTC, or None when it names none.

    A missing zone means UTC; a year that cannot be one of a pod's life is none.
    """
    # Any object: reports come from users' programs, which may write a number or a list here.
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def from_timestamp(seconds: float) -> datetime | None:
    """The time so many seconds after 1970, or None when that is none: milliseconds, mostly."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return time if time.year <= _LAST_YEAR else None


def whole_seconds(time: datetime) -> datetime:
    """The time as it reads back from a status."""
    return time.astimezone(UTC).replace(microsecond=0)
