"""Goodput on a real API server: it is stored, adds up across operators, and is shown."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(180)


def seconds_between(begin: str, end: str) -> int:
    return int((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())


def test_the_parts_add_up_across_failures_and_operators_that_are_killed(
    trainings: Trainings, tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log")
    with operator:
        trainings.create("job", nodes=1, runPolicy={"suspend": True})
        trainings.wait_state("job", "Suspended")
        accepted = trainings.condition("job", "Accepted")["lastTransitionTime"]
        assert trainings.status("job")["goodput"]["cause"] == "suspended"
        trainings.change("job", runPolicy={"suspend": False})
        trainings.wait_state("job", "Running", attempt=1)
        operator.kill()
        trainings.annotate("job-0-1", fail_after="1ms")
        wait_for(
            "the pod fails",
            lambda: trainings.pods("job")["job-0-1"]["status"]["phase"] == "Failed",
        )
        operator.start()
        trainings.wait_state("job", "Running", attempt=2)
        assert trainings.status("job")["goodput"]["cause"] == "recovery"
        assert operator.metric("restarts_total", profile="cpu", namespace=trainings.namespace) == 1
        trainings.annotate("job-0-2", succeed_after="1ms")
        status = trainings.wait_state("job", "Succeeded")

        found = status["goodput"]
        wall = seconds_between(accepted, status["completionTime"])
        assert sum(found["seconds"].values()) == wall
        assert found["lastUpdatedTime"] == status["completionTime"]
        assert "cause" not in found
        of_job = {"namespace": trainings.namespace, "name": "job"}
        assert operator.metric("job_goodput_seconds_total", **of_job) == wall
        assert operator.metric("job_pod_info", **of_job) == len(trainings.pods("job"))
        assert operator.metric("job_outcome", **of_job, outcome="Succeeded") == 1

    text = trainings.cluster.kubectl(
        "describe", "itrain", "job", f"--namespace={trainings.namespace}"
    )
    assert "Goodput:" in text
    assert "Repeated Steps:" in text
