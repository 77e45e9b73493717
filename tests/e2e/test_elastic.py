"""A job changes its size while it trains and outlives pods with a spare, and still sees every
sample exactly once.
"""

from __future__ import annotations

from typing import Any

import pytest

from node_jobs import SAMPLES_OF_AN_EPOCH, Jobs, condition

pytestmark = pytest.mark.timeout(1500)


def elastic_job(jobs: Jobs, name: str, epochs: int, **policy: int) -> None:
    training = {"recipe": "bninception-digits", "epochs": epochs, "logEverySteps": 5}
    jobs.apply(name, training=training, elasticPolicy=policy)
    jobs.wait_checkpoint(name)


def training_on(jobs: Jobs, name: str, members: str) -> dict[str, Any]:
    """The status once ranks on these slots have made steps."""
    before = jobs.status(name).get("trainerStatus", {}).get("step", 0)

    def holds(status: dict[str, Any]) -> bool:
        right = status["nodes"].get("members") == members and condition(status, "Running") == "True"
        # On a busy node the pods' probes now and then take too long, and a pod that trains does not
        # count as ready.
        all_ready = len(set(status["nodes"]["summary"].split("/"))) == 1
        return right and all_ready and status["trainerStatus"]["step"] > before

    return jobs.wait(name, f"training on {members}", holds)


def finished(jobs: Jobs, name: str, epochs: int) -> dict[str, Any]:
    """The summary of a job that has seen every sample of every epoch once."""
    jobs.wait_succeeded(name, seconds=1200)
    summary = jobs.summary(name)
    assert (summary["samplesSeen"], summary["epochs"]) == (epochs * SAMPLES_OF_AN_EPOCH, epochs)
    return summary


@pytest.mark.nightly
def test_scaling_while_training(jobs: Jobs) -> None:
    elastic_job(jobs, "scaled", 8, minNodes=1, maxNodes=4)
    first = jobs.pod("scaled", 0)
    for nodes, members in ((4, "0-3"), (1, "0"), (3, "0-2")):
        jobs.kubectl("scale", "itrain", "scaled", f"--replicas={nodes}")
        status = training_on(jobs, "scaled", members)
        assert status["nodes"]["summary"] == f"{nodes}/{nodes}"
        assert (status["restarts"], status["restartsCountTowardsMax"]) == (0, 0)
    assert jobs.pod("scaled", 0) == first, "who stays is not replaced"
    summary = finished(jobs, "scaled", 8)
    assert summary["worldSize"] == 3
    # One more where the node is so slow that not all new pods are ready together.
    assert summary["attempts"] in (4, 5), jobs.story("scaled", jobs.status("scaled"))


@pytest.mark.nightly
def test_spare_takes_the_place_of_the_master(jobs: Jobs) -> None:
    elastic_job(jobs, "spared", 4, spareNodes=1)
    jobs.wait("spared", "spared by a warm pod", lambda s: s["nodes"]["spareReady"] == 1)
    # Whichever two were ready first train.
    first, second = jobs.members("spared")
    (warm,) = {0, 1, 2} - {first, second}
    master, spare = jobs.pod("spared", first), jobs.pod("spared", warm)
    jobs.kubectl("delete", "pod", master, "--force", "--grace-period=0")
    status = jobs.wait(
        "spared", "restarted", lambda s: s["attempt"] == 2 and condition(s, "PodsReady") == "True"
    )

    assert jobs.members("spared") == [warm, second], (
        "the next attempt does not wait for another pod"
    )
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    assert status["rootCause"]["pod"] == master
    assert finished(jobs, "spared", 4)["attempts"] == 2
    assert jobs.pod("spared", warm) == spare
    assert jobs.pod("spared", first) == f"spared-{first}-2", "another spare is made"
