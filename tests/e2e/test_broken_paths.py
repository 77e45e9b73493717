"""The fast paths are broken on purpose: jobs recover more slowly, but with the same samples and the
same counts.
"""

from __future__ import annotations

import pytest

from node_faults import assignments_stale, operator_away, operator_blind
from node_jobs import SAMPLES_OF_AN_EPOCH, Jobs, Json

pytestmark = pytest.mark.timeout(1500)

# Long enough to be still under way when the operator has gone.
EPOCHS = 4
TRAINING = {
    "recipe": "bninception-digits",
    "epochs": EPOCHS,
    "logEverySteps": 5,
    "evaluation": {"everyEpochs": EPOCHS},
}


def counts(status: Json) -> tuple[int, int]:
    return status["restarts"], status["restartsCountTowardsMax"]


def finished(jobs: Jobs, name: str) -> Json:
    """The status of a job that has seen every sample once, although it did not run undisturbed."""
    status = jobs.wait_succeeded(name)
    summary = jobs.summary(name)
    assert summary["samplesSeen"] == EPOCHS * SAMPLES_OF_AN_EPOCH
    assert summary["attempts"] == status["attempt"], jobs.story(name, status)
    return status


@pytest.mark.nightly
def test_operator_that_reaches_no_pod(jobs: Jobs) -> None:
    with operator_blind(jobs):
        jobs.apply("blind", training=TRAINING)
        jobs.wait_step("blind", attempt=1)
        victim = jobs.pod("blind", 1)
        jobs.kill_rank(victim)
        status = jobs.wait("blind", "restarted", lambda s: s.get("attempt") == 2)
        cause = status["rootCause"]
        assert (cause["pod"], cause["rank"], cause["reason"], cause["exitCode"]) == (
            victim,
            1,
            "Signal",
            137,
        )
        assert counts(finished(jobs, "blind")) == (1, 1)
    assert jobs.pod("blind", 1) == "blind-1-2", (
        "a launcher that nobody listens to ends with its ranks"
    )


@pytest.mark.nightly
def test_a_kubelet_that_shows_no_new_assignment_holds_nothing_up(jobs: Jobs) -> None:
    jobs.apply("stale", training=TRAINING)
    jobs.wait_checkpoint("stale")
    before = [pod["metadata"]["uid"] for pod in jobs.pods("stale")]
    with assignments_stale(jobs, "stale"):
        jobs.kill_rank(jobs.pod("stale", 1))
        status = finished(jobs, "stale")
    assert (status["attempt"], *counts(status)) == (2, 1, 1)
    assert [pod["metadata"]["uid"] for pod in jobs.pods("stale")] == before, (
        "the operator has delivered it itself"
    )


@pytest.mark.nightly
def test_operator_that_is_away_at_the_moment_of_failure(jobs: Jobs) -> None:
    jobs.apply("away", training=TRAINING)
    jobs.wait_checkpoint("away")
    before = [pod["metadata"]["uid"] for pod in jobs.pods("away")]
    victim = jobs.pod("away", 1)
    with operator_away(jobs):
        jobs.kill_rank(victim)
        jobs.kubectl("wait", "--for=condition=Ready=false", f"pod/{victim}", "--timeout=60s")
        assert jobs.status("away")["attempt"] == 1
    status = jobs.wait("away", "restarted", lambda s: s.get("attempt") == 2)
    cause = status["rootCause"]
    assert (cause["pod"], cause["rank"], cause["reason"], cause["exitCode"]) == (
        victim,
        1,
        "Signal",
        137,
    )
    assert counts(finished(jobs, "away")) == (1, 1)
    assert [pod["metadata"]["uid"] for pod in jobs.pods("away")] == before, (
        "the launchers have waited"
    )
