"""Conditions of a job: setting them, reading them, and the one word for people that follows from
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .names import ConditionType, Reason, State
from .types import Json

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

# In the order they are written; the first visit sets them all.
INITIAL: Final = (
    (ConditionType.ACCEPTED, UNKNOWN, Reason.CREATED, ""),
    (ConditionType.SUSPENDED, FALSE, Reason.ACTIVE, ""),
    (ConditionType.PODS_READY, FALSE, Reason.WAITING_FOR_PODS, ""),
    (ConditionType.RUNNING, FALSE, Reason.WAITING_FOR_PODS, ""),
    (ConditionType.RESTARTING, FALSE, Reason.ACTIVE, ""),
    (ConditionType.SUCCEEDED, UNKNOWN, Reason.ACTIVE, ""),
    (ConditionType.FAILED, FALSE, Reason.NOT_FAILED, ""),
)
OWN: Final = frozenset(entry[0] for entry in INITIAL)

_STATE_OF: Final = (
    (ConditionType.FAILED, State.FAILED),
    (ConditionType.SUCCEEDED, State.SUCCEEDED),
    (ConditionType.SUSPENDED, State.SUSPENDED),
    (ConditionType.RUNNING, State.RUNNING),
    (ConditionType.RESTARTING, State.RESTARTING),
    (ConditionType.PODS_READY, State.STARTING),
)


def find(conditions: Sequence[Json], kind: str) -> Json | None:
    """The condition of a type."""
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def is_true(conditions: Sequence[Json], kind: str) -> bool:
    """Whether the condition exists and is True."""
    condition = find(conditions, kind)
    return condition is not None and condition.get("status") == TRUE


def is_false(conditions: Sequence[Json], kind: str) -> bool:
    """Whether the condition exists and is False."""
    condition = find(conditions, kind)
    return condition is not None and condition.get("status") == FALSE


def put(
    conditions: list[Json], kind: str, status: str, reason: str, message: str, now: str
) -> bool:
    """Set a condition in place; True when status, reason or message changed. Its time moves with
    the status only.
    """
    condition = find(conditions, kind)
    if condition is None:
        condition = {"type": kind}
        conditions.append(condition)
    wanted = {"status": status, "reason": reason, "message": message}
    if all(condition.get(key) == value for key, value in wanted.items()):
        return False
    if condition.get("status") != status:
        condition["lastTransitionTime"] = now
    condition.update(wanted)
    return True


def state_word(conditions: Sequence[Json]) -> str:
    """One word, with a fixed precedence whatever the order of the conditions."""
    if is_false(conditions, ConditionType.ACCEPTED) and not terminal(conditions):
        return State.REJECTED
    for kind, word in _STATE_OF:
        if is_true(conditions, kind):
            return word
    return State.PENDING


def terminal(conditions: Sequence[Json]) -> bool:
    """Succeeded or failed: nothing changes any more."""
    return is_true(conditions, ConditionType.SUCCEEDED) or is_true(conditions, ConditionType.FAILED)
