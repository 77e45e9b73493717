"""``spec.failurePolicy.rules``: the user's own answers to failures, before the default table of
`failure`.

Rules are tried in their order against the root cause of an attempt; the first that matches decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inception_operator.contract.names import Cause, Reason
from inception_operator.contract.types import Json
from inception_operator.spec.fields import SpecError

from . import failure
from .failure import Action, Failure

MAX_RULES: Final = 20
_PATH: Final = "spec.failurePolicy.rules"


@dataclass(frozen=True)
class ExitCodes:
    """``onExitCodes``; a failure without an exit code, or with 0, matches neither operator."""

    values: frozenset[int]
    negated: bool = False

    def matches(self, code: int | None) -> bool:
        """Whether the code is one of the values, or with NotIn none of them."""
        return bool(code) and (code in self.values) is not self.negated


@dataclass(frozen=True)
class Rule:
    """One rule. It matches when every criterion that it has does; a list does when any of its
    entries does.
    """

    name: str
    action: Action
    exit_codes: ExitCodes | None = None
    reasons: frozenset[str] = frozenset()
    pod_conditions: frozenset[tuple[str, str]] = frozenset()

    def matches(self, cause: Failure) -> bool:
        """Whether the rule decides about this root cause."""
        return (
            (self.exit_codes is None or self.exit_codes.matches(cause.exit_code))
            and (not self.reasons or cause.reason in self.reasons)
            and (not self.pod_conditions or not self.pod_conditions.isdisjoint(cause.conditions))
        )


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
        if rule.matches(cause):
            return Verdict(rule.action, rule.name)
    return Verdict(failure.action(cause, previous))


def parse_rules(source: Any) -> tuple[Rule, ...]:
    """The rules of a custom resource; raises `SpecError` for what the schema of an older CRD let
    through.
    """
    rules = tuple(_rule(f"{_PATH}[{index}]", each) for index, each in enumerate(source or ()))
    names = [rule.name for rule in rules]
    if len(rules) > MAX_RULES:
        raise SpecError(_PATH, f"at most {MAX_RULES} rules are possible; merge some")
    if len(set(names)) < len(names):
        raise SpecError(_PATH, "the names of rules must differ; rename one")
    return rules


def _rule(path: str, source: Json) -> Rule:
    rule = Rule(
        name=str(source.get("name") or ""),
        action=_action(path, source.get("action")),
        exit_codes=_exit_codes(f"{path}.onExitCodes", source.get("onExitCodes")),
        reasons=frozenset(source.get("onReasons") or ()),
        pod_conditions=frozenset(
            _pod_condition(each) for each in source.get("onPodConditions") or ()
        ),
    )
    if not rule.name:
        raise SpecError(
            f"{path}.name", "must not be empty; events and conditions name the rule that decided"
        )
    if rule.exit_codes is None and not rule.reasons and not rule.pod_conditions:
        raise SpecError(path, "matches nothing; add onExitCodes, onReasons or onPodConditions")
    return rule


def _action(path: str, value: object) -> Action:
    try:
        return Action(value)
    except ValueError:
        known = ", ".join(action.value for action in Action)
        raise SpecError(f"{path}.action", f"{value!r} is none of {known}") from None


def _exit_codes(path: str, source: Json | None) -> ExitCodes | None:
    if source is None:
        return None
    operator, values = source.get("operator"), _codes(path, source.get("values"))
    if operator not in ("In", "NotIn"):
        raise SpecError(f"{path}.operator", f"{operator!r} is none of In, NotIn")
    return ExitCodes(values, negated=operator == "NotIn")


def _codes(path: str, values: Sequence[object] | None) -> frozenset[int]:
    codes = frozenset(code for code in values or () if isinstance(code, int) and 1 <= code <= 255)
    if not codes or len(codes) < len(values or ()):
        raise SpecError(f"{path}.values", "must be one or more different exit codes from 1 to 255")
    return codes


def _pod_condition(source: Json) -> tuple[str, str]:
    return str(source.get("type")), str(source.get("status") or "True")
