"""Reports as a launcher would send them."""

from __future__ import annotations

from inception_operator.contract.types import Json, Report


def to_json(report: Report) -> Json:
    """The JSON of ``/status`` and of the termination message."""
    return {
        "attempt": report.attempt,
        "state": report.state,
        "exitCode": report.exit_code,
        "rank": report.rank,
        "host": "a-host",
        "reason": report.reason,
        "message": report.message,
        "time": None if report.time is None else report.time.isoformat().replace("+00:00", "Z"),
        "step": report.step,
        "metrics": dict(report.metrics),
        "leaving": report.leaving,
        "contract": report.contract,
    }
