"""Jobs that change their size while they run, and hot spares, on a real API server with fake
nodes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from inception_operator.decide.elastic import from_text, to_text
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("operator")]


def scale(trainings: Trainings, nodes: int) -> None:
    trainings.cluster.kubectl(
        "scale", "itrain/job", f"--namespace={trainings.namespace}", f"--replicas={nodes}"
    )


def running(
    trainings: Trainings, members: str, *, attempt: int, seconds: float = 60
) -> dict[str, Any]:
    """The status once these slots train in this attempt and all others are gone or spare."""
    trainings.wait_state("job", "Running", attempt=attempt, seconds=seconds)
    return wait_for(f"members {members}", lambda: has_members(trainings, members), seconds)


def has_members(trainings: Trainings, members: str) -> dict[str, Any] | None:
    status = trainings.status("job")
    return status if status["nodes"].get("members") == members else None


def ranks(trainings: Trainings, attempt: int) -> dict[str, int]:
    orders = {name: trainings.assignment(name) or {"attempt": 0} for name in trainings.pods("job")}
    return {
        name: order["nodeRank"]
        for name, order in orders.items()
        if order["attempt"] == attempt and order["nnodes"]
    }


def test_kubectl_scale_changes_the_size_of_a_running_job(trainings: Trainings) -> None:
    trainings.create("job", nodes=1, elasticPolicy={"minNodes": 1, "maxNodes": 4})
    running(trainings, "0", attempt=1)
    scale(trainings, 3)
    status = running(trainings, "0-2", attempt=2)
    assert status["nodes"]["summary"] == "3/3"
    assert ranks(trainings, 2) == {"job-0-1": 0, "job-1-1": 1, "job-2-1": 2}
    scale(trainings, 2)
    status = running(trainings, "0-1", attempt=3)
    wait_for("the surplus goes", lambda: sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"])
    order = trainings.assignment("job-1-1")
    assert order is not None
    assert (order["nnodes"], order["graceful"]) == (2, True)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (0, 0)
    wait_for("the events", lambda: trainings.reasons("job").count("Resized") == 2)
    jobs = f"namespaces/{trainings.namespace}/inceptiontrainings"
    wanted = f"/apis/training.inception.dev/v1alpha1/{jobs}/job/scale"
    seen = json.loads(trainings.cluster.kubectl("get", "--raw", wanted))
    assert seen["spec"]["replicas"] == seen["status"]["replicas"] == 2
    assert seen["status"]["selector"] == "training.inception.dev/job=job"


def test_a_spare_takes_the_place_of_a_lost_pod(trainings: Trainings) -> None:
    trainings.create("job", nodes=2, elasticPolicy={"spareNodes": 1})
    trainings.wait_state("job", "Running", attempt=1)
    # Whichever two were ready first train.
    lost, kept = from_text(trainings.status("job")["nodes"]["members"])
    (spare,) = {0, 1, 2} - {lost, kept}
    wait_for("a warm spare", lambda: trainings.status("job")["nodes"]["spareReady"] == 1)
    assert trainings.assignment(f"job-{spare}-1") is None
    trainings.delete_pod(f"job-{lost}-1")
    status = running(trainings, to_text((spare, kept)), attempt=2)
    assert ranks(trainings, 2) == {f"job-{spare}-1": 0, f"job-{kept}-1": 1}
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    wait_for("another spare", lambda: trainings.status("job")["nodes"]["spareReady"] == 1)
    assert sorted(trainings.pods("job")) == sorted(
        [f"job-{lost}-2", f"job-{kept}-1", f"job-{spare}-1"]
    )


def test_a_job_goes_on_smaller_and_grows_back(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create("job", nodes=2, elasticPolicy={"minNodes": 1})
    running(trainings, "0-1", attempt=1)
    trainings.quota(1)
    trainings.delete_pod("job-0-1")
    status = running(trainings, "1", attempt=2)
    assert status["nodes"]["summary"] == "1/2"
    wait_for(
        "the reason", lambda: "exceeded quota" in trainings.condition("job", "PodsReady")["message"]
    )
    operator.kill()
    operator.start()
    assert trainings.condition("job", "PodsReady")["reason"] == "EnoughPodsReady"
    trainings.lift_quota()
    status = running(trainings, "1,0", attempt=3, seconds=120)
    assert (status["restarts"], status["nodes"]["summary"]) == (1, "2/2")
    assert ranks(trainings, 3) == {"job-1-1": 0, "job-0-2": 1}
