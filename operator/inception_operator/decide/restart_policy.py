"""``spec.failurePolicy.rules``: the user's own answers to failures, before the default table of
`failure`.

Rules are tried in their order against the root cause of an attempt; the first that matches decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inception_operator.contract.names import Cause, Reason
from inception_operator.contract.types import Json
from inception_operator.spec.failure_policy import Action, Rule

from . import failure
from .failure import Failure


@dataclass(frozen=True)
class Verdict:
    """What follows from a root cause, and the name of the rule that says so; None for the default
    table.
    """

    action: Action
    rule: str | None = None

    def reason(self, cause: Failure) -> str:
        """Reason of the condition Failed when the action is Fail."""
        if self.rule is not None:
            return Reason.FAILURE_POLICY
        return (
            Reason.OUT_OF_MEMORY if cause.reason == Cause.OOM_KILLED else Reason.PERMANENT_FAILURE
        )

    def explain(self, cause: Failure) -> str:
        """The root cause for people, with the rule that decided about it."""
        if self.rule is None:
            return cause.text
        return f"{cause.text}; rule {self.rule} of spec.failurePolicy says {self.action.value}"


def judge(cause: Failure, previous: Json | None, rules: Iterable[Rule]) -> Verdict:
    """The action of the first rule that matches, else that of the default table."""
    for rule in rules:
        if rule.matches(cause.exit_code, cause.reason, cause.conditions):
            return Verdict(rule.action, rule.name)
    return Verdict(failure.action(cause, previous))
