"""Operator and trainer image of different releases: what fits goes on, what does not is refused in
clear words, and nothing that runs is ended for it.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cluster_sim import Sim
from inception_operator.contract import assignment, report, version
from inception_operator.contract.names import Cause, Reason


class Images(Sim):
    """A cluster whose launchers speak the versions of ``speaks``, by incarnation of their pods."""

    speaks: dict[int, int]

    def calm(self, seconds: float = 1.0) -> None:
        super().calm(seconds)
        self.say()

    def say(self) -> None:
        """Every launcher says in which version it speaks; one that does not fit runs no ranks."""
        for pod in self.pods.values():
            spoken = self.speaks.get(pod.incarnation, version.CONTRACT)
            if spoken == pod.report.contract:
                continue
            state = "Idle" if pod.report.state == "Running" else pod.report.state
            pod.report = replace(pod.report, contract=spoken, state=state)


def refused(sim: Sim) -> str:
    return str(sim.full_condition("Failed")["message"])


def test_the_assignment_says_the_version_and_readers_of_before_pass_it_over() -> None:
    given = assignment.work(3, 0, 2, 1, "10.0.0.1", graceful=False)
    text = assignment.to_json(given)
    assert json.loads(text)["contract"] == version.CONTRACT
    assert assignment.from_json(text) == given


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ({}, 1),
        ({"contract": None}, 1),
        ({"contract": "2"}, 1),
        ({"contract": 0}, 1),
        ({"contract": 2}, 2),
        ({"contract": 2.5}, 1),
        ({"contract": 10**9}, 1),
    ],
)
def test_a_launcher_that_does_not_say_it_speaks_version_1(
    said: dict[str, object], understood: int
) -> None:
    read = report.from_json({"attempt": 1, "state": "Idle", **said})
    assert read is not None
    assert read.contract == understood


def test_an_image_of_another_release_fails_the_job_with_the_remedy_after_a_second_try() -> None:
    sim = Images()
    sim.speaks = {1: 2, 2: 2}
    sim.run_until("Failed")
    assert sim.full_condition("Failed")["reason"] == Reason.CONTRACT_MISMATCH
    assert "speaks version 2 of the contract and this operator version 1" in refused(sim)
    assert "spec.image" in refused(sim)
    assert sim.status["rootCause"]["reason"] == Cause.CONTRACT_MISMATCH
    assert sim.counters == (2, 1, 0), "the restart costs nothing of the limit"
    assert not sim.trained, "no rank has run"


def test_pods_from_before_an_upgrade_are_replaced_by_pods_that_fit() -> None:
    sim = Images()
    sim.speaks = {1: 2}
    sim.run_until("Running")
    assert sim.counters == (2, 1, 0)
    assert {pod.incarnation for pod in sim.pods.values()} == {2}


def test_ranks_that_run_are_left_alone_by_an_operator_that_was_rolled_back(sim: Sim) -> None:
    for pod in sim.pods.values():
        pod.report = replace(pod.report, contract=2)
    # A new process has asked nobody yet.
    sim.answers.clear()
    sim.operate()
    sim.tick(120)
    assert sim.operate().empty
    assert sim.counters == (1, 0, 0)
    sim.fail_ranks(sim.pod(1), 1)
    for pod in sim.pods.values():
        pod.report = replace(pod.report, contract=2)
    sim.run_until("Running")
    assert sim.counters == (2, 1, 1), "the failure of the rank, and nothing for the pods"
    assert {pod.incarnation for pod in sim.pods.values()} == {2}


def test_a_launcher_that_refuses_its_assignment_is_believed() -> None:
    sim = Sim()
    for _ in range(2):
        while not any(pod.assigned for pod in sim.pods.values() if pod.report.attempt == 0):
            sim.operate()
            for pod in list(sim.pods.values()):
                if pod.deletion_deadline is not None:
                    sim.remove(pod)
                else:
                    sim.start(pod)
            sim.tick()
        for pod in sim.pods.values():
            told = pod.assigned
            assert told is not None
            pod.accepted = told
            pod.report = replace(
                pod.report,
                attempt=told.attempt,
                state="Failed",
                exit_code=78,
                reason="ContractMismatch",
                message="the launcher of this image speaks version 2",
                time=sim.now,
            )
        sim.operate()
    assert sim.full_condition("Failed")["reason"] == Reason.CONTRACT_MISMATCH
    assert "the launcher of this image speaks version 2" in refused(sim)
    assert sim.counters == (2, 1, 0)
