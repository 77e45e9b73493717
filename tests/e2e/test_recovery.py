"""Whatever is killed, the job restarts by itself from its checkpoint and sees every sample exactly
once.
"""

from __future__ import annotations

import json

import pytest

from node_jobs import SAMPLES_OF_AN_EPOCH, Jobs, Json, condition

pytestmark = pytest.mark.timeout(1500)

# Long enough to be still under way when it is hurt, on an idle machine too.
EPOCHS = 6
SAMPLES = EPOCHS * SAMPLES_OF_AN_EPOCH


def running_job(jobs: Jobs, name: str, **spec: Json) -> None:
    training = {
        "recipe": "bninception-digits",
        "epochs": EPOCHS,
        "logEverySteps": 5,
        "evaluation": {"everyEpochs": EPOCHS},
    }
    jobs.apply(name, training=training, **spec)
    jobs.wait_checkpoint(name)


def assert_recovered(jobs: Jobs, name: str) -> None:
    """Ended well, with the samples of an undisturbed run, although it did not run undisturbed."""
    status = jobs.wait_succeeded(name)
    summary = jobs.summary(name)
    assert summary["samplesSeen"] == SAMPLES
    assert summary["epochs"] == EPOCHS
    assert summary["attempts"] == 2, jobs.story(name, status)


def test_killed_worker_process_restarts_warm(jobs: Jobs) -> None:
    running_job(jobs, "killed-rank")
    before = [pod["metadata"]["uid"] for pod in jobs.pods("killed-rank")]
    victim = jobs.pod("killed-rank", 1)
    jobs.kill_rank(victim)
    status = jobs.wait("killed-rank", "restarted", lambda s: s.get("attempt") == 2)

    cause = status["rootCause"]
    assert (cause["pod"], cause["rank"], cause["reason"], cause["exitCode"]) == (
        victim,
        1,
        "Signal",
        137,
    )
    assert "SIGKILL" in cause["message"]
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 1)
    assert_recovered(jobs, "killed-rank")
    assert [pod["metadata"]["uid"] for pod in jobs.pods("killed-rank")] == before, (
        "slots must survive a dead process"
    )
    events = json.loads(jobs.kubectl("get", "events", "-o", "json"))["items"]
    restarting = [event for event in events if event["reason"] == "Restarting"]
    assert len(restarting) == 1
    assert victim in restarting[0]["message"]


@pytest.mark.nightly
def test_stopped_worker_process_is_found_and_restarts_warm(jobs: Jobs) -> None:
    running_job(jobs, "stopped-rank", failurePolicy={"progressDeadlineSeconds": 20})
    before = [pod["metadata"]["uid"] for pod in jobs.pods("stopped-rank")]
    victim, waiting = jobs.pod("stopped-rank", 1), jobs.pod("stopped-rank", 0)
    jobs.kill_rank(victim, signal="SIGSTOP")
    status = jobs.wait("stopped-rank", "restarted", lambda s: s.get("attempt") == 2)

    cause = status["rootCause"]
    blamed = (cause["pod"], cause["rank"], cause["reason"], cause["exitCode"])
    assert blamed == (victim, 1, "Hang", 70), jobs.story("stopped-rank", status)
    assert "rank 1 is stopped by a signal after step " in cause["message"]
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 1)
    for pod, rank in ((victim, 1), (waiting, 0)):
        log = jobs.kubectl("logs", pod, "-c", "trainer")
        assert f"stacks of attempt 1, rank {rank}, process " in log
    assert_recovered(jobs, "stopped-rank")
    assert [pod["metadata"]["uid"] for pod in jobs.pods("stopped-rank")] == before, (
        "slots must survive a hang"
    )


@pytest.mark.nightly
def test_deleted_pod_is_replaced(jobs: Jobs) -> None:
    running_job(jobs, "deleted-pod")
    victim, survivor = jobs.pod("deleted-pod", 1), jobs.pod("deleted-pod", 0)
    jobs.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    status = jobs.wait("deleted-pod", "restarted", lambda s: s.get("attempt") == 2)

    cause = status["rootCause"]
    assert (cause["pod"], cause["rank"], cause["reason"]) == (victim, 1, "PodDeleted")
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0), (
        "a lost pod is not the user's fault"
    )
    assert_recovered(jobs, "deleted-pod")
    assert jobs.pod("deleted-pod", 0) == survivor, "the other slot stays warm"
    assert jobs.pod("deleted-pod", 1) == "deleted-pod-1-2"


@pytest.mark.nightly
def test_killed_operator_disturbs_nothing(jobs: Jobs) -> None:
    running_job(jobs, "no-operator")
    before = jobs.status("no-operator")
    system = ("--namespace", "inception-system")
    jobs.cluster.kubectl(
        *system,
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=inception-operator",
        "--force",
        "--grace-period=0",
    )
    step = before.get("trainerStatus", {}).get("step", 0)
    after = jobs.wait(
        "no-operator", "going on", lambda s: s.get("trainerStatus", {}).get("step", 0) > step
    )
    assert (after["attempt"], after["restarts"]) == (1, 0)
    jobs.wait_succeeded("no-operator")
    assert jobs.summary("no-operator")["attempts"] == 1


@pytest.mark.nightly
def test_suspended_job_saves_and_resumes(jobs: Jobs) -> None:
    running_job(jobs, "suspended")
    patch = '{{"spec": {{"runPolicy": {{"suspend": {}}}}}}}'
    jobs.kubectl("patch", "itrain", "suspended", "--type=merge", "-p", patch.format("true"))
    status = jobs.wait("suspended", "suspended", lambda s: condition(s, "Suspended") == "True")
    assert status["state"] == "Suspended"
    jobs.kubectl(
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "training.inception.dev/job=suspended",
        "--timeout=120s",
    )
    jobs.kubectl("patch", "itrain", "suspended", "--type=merge", "-p", patch.format("false"))
    status = jobs.wait_succeeded("suspended")
    assert status["restartsCountTowardsMax"] == 0
    assert_recovered(jobs, "suspended")


def test_deleted_job_leaves_no_pod(jobs: Jobs) -> None:
    jobs.apply("short-lived")
    jobs.wait("short-lived", "started", lambda s: s.get("nodes", {}).get("ready", 0) >= 1)
    jobs.kubectl("delete", "itrain", "short-lived")
    jobs.kubectl(
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "training.inception.dev/job=short-lived",
        "--timeout=180s",
    )
