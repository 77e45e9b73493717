"""Reads what a launcher says about its ranks: JSON from ``/status`` or the termination message.

Both have the same format (docs/architecture/wire.md). Neither is trusted: a pod is user code, and
any program may write a termination message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .names import ReportState
from .times import parse_time
from .types import Report

MAX_NUMBER = 2**63
STATES = frozenset(
    (
        ReportState.STARTING,
        ReportState.IDLE,
        ReportState.RUNNING,
        ReportState.FAILED,
        ReportState.STOPPED,
        ReportState.SUCCEEDED,
    )
)


def from_json(source: str | bytes | Mapping[str, Any] | None) -> Report | None:
    """The report, or None when the text is none. A field of a wrong type counts as absent."""
    data = source if isinstance(source, Mapping) else _load(source)
    if not isinstance(data, Mapping) or data.get("state") not in STATES:
        return None
    attempt = _integer(data.get("attempt"))
    if attempt is None:
        return None
    return Report(
        attempt=attempt,
        state=str(data["state"]),
        exit_code=_integer(data.get("exitCode")),
        rank=_integer(data.get("rank")),
        reason=_text(data.get("reason")),
        message=_text(data.get("message")),
        time=parse_time(data.get("time")),
        step=_integer(data.get("step")),
        metrics=_numbers(data.get("metrics")),
    )


def _load(source: str | bytes | None) -> object:
    # A termination message is mostly the last lines of a log: the first character rules it out.
    if not source or source.lstrip()[:1] not in ("{", b"{"):
        return None
    try:
        data: object = json.loads(source)
    except ValueError:
        return None
    return data


def _integer(value: object) -> int | None:
    # True is an int to Python, and not to JSON.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {str(k): float(v) for k, v in value.items() if _is_number(v)}


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return True
    # Whole numbers have no bound in Python and JSON, decimals have: float(10**400) would raise.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
