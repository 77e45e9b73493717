"""A straggler on a real API server: launchers tell of their ranks, status and events name it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fake_launcher import FakeLauncher
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

# Three looks, five seconds apart, find it, and three more its end.
pytestmark = [pytest.mark.timeout(600), pytest.mark.nightly]


class Launcher(FakeLauncher):
    """One rank; its fellow takes 0.1 s for itself in a step of 0.5 s."""

    def __init__(self, rank: int) -> None:
        super().__init__(f"127.0.0.{80 + rank}")
        self.rank = rank
        self.attempt = 0
        self.own = 0.1
        self.steps = 0
        self.own_seconds = 0.0

    def answer(self, path: str) -> str | None:
        """Ten steps have been done since it was asked last."""
        if path != "/status":
            return super().answer(path)
        if not self.attempt:
            return json.dumps({"attempt": 0, "state": "Starting"})
        self.steps += 10
        self.own_seconds += 10 * self.own
        times = {
            "rank": self.rank,
            "steps": self.steps,
            "stepSeconds": self.steps * 0.5,
            "ownSeconds": self.own_seconds,
            "waitSeconds": self.steps * 0.5 - self.own_seconds,
        }
        return json.dumps({"attempt": self.attempt, "state": "Running", "ranks": [times]})


@pytest.fixture
def launchers() -> Iterator[list[Launcher]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Launcher(rank)) for rank in range(2)]


def run_until_one_is_named(trainings: Trainings, launchers: list[Launcher], **spec: Any) -> None:
    hold = {"kwok.localcluster/hold": "true"}
    trainings.create("job", nodes=2, annotations=hold, **spec)
    wait_for("pods", lambda: len(trainings.pods("job")) == 2)
    for launcher in launchers:
        trainings.play_kubelet(f"job-{launcher.rank}-1", launcher.ip, ready=True)
    trainings.wait_state("job", "Starting")
    for launcher in launchers:
        launcher.attempt = 1
    trainings.wait_state("job", "Running")
    launchers[1].own = 0.4
    wait_for("it is named", lambda: "straggler" in trainings.status("job"), 180)


def test_a_straggler_is_named_until_it_keeps_up(
    trainings: Trainings, launchers: list[Launcher], tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "operator.log")
    with operator:
        run_until_one_is_named(trainings, launchers)
        named = trainings.status("job")["straggler"]
        assert (named["rank"], named["pod"], named["ratio"]) == (1, "job-1-1", "4.0")
        who = {"namespace": trainings.namespace, "name": "job", "pod": "job-1-1", "rank": "1"}
        wait_for("a metric", lambda: operator.metric("job_straggler_ratio", **who) == 4.0)
        launchers[1].own = 0.1
        wait_for("it keeps up", lambda: "straggler" not in trainings.status("job"), 180)
        wait_for("events", lambda: _reasons(trainings) == {"StragglerFound", "StragglerGone"})
        trainings.change("job", failurePolicy={"stragglerPolicy": "None"})


def test_one_that_is_to_be_replaced_leaves_once_its_successor_runs(
    trainings: Trainings, launchers: list[Launcher], tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "operator.log")
    with operator, Launcher(2) as successor:
        successor.rank = 1
        policy = {"stragglerPolicy": "Replace"}
        run_until_one_is_named(trainings, launchers, failurePolicy=policy)
        trainings.hold_up("job")
        wait_for("a replacement", lambda: "job-1-2" in trainings.pods("job"))
        status = trainings.status("job")
        assert (status["attempt"], status["state"]) == (1, "Running")
        assert trainings.condition("job", "PodsReady")["reason"] == "ReplacingStraggler"
        assert "deletionTimestamp" not in trainings.pods("job")["job-1-1"]["metadata"]

        trainings.play_kubelet("job-1-2", successor.ip, ready=True)
        wait_for("the move", lambda: trainings.status("job")["attempt"] == 2, 60)
        wait_for("the old pod goes", lambda: _is_going(trainings, "job-1-1"))
        # A node that holds its pods does not end them either.
        trainings.cluster.kubectl(
            *("delete", "pod", "job-1-1", f"--namespace={trainings.namespace}"),
            *("--ignore-not-found", "--force", "--grace-period=0"),
        )
        launchers[0].attempt = successor.attempt = 2
        status = trainings.wait_state("job", "Running", attempt=2, seconds=60)
        assert status["restarts"] == 0
        (entry,) = status["replacedStragglers"]
        assert (entry["rank"], entry["pod"]) == (1, "job-1-1")


def _is_going(trainings: Trainings, pod: str) -> bool:
    found = trainings.pods("job").get(pod)
    return found is None or "deletionTimestamp" in found["metadata"]


def _reasons(trainings: Trainings) -> set[str]:
    text = trainings.cluster.kubectl(
        "get", "events", f"--namespace={trainings.namespace}", "-o=jsonpath={.items[*].reason}"
    )
    return {reason for reason in text.split() if reason.startswith("Straggler")}
