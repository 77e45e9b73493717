"""Times as Kubernetes writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> datetime | None:
    """The time a string names, or None when it names none. A missing zone means UTC."""
    # Any object: reports come from users' programs, which may write a number or a list here.
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def whole_seconds(time: datetime) -> datetime:
    """The time as it reads back from a status."""
    return time.astimezone(UTC).replace(microsecond=0)
