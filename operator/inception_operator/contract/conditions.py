"""Conditions of ``status.conditions``: setting them, reading them, and ``status.state``.

They follow the convention of `metav1.Condition`: type, status, reason, message, and a
``lastTransitionTime`` that moves with the status only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .names import ConditionType, Reason, State
from .types import Json

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

# In the order they are written. The first decision on a job sets them all, so that nobody has to
# guess what an absent condition means.
INITIAL: Final = (
    (ConditionType.ACCEPTED, UNKNOWN, Reason.CREATED, ""),
    (ConditionType.SUSPENDED, FALSE, Reason.ACTIVE, ""),
    (ConditionType.PODS_READY, FALSE, Reason.WAITING_FOR_PODS, ""),
    (ConditionType.RUNNING, FALSE, Reason.WAITING_FOR_PODS, ""),
    (ConditionType.RESTARTING, FALSE, Reason.ACTIVE, ""),
    (ConditionType.SUCCEEDED, UNKNOWN, Reason.ACTIVE, ""),
    (ConditionType.FAILED, FALSE, Reason.NOT_FAILED, ""),
)
# Conditions of other types belong to other controllers: server-side apply leaves them alone.
OWN: Final = frozenset(entry[0] for entry in INITIAL)

# Several conditions are True at a time, for instance PodsReady and Running: the first one counts.
_STATE_OF: Final = (
    (ConditionType.FAILED, State.FAILED),
    (ConditionType.SUCCEEDED, State.SUCCEEDED),
    (ConditionType.SUSPENDED, State.SUSPENDED),
    (ConditionType.RUNNING, State.RUNNING),
    (ConditionType.RESTARTING, State.RESTARTING),
    (ConditionType.PODS_READY, State.STARTING),
)


def of(resource: Json) -> Sequence[Json]:
    """Those of a resource; none before the operator has seen it."""
    return (resource.get("status") or {}).get("conditions") or ()


def find(conditions: Sequence[Json], kind: str) -> Json | None:
    """The condition of this type, or None."""
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
    """Set a condition in place; True when its status, reason or message has changed.

    ``now`` is the time of the transition, as it is written.
    """
    condition = find(conditions, kind)
    if condition is None:
        condition = {"type": kind}
        conditions.append(condition)
    fields = {"status": status, "reason": reason, "message": message}
    if all(condition.get(key) == value for key, value in fields.items()):
        return False
    if condition.get("status") != status:
        condition["lastTransitionTime"] = now
    condition.update(fields)
    return True


def state_word(conditions: Sequence[Json]) -> str:
    """The value of ``status.state``: the first of `_STATE_OF` that is True, else Pending."""
    # A job that had run to its end stays Succeeded or Failed when its spec is broken later.
    if is_false(conditions, ConditionType.ACCEPTED) and not terminal(conditions):
        return State.REJECTED
    for kind, word in _STATE_OF:
        if is_true(conditions, kind):
            return word
    return State.PENDING


def terminal(conditions: Sequence[Json]) -> bool:
    """Whether the job is over; a job that is over never comes back."""
    return is_true(conditions, ConditionType.SUCCEEDED) or is_true(conditions, ConditionType.FAILED)


def reason(conditions: Sequence[Json], kind: str) -> str:
    """The reason of a condition, empty without one."""
    condition = find(conditions, kind)
    return str(condition["reason"]) if condition is not None else ""


def message(conditions: Sequence[Json], kind: str, reason: str) -> str | None:
    """The message of a condition while it has this reason."""
    condition = find(conditions, kind)
    if condition is None or condition["reason"] != reason:
        return None
    return str(condition["message"])
