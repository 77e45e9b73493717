"""Whether a launcher is still there: who speaks for it, and when its silence counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inception_operator.contract.assignment import work
from inception_operator.contract.names import ReportState
from inception_operator.contract.types import PodView, Report
from inception_operator.decide.liveness import (
    SILENCE,
    WARM_UP,
    is_dead_spare,
    is_unresponsive,
    response_deadline,
    unresponsive_at,
)
from inception_operator.spec.failure_policy import WAIT, NodeLoss

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SINCE = NOW - timedelta(seconds=10)
LOSS = NodeLoss(90)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def silent(**fields: Any) -> PodView:
    """A pod whose launcher was up and neither is ready nor answers."""
    base: dict[str, Any] = {
        "name": "job-0-1",
        "uid": "uid-0",
        "slot": 0,
        "incarnation": 1,
        "phase": "Running",
        "ready": False,
        "reachable": False,
        "ready_changed": ago(60),
        "unreachable_since": ago(50),
        "created": ago(600),
        "node": "node-a",
    }
    return PodView(**(base | fields))


@pytest.mark.parametrize(
    ("pod", "policy", "due"),
    [
        (silent(), WAIT, SINCE + SILENCE),
        (silent(ready_changed=ago(5)), WAIT, ago(5) + SILENCE),
        (silent(unreachable_since=ago(3)), WAIT, ago(3) + SILENCE),
        (silent(ready=True), WAIT, None),
        (silent(reachable=True), WAIT, None),
        (silent(reachable=None), WAIT, None),
        (silent(phase="Pending"), WAIT, None),
        (silent(exit_code=1), WAIT, None),
        (silent(node_lost_since=ago(40)), LOSS, ago(40) + timedelta(seconds=90)),
        (silent(), LOSS, SINCE + SILENCE),
    ],
    ids=[
        "silent for long",
        "just unready",
        "just unreachable",
        "ready",
        "answers",
        "not asked yet",
        "not started",
        "ended",
        "node is gone",
        "node is well",
    ],
)
def test_when_a_silent_launcher_counts_as_gone(
    pod: PodView, policy: NodeLoss, due: datetime | None
) -> None:
    assert unresponsive_at(pod, SINCE, policy) == due


@pytest.mark.parametrize(
    ("pod", "useless"),
    [
        (silent(), True),
        (silent(reachable=True), False),
        (silent(reachable=True, unhealthy="gpu-1"), True),
        (silent(node_lost_since=ago(40)), False),
        (silent(node_lost_since=ago(200), ready_changed=ago(200), unreachable_since=ago(95)), True),
    ],
    ids=["silent", "answers", "broken device", "node may come back", "lost node"],
)
def test_a_survivor_that_is_of_no_use(pod: PodView, useless: bool) -> None:
    assert is_unresponsive(pod, ago(600), LOSS, NOW) is useless


def test_a_spare_is_not_waited_for_as_long_as_a_member() -> None:
    spare = silent(node_lost_since=ago(40))
    assert is_dead_spare(spare, LOSS, NOW)
    assert not is_unresponsive(spare, ago(600), LOSS, NOW)
    young = silent(created=ago(60))
    assert not is_dead_spare(young, WAIT, NOW), "torch may still be on its way"


@pytest.mark.parametrize(
    ("state", "patience"), [(ReportState.IDLE, SILENCE), (ReportState.STARTING, WARM_UP)]
)
def test_a_launcher_that_says_that_it_starts_is_given_the_time_of_an_import(
    state: str, patience: timedelta
) -> None:
    told = work(2, 0, nodes=2, nproc=1, master="10.0.0.7", graceful=False)
    pod = silent(reachable=True, report=Report(1, state), assignment=told)
    assert response_deadline(pod, 2, SINCE, WAIT) == SINCE + patience
