"""What follows a failed worker: rules, then the default table; the limit, counters and pauses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_sim import job
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import Cause, Reason
from inception_operator.contract.types import Json
from inception_operator.decide.backoff import Streak
from inception_operator.decide.budget import Budget, Counters
from inception_operator.decide.failure import Failure
from inception_operator.decide.restart_policy import EndedAttempt, Restart, decide_restart
from inception_operator.spec.failure_policy import Action, Rule
from inception_operator.spec.job import parse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
DRAIN = {"type": "DisruptionTarget"}


def cause(
    code: int | None = 7,
    reason: str = "Error",
    *,
    message: str = "",
    step: int | None = None,
    **conditions: str,
) -> Failure:
    pairs = tuple(conditions.items())
    return Failure(3, 0, reason, NOW, exit_code=code, message=message, conditions=pairs, step=step)


def rule(name: str = "mine", action: str = "Fail", **matchers: Any) -> dict[str, Any]:
    return {"name": name, "action": action, **matchers}


def codes(operator: str, *values: int) -> dict[str, Any]:
    return {"onExitCodes": {"operator": operator, "values": list(values)}}


def parse_rules(sources: Iterable[dict[str, Any]]) -> tuple[Rule, ...]:
    return parse(job(1, failurePolicy={"rules": list(sources)})).failure_rules


def decide(
    failure: Failure,
    *sources: dict[str, Any],
    previous: Json | None = None,
    counters: Counters = Counters(),  # noqa: B008 - frozen
    limit: int = 10,
) -> Restart:
    return decide_restart(
        EndedAttempt(failure), previous, parse_rules(sources), Budget(limit, 600), counters, NOW
    )


FAIL, COUNTS, FREE = Action.FAIL, Action.RESTART, Action.RESTART_IGNORING_LIMIT
MINE = rule("mine", "Restart", **codes("In", 65))
OURS = rule("ours", "RestartIgnoringLimit", **codes("In", 7))
HARSH = rule("harsh", "Fail", onReasons=["PodDeleted"])
USED_UP = Counters(restarts=9, counted=3)
OOM: Json = {"reason": "OOMKilled", "attempt": 2}
# Root cause, root cause before, rules, counters, limit; action, reason, counters after.
ROWS = [
    (cause(1), None, [], Counters(), 3, COUNTS, Reason.RESTARTING, (1, 1)),
    (cause(1), None, [], Counters(5, 2), 3, COUNTS, Reason.RESTARTING, (6, 3)),
    (cause(1), None, [], USED_UP, 3, FAIL, Reason.MAX_RESTARTS_EXCEEDED, (9, 3)),
    (cause(1), None, [], Counters(), 0, FAIL, Reason.MAX_RESTARTS_EXCEEDED, (0, 0)),
    (cause(75, "Stopped"), None, [], USED_UP, 3, FREE, Reason.RESTARTING, (10, 3)),
    (cause(None, "PodDeleted"), None, [], USED_UP, 3, FREE, Reason.RESTARTING, (10, 3)),
    (cause(None, "PodDeleted"), None, [HARSH], Counters(), 3, FAIL, Reason.FAILURE_POLICY, (0, 0)),
    (cause(65, "DataError"), None, [], Counters(), 3, FAIL, Reason.PERMANENT_FAILURE, (0, 0)),
    (cause(65, "DataError"), None, [MINE], Counters(), 3, COUNTS, Reason.RESTARTING, (1, 1)),
    (
        *(cause(65, "DataError"), None, [MINE], USED_UP, 3),
        *(FAIL, Reason.MAX_RESTARTS_EXCEEDED, (9, 3)),
    ),
    (cause(7), None, [OURS], USED_UP, 3, FREE, Reason.RESTARTING, (10, 3)),
    (cause(137, "OOMKilled"), None, [], Counters(), 3, COUNTS, Reason.RESTARTING, (1, 1)),
    (cause(137, "OOMKilled"), OOM, [], Counters(), 3, FAIL, Reason.OUT_OF_MEMORY, (0, 0)),
    (cause(65, "PeerLost"), None, [], Counters(), 3, COUNTS, Reason.RESTARTING, (1, 1)),
]


@pytest.mark.parametrize(
    ("failure", "previous", "rules", "counters", "limit", "action", "reason", "after"),
    ROWS,
    ids=[
        "first failure",
        "last one that the limit allows",
        "limit is reached",
        "no restart allowed",
        "stopped ranks do not count",
        "infrastructure does not count",
        "rule against infrastructure",
        "permanent code",
        "rule for a permanent code",
        "rule and limit",
        "rule that ignores the limit",
        "out of memory",
        "out of memory twice in a row",
        "lost peer",
    ],
)
def test_what_follows_a_failed_worker(
    failure: Failure,
    previous: Json | None,
    rules: list[dict[str, Any]],
    counters: Counters,
    limit: int,
    action: Action,
    reason: str,
    after: tuple[int, int],
) -> None:
    restart = decide(failure, *rules, previous=previous, counters=counters, limit=limit)
    assert (restart.action, restart.reason) == (action, reason)
    assert (restart.counters.restarts, restart.counters.counted) == after
    assert restart.counted is (action is COUNTS)
    assert restart.not_before is None


def test_the_message_says_what_happened_and_why_the_job_ends() -> None:
    assert decide(cause(1)).message == "attempt 3 ended: Error in slot 0, exit code 1"
    assert decide(cause(65)).message == "Error in slot 0, exit code 65"
    assert decide(cause(1), limit=0).message == (
        "all 0 restarts are used up; the last cause is Error in slot 0, exit code 1"
    )


NAN: dict[str, Any] = {"code": 79, "reason": "NonFinite"}


@pytest.mark.parametrize(
    ("step", "before", "action"),
    [(500, 500, FAIL), (500, 450, COUNTS), (500, None, COUNTS), (None, 500, COUNTS)],
    ids=["same step", "another step", "first time", "no step known"],
)
def test_a_loss_that_is_no_number_twice_at_the_same_step_ends_the_job(
    step: int | None, before: int | None, action: Action
) -> None:
    failure = cause(**NAN, message="loss is nan", step=step)
    restart = decide(failure, counters=Counters(non_finite_step=before))
    assert restart.action is action
    if action is FAIL:
        assert restart.reason == Reason.NON_FINITE
        assert "it is the second time at step 500" in restart.message
        assert "lower the learning rate" in restart.message
    else:
        assert restart.counters.non_finite_step == (before if step is None else step)


def test_a_batch_that_does_not_fit_into_the_device_ends_the_job_at_once() -> None:
    words = "DeviceOutOfMemory: the memory of this cuda device does not hold it; 192 fit"
    end = decide(cause(80, "DeviceOutOfMemory", message=words))
    assert (end.action, end.reason) == (FAIL, Reason.OUT_OF_MEMORY)
    assert "192 fit" in end.message
    # A launcher of an earlier release has no word for it.
    assert decide(cause(80, "Error")).action is COUNTS


def test_other_failures_in_between_do_not_hide_that_it_is_the_same_step() -> None:
    first = decide(cause(**NAN, step=500))
    between = decide(cause(1), counters=Counters.of(first.to_status()))
    status = between.to_status()
    assert status["nonFiniteStep"] == 500
    assert decide(cause(**NAN, step=500), counters=Counters.of(status)).action is FAIL


def test_a_rule_decides_about_a_loss_that_is_no_number() -> None:
    patient = rule("patient", "Restart", onReasons=["NonFinite"])
    restart = decide(cause(**NAN, step=5), patient, counters=Counters(non_finite_step=5))
    assert (restart.action, restart.rule) == (COUNTS, "patient")
    assert "second time" not in restart.message


def test_a_pod_beyond_its_own_limit_counts_and_ends_with_the_words_of_the_kubelet() -> None:
    words = 'Container trainer exceeded its local ephemeral storage limit "50Mi".'
    failure = cause(137, "LimitExceeded", message=words)
    assert decide(failure).action is COUNTS
    end = decide(failure, counters=Counters(counted=3), limit=3)
    assert end.reason == Reason.MAX_RESTARTS_EXCEEDED
    assert end.message.endswith(words)


def test_the_third_failure_in_a_row_is_paused() -> None:
    second, third = (Counters(streak=Streak(failures, attempt=1)) for failures in (1, 2))
    assert decide(cause(1), counters=second).not_before is None
    restart = decide(cause(1), counters=third)
    assert restart.not_before == NOW + timedelta(seconds=1)
    assert restart.message.endswith(
        "; waiting 1 s before attempt 4: 3 failures in a row without a step"
    )


def test_an_attempt_that_got_somewhere_ends_the_streak() -> None:
    ended = EndedAttempt(cause(1), reached=5, ran=timedelta(seconds=9))
    counters = Counters(streak=Streak(7, attempt=1))
    restart = decide_restart(ended, None, (), Budget(10, 600), counters, NOW)
    assert restart.counters.streak == Streak(1, attempt=3, step=5)
    assert restart.to_status() == {
        "restarts": 1,
        "restartsCountTowardsMax": 1,
        "failuresInARow": 1,
        "furthest": {"attempt": 3, "step": 5},
    }


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
        (cause(message="ECC error 7\nmore"), {"onMessagePatterns": ["lost", "ECC .*[0-9]"]}, True),
        (cause(message="first\nCUDA"), {"onMessagePatterns": ["^CUDA"]}, False),
        (cause(message="first\nCUDA"), {"onMessagePatterns": ["(?m)^CUDA"]}, True),
        (cause(), {"onMessagePatterns": ["a"]}, False),
        (cause(message="a"), {**codes("In", 8), "onMessagePatterns": ["a"]}, False),
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
        *("pattern", "begin of the text", "begin of a line", "no message", "pattern alone"),
    ],
)
def test_matching(failure: Failure, matchers: dict[str, Any], matches: bool) -> None:
    assert (decide(failure, rule(**matchers)).rule == "mine") is matches


@pytest.mark.parametrize("action", list(Action), ids=lambda action: action.value)
def test_a_rule_overrules_the_table(action: Action) -> None:
    for code in (1, 64, 75):
        restart = decide(cause(code), rule("r", action.value, **codes("In", code)))
        assert (restart.action, restart.rule) == (action, "r")


def test_the_first_match_decides() -> None:
    first, second = (
        rule("a", "Restart", **codes("In", 7, 8)),
        rule("b", "Fail", **codes("In", 8, 9)),
    )
    assert [decide(cause(code), first, second).rule for code in (7, 8, 9)] == ["a", "a", "b"]
    restart = decide(cause(8), second, first)
    assert (restart.action, restart.rule) == (Action.FAIL, "b")


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
    for restart in (decide(failure, rule(**codes("In", 99))), decide(failure)):
        assert (restart.action, restart.rule) == (action, None)


def test_the_rule_is_named() -> None:
    restart = decide(cause(7), rule("bad-disk", "RestartIgnoringLimit", **codes("In", 7)))
    assert restart.message == (
        "attempt 3 ended: Error in slot 0, exit code 7; "
        "rule bad-disk of spec.failurePolicy says RestartIgnoringLimit"
    )
    assert decide(cause(7)).message == "attempt 3 ended: Error in slot 0, exit code 7"


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
    previous = {"reason": "OOMKilled", "attempt": 2}
    assert decide(failure, *sources, previous=previous).reason == reason


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([rule()], r"rules\[0\]: matches nothing; add onExitCodes"),
        (
            [rule(onMessagePatterns=["ok", "(a"])],
            r"rules\[0\]\.onMessagePatterns\[1\]: is no regular expression: unclosed group",
        ),
        (
            [rule(onMessagePatterns=["a"] * 5)],
            r"rules\[0\]\.onMessagePatterns: must have at most 4 entries",
        ),
        (
            [rule(str(number), onMessagePatterns=["a"] * 4) for number in range(6)],
            "rules: at most 20 message patterns",
        ),
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
    ids=[
        *("no matcher", "pattern", "patterns of a rule", "patterns of all", "same name"),
        *("no name", "action", "operator", "code 0", "no code", "many"),
    ],
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
