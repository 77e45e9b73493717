"""``spec.failurePolicy``: the user's rules about failures, and when a node counts as lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from inception_operator.contract.types import Json

from . import fields
from .fields import SpecError

MAX_RULES: Final = 20
KEEP: Final = "KeepPods"
FORCE_DELETE: Final = "ForceDeletePods"
POLICIES: Final = (KEEP, FORCE_DELETE)
MAX_SECONDS: Final = 86_400
_PATH: Final = "spec.failurePolicy"
_RULES: Final = f"{_PATH}.rules"


class Action(Enum):
    """What a failure leads to."""

    FAIL = "Fail"
    RESTART = "Restart"
    RESTART_IGNORING_LIMIT = "RestartIgnoringLimit"


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

    def matches(
        self, exit_code: int | None, reason: str, conditions: Collection[tuple[str, str]]
    ) -> bool:
        """Whether the rule decides about a root cause; ``conditions`` are type and status of its
        pod's.
        """
        return (
            (self.exit_codes is None or self.exit_codes.matches(exit_code))
            and (not self.reasons or reason in self.reasons)
            and (not self.pod_conditions or not self.pod_conditions.isdisjoint(conditions))
        )


@dataclass(frozen=True)
class NodeLoss:
    """How long a node may be gone, None for as long as Kubernetes likes, and whether to delete its
    pods by force.
    """

    seconds: int | None = None
    force: bool = False


WAIT: Final = NodeLoss()
"""The default: Kubernetes alone decides when a node is lost."""


def parse_rules(source: Any) -> tuple[Rule, ...]:
    """The rules of a custom resource; raises `SpecError` for what the schema of an older CRD let
    through.
    """
    rules = tuple(_rule(f"{_RULES}[{index}]", each) for index, each in enumerate(source or ()))
    names = [rule.name for rule in rules]
    if len(rules) > MAX_RULES:
        raise SpecError(_RULES, f"at most {MAX_RULES} rules are possible; merge some")
    if len(set(names)) < len(names):
        raise SpecError(_RULES, "the names of rules must differ; rename one")
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


def parse_node_loss(policy: Json) -> NodeLoss:
    """The fields of a failure policy."""
    seconds = fields.integer(policy, _PATH, "nodeLostSeconds", 1, MAX_SECONDS)
    wanted = policy.get("nodeLostPolicy") or KEEP
    if wanted not in POLICIES:
        raise SpecError(
            f"{_PATH}.nodeLostPolicy", f"{wanted} is unknown; choose one of {', '.join(POLICIES)}"
        )
    if wanted == FORCE_DELETE and seconds is None:
        raise SpecError(f"{_PATH}.nodeLostPolicy", f"{FORCE_DELETE} needs nodeLostSeconds; set it")
    return NodeLoss(seconds, wanted == FORCE_DELETE)
