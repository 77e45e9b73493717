"""What follows a failed worker: another attempt or the end of the job, and all that is counted.

`decide_restart` is the one answer. It asks the user's rules (``spec.failurePolicy.rules``) first,
in their order; the first that matches the root cause decides. Else the default table does, which is
the one of docs/architecture.md. A restart that counts is compared with the limit
(``spec.failurePolicy.maxRestarts``), and every restart is paced by `backoff`. What failed, and
which failure is the root cause, is found in `failure`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Cause, Reason
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json
from inception_operator.spec.failure_policy import Action, Rule

from .backoff import Streak
from .failure import STOPPED_CODE, Failure

# Of sysexits.h: wrong use, wrong data, no input, wrong configuration; of the shell: cannot be
# executed, not found. The same program would fail in the same way again.
PERMANENT_CODES: Final = frozenset((64, 65, 66, 78, 126, 127))
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


@dataclass(frozen=True)
class Counters:
    """What the status counts: all restarts, those that count towards the limit, and the failures
    in a row that the pause depends on.
    """

    restarts: int = 0
    counted: int = 0
    streak: Streak = field(default_factory=Streak)

    @staticmethod
    def of(status: Json) -> Counters:
        """What a status says."""
        return Counters(
            restarts=int(status.get("restarts") or 0),
            counted=int(status.get("restartsCountTowardsMax") or 0),
            streak=Streak.of(status),
        )


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
        fields: Json = {
            "restarts": self.counters.restarts,
            "restartsCountTowardsMax": self.counters.counted,
            **self.counters.streak.to_status(),
        }
        if self.not_before is not None:
            fields["nextAttemptTime"] = format_time(self.not_before)
        return fields


def decide_restart(
    ended: EndedAttempt,
    previous: Json | None,
    rules: Iterable[Rule],
    limit: int,
    counters: Counters,
    now: datetime,
) -> Restart:
    """What follows from the root cause of an attempt, ``previous`` being the root cause before it
    as the status has it, and ``limit`` the number of restarts that may count.
    """
    cause, text = ended.cause, ended.cause.text
    rule = _first_match(cause, rules)
    action = _default_action(cause, previous) if rule is None else rule.action
    if rule is not None:
        text = f"{text}; rule {rule.name} of spec.failurePolicy says {action.value}"
    name = None if rule is None else rule.name

    if action is Action.FAIL:
        return _end(_reason_of_end(cause, rule), text, counters, name)
    counted = action is Action.RESTART
    if counted and counters.counted >= limit:
        text = f"all {limit} restarts are used up; the last cause is {text}"
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
        counters=Counters(counters.restarts + 1, counters.counted + counted, streak),
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


def _first_match(cause: Failure, rules: Iterable[Rule]) -> Rule | None:
    for rule in rules:
        if rule.matches(cause.exit_code, cause.reason, cause.conditions):
            return rule
    return None


def _default_action(cause: Failure, previous: Json | None) -> Action:
    """The default table; its rows are tried from top to bottom."""
    if cause.reason in INFRASTRUCTURE:
        return Action.RESTART_IGNORING_LIMIT
    if cause.exit_code == STOPPED_CODE or cause.reason == Cause.STOPPED:
        return Action.RESTART_IGNORING_LIMIT
    if cause.reason == Cause.PEER_LOST:
        # Whatever code it ends with, it is a consequence.
        return Action.RESTART
    if cause.reason == Cause.CONTRACT_MISMATCH:
        # A pod from before an upgrade of the operator is replaced by one that fits; if that does
        # not fit either, the image of the job is of another release.
        repeated = _was(Cause.CONTRACT_MISMATCH, previous, cause.attempt - 1)
        return Action.FAIL if repeated else Action.RESTART_IGNORING_LIMIT
    if cause.exit_code in PERMANENT_CODES:
        return Action.FAIL
    if cause.reason == Cause.OOM_KILLED and _was(Cause.OOM_KILLED, previous, cause.attempt - 1):
        # Once may be bad luck with the neighbours of a node, twice in a row is the job itself.
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
    if cause.reason == Cause.OOM_KILLED:
        return Reason.OUT_OF_MEMORY
    if cause.reason == Cause.CONTRACT_MISMATCH:
        return Reason.CONTRACT_MISMATCH
    return Reason.PERMANENT_FAILURE
