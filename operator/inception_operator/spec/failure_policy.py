"""``spec.failurePolicy``: the user's rules about failures, and when a node counts as lost.

Here the rules are parsed and matched; what follows from a match is decided by
`decide.restart_policy`, and `decide.liveness` tells which node is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from . import patterns
from .validation import AS_TUPLE, Model, OneOf, Remedy, Within, refusal

MAX_RULES: Final = 20
MAX_PATTERNS: Final = 4
"""Of one rule."""
MAX_ALL_PATTERNS: Final = 20
"""Of all rules of a job."""
MAX_SECONDS: Final = 86_400
KEEP: Final = "KeepPods"
FORCE_DELETE: Final = "ForceDeletePods"
POLICIES: Final = (KEEP, FORCE_DELETE)


class Action(Enum):
    """What a failure leads to."""

    FAIL = "Fail"
    RESTART = "Restart"
    RESTART_IGNORING_LIMIT = "RestartIgnoringLimit"


_ACTIONS: Final = ", ".join(action.value for action in Action)


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) < len(values):
        raise refusal("the same code twice")
    return values


class ExitCodes(Model):
    """``onExitCodes``; a failure without an exit code, or with 0, matches neither operator."""

    operator: Annotated[str, OneOf(("In", "NotIn"))]
    values: Annotated[
        tuple[Annotated[int, Field(ge=1, le=255)], ...],
        AS_TUPLE,
        Field(min_length=1),
        AfterValidator(_distinct),
        Remedy("must be one or more different exit codes from 1 to 255"),
    ] = Field(default=(), validate_default=True)

    def matches(self, code: int | None) -> bool:
        """Whether the code is one of the values, or with NotIn none of them."""
        if not code:
            return False
        listed = code in self.values
        return listed if self.operator == "In" else not listed


class PodCondition(Model):
    """One entry of ``onPodConditions``: a condition that the failed pod must have."""

    type: str
    status: str = "True"


class Rule(Model):
    """One rule of ``spec.failurePolicy.rules``.

    It matches when every criterion that it has does; a list matches when any of its entries does.
    """

    name: Annotated[
        str,
        Field(min_length=1),
        Remedy("must not be empty; events and conditions name the rule that decided"),
    ] = Field(default="", validate_default=True)
    # An enumeration's member is made of a string, which the strict rule would refuse.
    action: Annotated[Action, Field(strict=False), Remedy(f"{{input!r}} is none of {_ACTIONS}")]
    exit_codes: ExitCodes | None = Field(default=None, validation_alias="onExitCodes")
    reasons: Annotated[tuple[str, ...], AS_TUPLE] = Field(default=(), validation_alias="onReasons")
    pod_conditions: Annotated[tuple[PodCondition, ...], AS_TUPLE] = Field(
        default=(), validation_alias="onPodConditions"
    )
    message_patterns: Annotated[
        tuple[Annotated[str, AfterValidator(patterns.check)], ...], AS_TUPLE
    ] = Field(default=(), validation_alias="onMessagePatterns", max_length=MAX_PATTERNS)

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        others = (self.reasons, self.pod_conditions, self.message_patterns)
        if self.exit_codes is None and not any(others):
            raise refusal(
                "matches nothing; add onExitCodes, onReasons, onPodConditions or onMessagePatterns"
            )
        return self

    def matches(
        self,
        exit_code: int | None,
        reason: str,
        conditions: Collection[tuple[str, str]],
        message: str,
    ) -> bool:
        """Whether the rule decides about a root cause.

        ``conditions`` are type and status of the conditions of the pod that failed, ``message`` is
        what the status says of the cause.
        """
        if self.exit_codes is not None and not self.exit_codes.matches(exit_code):
            return False
        if self.reasons and reason not in self.reasons:
            return False
        if self.pod_conditions and not any(
            (each.type, each.status) in conditions for each in self.pod_conditions
        ):
            return False
        # Last, because it costs most.
        if not self.message_patterns:
            return True
        return any(patterns.found(pattern, message) for pattern in self.message_patterns)


def check_rules(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Refuse more rules than allowed, and two of one name."""
    if len(rules) > MAX_RULES:
        raise refusal(f"at most {MAX_RULES} rules are possible; merge some")
    if sum(len(rule.message_patterns) for rule in rules) > MAX_ALL_PATTERNS:
        raise refusal(
            f"at most {MAX_ALL_PATTERNS} message patterns are possible in all rules; merge some "
            "with |"
        )
    # Events name the rule that decided, and nobody could tell which of two it was.
    names = {rule.name for rule in rules}
    if len(names) < len(rules):
        raise refusal("the names of rules must differ; rename one")
    return rules


@dataclass(frozen=True)
class NodeLoss:
    """When a node counts as lost.

    ``seconds`` is how long a node may be gone, None for as long as Kubernetes likes; ``force``
    whether its pods are then deleted by force.
    """

    seconds: int | None = None
    force: bool = False


WAIT: Final = NodeLoss()
"""The default: Kubernetes alone decides when a node is lost."""


class NodeLossFields(Model):
    """The fields of ``spec.failurePolicy`` about lost nodes."""

    node_lost_seconds: Annotated[int, Within(1, MAX_SECONDS)] | None = None
    node_lost_policy: Annotated[
        str, OneOf(POLICIES, "{input} is unknown; choose one of {choices}")
    ] = KEEP

    @field_validator("node_lost_policy", mode="after")
    @classmethod
    def _force_needs_a_time(cls, policy: str, info: ValidationInfo) -> str:
        # Of a time that was refused itself there is none in the data, and its error comes first.
        if policy == FORCE_DELETE and info.data.get("node_lost_seconds") is None:
            raise refusal(f"{FORCE_DELETE} needs nodeLostSeconds; set it")
        return policy

    @property
    def node_loss(self) -> NodeLoss:
        """The two fields as one value."""
        return NodeLoss(self.node_lost_seconds, self.node_lost_policy == FORCE_DELETE)
