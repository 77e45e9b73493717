"""Reports of the launcher: the answer of ``/status`` and the termination message are the same JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .names import ReportState
from .times import parse_time
from .types import Json, Report

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
    """The report, or None when the text is none: any program may write a termination message."""
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
        host=_text(data.get("host")),
        reason=_text(data.get("reason")),
        message=_text(data.get("message")),
        time=parse_time(data.get("time")),
        step=_integer(data.get("step")),
        metrics=_numbers(data.get("metrics")),
    )


def to_json(report: Report) -> Json:
    """The JSON a launcher would send."""
    return {
        "attempt": report.attempt,
        "state": report.state,
        "exitCode": report.exit_code,
        "rank": report.rank,
        "host": report.host,
        "reason": report.reason,
        "message": report.message,
        "time": None if report.time is None else report.time.isoformat().replace("+00:00", "Z"),
        "step": report.step,
        "metrics": dict(report.metrics),
    }


def _load(source: str | bytes | None) -> object:
    if not source or source.lstrip()[:1] not in ("{", b"{"):
        return None
    try:
        data: object = json.loads(source)
    except ValueError:
        return None
    return data


def _integer(value: object) -> int | None:
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
    # Whole numbers have no bound in Python and JSON, decimals have.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
