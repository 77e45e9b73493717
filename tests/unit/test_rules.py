"""The user's rules: the first that matches the root cause decides, else the default table does."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_sim import job
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import Cause
from inception_operator.decide import restart_policy
from inception_operator.decide.failure import Failure
from inception_operator.decide.restart_policy import Verdict
from inception_operator.spec.failure_policy import Action, Rule
from inception_operator.spec.job import parse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
DRAIN = {"type": "DisruptionTarget"}


def cause(code: int | None = 7, reason: str = "Error", **conditions: str) -> Failure:
    return Failure(3, 0, reason, NOW, exit_code=code, conditions=tuple(conditions.items()))


def rule(name: str = "mine", action: str = "Fail", **matchers: Any) -> dict[str, Any]:
    return {"name": name, "action": action, **matchers}


def codes(operator: str, *values: int) -> dict[str, Any]:
    return {"onExitCodes": {"operator": operator, "values": list(values)}}


def parse_rules(sources: Iterable[dict[str, Any]]) -> tuple[Rule, ...]:
    return parse(job(1, failurePolicy={"rules": list(sources)})).failure_rules


def judge(failure: Failure, *sources: dict[str, Any]) -> Verdict:
    return restart_policy.judge(failure, None, parse_rules(sources))


@pytest.mark.parametrize(
    ("failure", "matchers", "matches"),
    [
        (cause(7), codes("In", 7, 8), True),
        (cause(9), codes("In", 7, 8), False),
        (cause(9), codes("NotIn", 7, 8), True),
        (cause(7), codes("NotIn", 7, 8), False),
        (cause(None), codes("NotIn", 7), False),
        (cause(0), codes("NotIn", 7), False),
        (cause(7, "DataError"), {"onReasons": ["DataError", "Hang"]}, True),
        (cause(7), {"onReasons": ["DataError"]}, False),
        (cause(DisruptionTarget="True"), {"onPodConditions": [DRAIN]}, True),
        (cause(DisruptionTarget="False"), {"onPodConditions": [DRAIN]}, False),
        (
            cause(DisruptionTarget="False"),
            {"onPodConditions": [{**DRAIN, "status": "False"}]},
            True,
        ),
        (cause(Other="True"), {"onPodConditions": [DRAIN, {"type": "Other"}]}, True),
        (cause(), {"onPodConditions": [DRAIN]}, False),
        (cause(7, "Hang"), {**codes("In", 7), "onReasons": ["Hang"]}, True),
        (cause(8, "Hang"), {**codes("In", 7), "onReasons": ["Hang"]}, False),
        (
            cause(7, "Hang"),
            {**codes("In", 7), "onReasons": ["Hang"], "onPodConditions": [DRAIN]},
            False,
        ),
    ],
    ids=[
        *("in", "not in the list", "outside", "inside", "no code", "code 0"),
        *(
            "reason",
            "another reason",
            "condition",
            "condition false",
            "wanted false",
            "any condition",
            "no condition",
        ),
        *("both", "one of two", "two of three"),
    ],
)
def test_matching(failure: Failure, matchers: dict[str, Any], matches: bool) -> None:
    assert (judge(failure, rule(**matchers)).rule == "mine") is matches


@pytest.mark.parametrize("action", list(Action), ids=lambda action: action.value)
def test_a_rule_overrules_the_table(action: Action) -> None:
    for code in (1, 64, 75):
        assert judge(cause(code), rule("r", action.value, **codes("In", code))) == Verdict(
            action, "r"
        )


def test_the_first_match_decides() -> None:
    first, second = (
        rule("a", "Restart", **codes("In", 7, 8)),
        rule("b", "Fail", **codes("In", 8, 9)),
    )
    assert [judge(cause(code), first, second).rule for code in (7, 8, 9)] == ["a", "a", "b"]
    assert judge(cause(8), second, first) == Verdict(Action.FAIL, "b")


@pytest.mark.parametrize(
    ("failure", "action"),
    [
        (cause(1), Action.RESTART),
        (cause(65), Action.FAIL),
        (cause(None, "PodDeleted"), Action.RESTART_IGNORING_LIMIT),
    ],
    ids=["any code", "hopeless", "infrastructure"],
)
def test_the_table_decides_where_no_rule_matches(failure: Failure, action: Action) -> None:
    assert judge(failure, rule(**codes("In", 99))) == Verdict(action)
    assert judge(failure) == Verdict(action)


def test_the_rule_is_named() -> None:
    verdict = judge(cause(7), rule("bad-disk", "RestartIgnoringLimit", **codes("In", 7)))
    assert verdict.explain(cause(7)) == (
        "Error in slot 0, exit code 7; rule bad-disk of spec.failurePolicy says RestartIgnoringLimit"
    )
    assert judge(cause(7)).explain(cause(7)) == "Error in slot 0, exit code 7"


@pytest.mark.parametrize(
    ("failure", "sources", "reason"),
    [
        (cause(7), [rule(**codes("In", 7))], "FailurePolicy"),
        (cause(137, "OOMKilled"), [], "OutOfMemory"),
        (cause(64), [], "PermanentFailure"),
    ],
    ids=["rule", "memory", "table"],
)
def test_reason_of_the_end(failure: Failure, sources: list[dict[str, Any]], reason: str) -> None:
    assert judge(failure, *sources).reason(failure) == reason


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([rule()], r"rules\[0\]: matches nothing; add onExitCodes"),
        (
            [rule(**codes("In", 1)), rule(onReasons=["Hang"])],
            "rules: the names of rules must differ",
        ),
        ([rule("", **codes("In", 1))], r"rules\[0\]\.name: must not be empty"),
        (
            [rule(action="Retry", **codes("In", 1))],
            r"rules\[0\]\.action: 'Retry' is none of Fail, Restart",
        ),
        ([rule(**codes("Is", 1))], r"onExitCodes\.operator: 'Is' is none of In, NotIn"),
        ([rule(**codes("In", 0, 1))], r"onExitCodes\.values: must be one or more"),
        ([rule(**codes("In"))], r"onExitCodes\.values: must be one or more"),
        ([rule(str(number), **codes("In", 1)) for number in range(21)], "rules: at most 20 rules"),
    ],
    ids=["no matcher", "same name", "no name", "action", "operator", "code 0", "no code", "many"],
)
def test_rules_that_cannot_be_are_refused(sources: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_rules(sources)


def test_the_schema_knows_all_reasons_and_actions() -> None:
    crd = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
        "properties"
    ]
    rule = spec["failurePolicy"]["properties"]["rules"]["items"]["properties"]
    known = {value for name, value in vars(Cause).items() if name.isupper()}
    assert set(rule["onReasons"]["items"]["enum"]) == known
    assert rule["action"]["enum"] == [action.value for action in Action]
