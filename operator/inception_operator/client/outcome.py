"""How a job has ended, and the exit code that says so to a script.

====================================  ================================================
the job                               exit code of ``wait``, ``watch`` and ``run --wait``
====================================  ================================================
Succeeded                             0
Failed, and its root cause has a      that code: the launcher's contract, for example 65
code from 1 to 255                    for bad data, 137 for too little memory
Failed otherwise, as by a deadline    1
Rejected                              78: the spec cannot be carried out as it is
====================================  ================================================
"""

from __future__ import annotations

from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType, Reason, State
from inception_operator.contract.types import Json

from .errors import FAILED
from .figures import name_of, other_manager, part, state
from .text import clean_line

BAD_CONFIGURATION: Final = 78
_LARGEST: Final = 255
# What ends a job whatever its ranks do: an older root cause is not why.
_IMPOSED: Final = frozenset((Reason.DEADLINE_EXCEEDED, Reason.PRE_RUNNING_DEADLINE_EXCEEDED))


def is_over(resource: Json) -> bool:
    """Whether the job has ended for good."""
    return conditions.terminal(conditions.of(resource))


def is_suspended(resource: Json) -> bool:
    """Whether the operator has suspended the job as its spec is now; its pods may still save.

    The state would not do: that of a job whose spec is wrong as well is Rejected.
    """
    if not is_observed(resource):
        return False
    return conditions.is_true(conditions.of(resource), ConditionType.SUSPENDED)


def is_rejected(resource: Json) -> bool:
    """Whether the operator cannot carry out the spec as it is now."""
    if not is_observed(resource):
        return False
    return conditions.is_false(conditions.of(resource), ConditionType.ACCEPTED)


def is_observed(resource: Json) -> bool:
    """Whether the status is about the spec as it is now."""
    if other_manager(resource):
        # It copies the status from a cluster on which generations are counted anew.
        return True
    generation = part(resource, "metadata", "generation")
    return bool(part(resource, "status", "observedGeneration") == generation)


def exit_code(resource: Json) -> int | None:
    """The code for the end of a job; None while it has none."""
    found = conditions.of(resource)
    if conditions.is_true(found, ConditionType.SUCCEEDED):
        return 0
    if conditions.is_true(found, ConditionType.FAILED):
        if conditions.reason(found, ConditionType.FAILED) in _IMPOSED:
            return FAILED
        code = part(resource, "status", "rootCause", "exitCode")
        return code if isinstance(code, int) and 0 < code <= _LARGEST else FAILED
    return BAD_CONFIGURATION if is_rejected(resource) else None


def sentence(resource: Json) -> str:
    """How the job has ended, or why it is rejected, in the operator's words; else empty."""
    found = conditions.of(resource)
    for kind, wanted in (
        (ConditionType.FAILED, conditions.TRUE),
        (ConditionType.SUCCEEDED, conditions.TRUE),
        (ConditionType.ACCEPTED, conditions.FALSE),
    ):
        condition = conditions.find(found, kind)
        if condition is not None and condition.get("status") == wanted:
            message = condition.get("message") or ""
            return f"{condition.get('reason')}: {message}" if message else str(condition["reason"])
    return ""


def is_ended(resource: Json) -> bool:
    """Whether a job is over, or rejected."""
    return exit_code(resource) is not None


def summary(resource: Json) -> str:
    """The end of a job in one line."""
    word = state(resource)
    cause = clean_line(part(resource, "status", "rootCause", "message") or "")
    text = clean_line(f"{name_of(resource)}: {word}: {sentence(resource)}")
    if word == State.FAILED and cause and cause[:60] not in text:
        text += f" ({cause[:200]})"
    return text
