"""What follows a failed worker: another attempt or the end of the job, and all that is counted.

`decide_restart` is the one answer. It asks the user's rules (``spec.failurePolicy.rules``) first,
in their order; the first that matches the root cause decides. Else the default table does, which is
the one of docs/architecture.md. A restart that counts is compared with the limit
(``spec.failurePolicy.maxRestarts``), which `budget` counts, and every restart is paced by
`backoff`. What failed, and which failure is the root cause, is found in `failure`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Cause, Reason
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json
from inception_operator.spec.failure_policy import Action, Rule

from .budget import Budget, Counters
from .failure import MAX_MESSAGE, STOPPED_CODE, Failure

# Of sysexits.h: wrong use, wrong data, no input, wrong configuration; of the shell: cannot be
# executed, not found. The same program would fail in the same way again.
PERMANENT_CODES: Final = frozenset((64, 65, 66, 78, 126, 127))
# By its name and not by its code, 80, by which a program of others in a pod with an older launcher
# may mean something else.
PERMANENT_CAUSES: Final = frozenset((Cause.DEVICE_OUT_OF_MEMORY,))
# Nothing that the program did; it may happen to it any number of times.
INFRASTRUCTURE: Final = frozenset(
    (
        Cause.POD_DELETED,
        Cause.EVICTED,
        Cause.DISRUPTED,
        Cause.NODE_LOST,
        Cause.ADMISSION_ERROR,
        Cause.NOT_RESPONDING,
        Cause.DEVICE_UNHEALTHY,
    )
)


# Whatever code a rank ends with after these, it is a consequence: a pod that is told to end for its
# own deadline may still save and end with 75.
_CODES_ARE_ECHOES: Final = frozenset((Cause.PEER_LOST, Cause.LIMIT_EXCEEDED))


@dataclass(frozen=True)
class EndedAttempt:
    """An attempt that has failed: its root cause, the furthest step that it is known to have made
    (0 for none), and the time since its assignments went out.
    """

    cause: Failure
    reached: int = 0
    ran: timedelta = timedelta()


@dataclass(frozen=True)
class Restart:
    """What follows a failed attempt.

    ``action`` FAIL ends the job; every other one starts the next attempt, no earlier than
    ``not_before`` (None: at once). ``reason`` and ``message`` are those of the condition Failed or
    Restarting. ``counted`` says whether the restart counts towards the limit, ``counters`` are
    those of the status from now on. ``rule`` is the name of the rule that decided, None when the
    default table did.
    """

    action: Action
    reason: str
    message: str
    counted: bool
    not_before: datetime | None
    counters: Counters
    rule: str | None = None

    def to_status(self) -> Json:
        """The counters and the pause as fields of the status."""
        fields = self.counters.to_status()
        if self.not_before is not None:
            fields["nextAttemptTime"] = format_time(self.not_before)
        return fields


def decide_restart(
    ended: EndedAttempt,
    previous: Json | None,
    rules: Iterable[Rule],
    budget: Budget,
    counters: Counters,
    now: datetime,
) -> Restart:
    """What follows from the root cause of an attempt, ``previous`` being the root cause before it
    as the status has it, and ``counters`` those of the status.
    """
    cause, text = ended.cause, ended.cause.text
    rule = _first_match(cause, rules)
    action = _default_action(cause, previous, counters) if rule is None else rule.action
    if rule is not None:
        text = f"{text}; rule {rule.name} of spec.failurePolicy says {action.value}"
    elif _is_non_finite_again(cause, counters):
        text = f"{text}; {_non_finite_remedy(cause)}"
    name = None if rule is None else rule.name

    if action is Action.FAIL:
        return _end(_reason_of_end(cause, rule), text, counters, name)
    counters = counters.after_progress(budget, ended.reached, ended.ran)
    counted = action is Action.RESTART
    if counted and counters.counted >= budget.limit:
        text = f"{_used_up(budget)}; the last cause is {text}"
        return _end(Reason.MAX_RESTARTS_EXCEEDED, text, counters, name)

    streak = counters.streak.after(cause.attempt, ended.reached, ended.ran)
    not_before = streak.not_before(cause.attempt, now)
    text = f"attempt {cause.attempt} ended: {text}"
    if not_before is not None:
        text += f"; {streak.explain(cause.attempt + 1)}"
    return Restart(
        action=action,
        reason=Reason.RESTARTING,
        message=text,
        counted=counted,
        not_before=not_before,
        counters=_remember(cause, counters).after_restart(counted, streak),
        rule=name,
    )


def _end(reason: str, message: str, counters: Counters, rule: str | None) -> Restart:
    """The job fails; nothing more is counted."""
    return Restart(
        action=Action.FAIL,
        reason=reason,
        message=message,
        counted=False,
        not_before=None,
        counters=counters,
        rule=rule,
    )


def _used_up(budget: Budget) -> str:
    text = f"all {budget.limit} restarts are used up"
    if not budget.limit:
        return text
    return (
        f"{text} without {budget.reset_after} s of progress between them "
        "(spec.failurePolicy.maxRestarts and resetAfterSeconds)"
    )


def _remember(cause: Failure, counters: Counters) -> Counters:
    """The counters with the step of a loss that was no number."""
    if cause.reason != Cause.NON_FINITE or cause.step is None:
        return counters
    return replace(counters, non_finite_step=cause.step)


def _is_non_finite_again(cause: Failure, counters: Counters) -> bool:
    """Whether the loss has become no number at the same step as the last time."""
    if cause.reason != Cause.NON_FINITE or cause.step is None:
        return False
    return cause.step == counters.non_finite_step


def _non_finite_remedy(cause: Failure) -> str:
    return (
        f"it is the second time at step {cause.step}, and another attempt would compute the same: "
        "lower the learning rate or lengthen its warm-up, look at the samples of that step, and "
        "create the job again"
    )


def _first_match(cause: Failure, rules: Iterable[Rule]) -> Rule | None:
    # Patterns are for what people see of it.
    message = cause.message[:MAX_MESSAGE]
    for rule in rules:
        if rule.matches(cause.exit_code, cause.reason, cause.conditions, message):
            return rule
    return None


def _default_action(cause: Failure, previous: Json | None, counters: Counters) -> Action:
    """The default table; its rows are tried from top to bottom."""
    if cause.reason in INFRASTRUCTURE:
        return Action.RESTART_IGNORING_LIMIT
    if cause.reason in _CODES_ARE_ECHOES:
        return Action.RESTART
    if cause.exit_code == STOPPED_CODE or cause.reason == Cause.STOPPED:
        return Action.RESTART_IGNORING_LIMIT
    if cause.reason == Cause.CONTRACT_MISMATCH:
        # A pod from before an upgrade of the operator is replaced by one that fits; if that does
        # not fit either, the image of the job is of another release.
        repeated = _was(Cause.CONTRACT_MISMATCH, previous, cause.attempt - 1)
        return Action.FAIL if repeated else Action.RESTART_IGNORING_LIMIT
    if cause.exit_code in PERMANENT_CODES or cause.reason in PERMANENT_CAUSES:
        return Action.FAIL
    if cause.reason == Cause.OOM_KILLED and _was(Cause.OOM_KILLED, previous, cause.attempt - 1):
        # Once may be bad luck with the neighbours of a node, twice in a row is the job itself.
        return Action.FAIL
    if _is_non_finite_again(cause, counters):
        return Action.FAIL
    return Action.RESTART


def _was(reason: str, cause: Json | None, attempt: int) -> bool:
    """Whether the attempt ended for this reason."""
    if cause is None or cause.get("attempt") != attempt:
        return False
    return bool(cause.get("reason") == reason)


def _reason_of_end(cause: Failure, rule: Rule | None) -> str:
    """Reason of the condition Failed when the action is Fail."""
    if rule is not None:
        return Reason.FAILURE_POLICY
    if cause.reason in (Cause.OOM_KILLED, Cause.DEVICE_OUT_OF_MEMORY):
        return Reason.OUT_OF_MEMORY
    if cause.reason == Cause.CONTRACT_MISMATCH:
        return Reason.CONTRACT_MISMATCH
    if cause.reason == Cause.NON_FINITE:
        return Reason.NON_FINITE
    return Reason.PERMANENT_FAILURE
