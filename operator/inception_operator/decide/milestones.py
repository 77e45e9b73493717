"""What one write of a status brings to an end: a wait, an attempt, the job. Metrics count these.

All of it follows from the two statuses, so nothing has to be remembered. Their times are whole
seconds, and so is the resolution of every duration here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.names import Cause, ConditionType, Reason, State
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from . import goodput

QUEUED: Final = "queued"
STARTED: Final = "started"
DETECTED: Final = "detected"
RECOVERED: Final = "recovered"
NEW_STEP_AFTER_START: Final = "new step after start"
NEW_STEP_AFTER_FAILURE: Final = "new step after failure"
DURATIONS: Final = (
    QUEUED,
    STARTED,
    DETECTED,
    RECOVERED,
    NEW_STEP_AFTER_START,
    NEW_STEP_AFTER_FAILURE,
)
OTHER: Final = "Other"
_CAUSES: Final = frozenset(value for name, value in vars(Cause).items() if name.isupper())
_REASONS: Final = frozenset(value for name, value in vars(Reason).items() if name.isupper())


def outcome(old: Json, new: Json) -> tuple[str, str] | None:
    """How the job has ended with this write, Succeeded or Failed and the reason; None if it has
    not.
    """
    present = _conditions(new)
    if conditions.terminal(_conditions(old)) or not conditions.terminal(present):
        return None
    failed = conditions.is_true(present, ConditionType.FAILED)
    kind = ConditionType.FAILED if failed else ConditionType.SUCCEEDED
    reason = conditions.reason(present, kind)
    return (State.FAILED if failed else State.SUCCEEDED), _known(reason, _REASONS)


def restart_cause(old: Json, new: Json) -> str | None:
    """Why the job is restarted with this write; None if it is not."""
    if (new.get("restarts") or 0) <= (old.get("restarts") or 0):
        return None
    cause = new.get("rootCause") or {}
    return _known(cause.get("reason"), _CAUSES)


def durations(old: Json, new: Json) -> Iterator[tuple[str, float]]:
    """What has come to an end with this write, and how many seconds it took."""
    after = new.get(goodput.KEY) or {}
    # A job that starts fast runs, or has even ended, by its first status.
    before = old.get(goodput.KEY) or ({} if _conditions(old) else {"cause": goodput.PODS})
    now = parse_time(after.get("lastUpdatedTime"))
    if now is None or "cause" not in before:
        return
    for what, since in _ended(old, new, before, after.get("cause", "")):
        begin = parse_time(since)
        if begin is not None:
            yield what, _seconds(begin, now)


def _ended(old: Json, new: Json, begun: Json, after: str) -> Iterator[tuple[str, str | None]]:
    before, since = begun["cause"], begun.get("causeStartTime")
    cause = new.get("rootCause") or {}
    if before == goodput.QUEUE and after not in ("", goodput.QUEUE):
        yield QUEUED, since
    if before in (goodput.PODS, goodput.FIRST_STEP, goodput.QUEUE) and _begins_to_run(old, new):
        yield STARTED, new.get("startTime")
    if cause and cause != old.get("rootCause"):
        yield DETECTED, cause.get("time")
    if before == goodput.RECOVERY and after in goodput.STEPPING:
        yield RECOVERED, since
    if after != goodput.PRODUCTIVE or before == goodput.PRODUCTIVE:
        return
    if not (new.get("trainerStatus") or {}).get("step"):
        # A program that tells no steps: nobody knows when it made one.
        return
    if before in (goodput.RECOVERY, goodput.REPEATED):
        # Not after a resize, a move or a suspension, which no failure has begun.
        if cause.get("attempt") == (new.get("attempt") or 0) - 1:
            yield NEW_STEP_AFTER_FAILURE, cause.get("time")
    else:
        yield NEW_STEP_AFTER_START, new.get("startTime")


def _begins_to_run(old: Json, new: Json) -> bool:
    ran = conditions.is_true(_conditions(old), ConditionType.RUNNING)
    return not ran and conditions.is_true(_conditions(new), ConditionType.RUNNING)


def _conditions(status: Json) -> list[Json]:
    return status.get("conditions") or []


def _known(reason: str | None, words: frozenset[str]) -> str:
    """The reason if it is one of the operator's own: programs may report any, and a rule may name
    any, and each makes a series.
    """
    return reason if reason in words else OTHER


def _seconds(begin: datetime, end: datetime) -> float:
    # Clocks of nodes and operators differ.
    return max(0.0, (end - begin).total_seconds())
