"""A real node stops answering, and comes back while its pods are already given up."""

from __future__ import annotations

import pytest

from node_faults import node_lost, wait_node
from node_jobs import SAMPLES_OF_AN_EPOCH, Jobs

pytestmark = [pytest.mark.timeout(1500), pytest.mark.nightly]

# Long enough to be still under way when the node is given up.
EPOCHS = 8


def test_lost_node_is_given_up_and_its_ranks_disturb_nothing_when_it_is_back(jobs: Jobs) -> None:
    policy = {"nodeLostSeconds": 2, "nodeLostPolicy": "ForceDeletePods"}
    training = {
        "recipe": "bninception-digits",
        "epochs": EPOCHS,
        "evaluation": {"everyEpochs": EPOCHS},
    }
    jobs.apply("lost", training=training, failurePolicy=policy)
    jobs.wait_checkpoint("lost")
    before = {pod["metadata"]["name"] for pod in jobs.pods("lost")}
    with node_lost(jobs, "lost"):
        status = jobs.wait("lost", "restarted", lambda s: s.get("attempt", 0) >= 2)
        cause = status["rootCause"]
        assert (cause["attempt"], cause["reason"], cause["node"]) == (1, "NodeLost", "node-0")
        assert cause["pod"] in before
    wait_node(jobs, ready=True)
    status = jobs.wait_succeeded("lost")
    summary = jobs.summary("lost")
    assert (summary["samplesSeen"], summary["attempts"]) == (
        EPOCHS * SAMPLES_OF_AN_EPOCH,
        status["attempt"],
    )
    assert status["restartsCountTowardsMax"] == 0
    assert cause["pod"] not in [pod["metadata"]["name"] for pod in jobs.pods("lost")], (
        "what was given up stays away"
    )
