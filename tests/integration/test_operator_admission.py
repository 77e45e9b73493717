"""Pods that the API server refuses for their security, and jobs beside one another: on a real API
server.
"""

from __future__ import annotations

from typing import Any

import pytest

from trainings import Json, Trainings, wait_for

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("operator")]

LEVEL = "pod-security.kubernetes.io/enforce"
ESCALATING = {
    "spec": {
        "containers": [{"name": "trainer", "securityContext": {"allowPrivilegeEscalation": True}}]
    }
}
WORDS = ('violates PodSecurity "restricted:latest"', "allowPrivilegeEscalation")


def restrict(trainings: Trainings, level: str | None) -> None:
    """Set the namespace's level of pod security, or remove it."""
    label = f"{LEVEL}={level}" if level else f"{LEVEL}-"
    trainings.cluster.kubectl("label", "namespace", trainings.namespace, label, "--overwrite")


def refused(trainings: Trainings) -> Json:
    """PodsReady once it quotes the API server."""

    def look() -> Json | None:
        found = trainings.condition("job", "PodsReady")
        return found if found.get("reason") == "PodCreationRejected" else None

    return wait_for("the refusal", look)


def test_a_pod_that_pod_security_refuses_is_explained_and_made_when_it_may_be(
    trainings: Trainings,
) -> None:
    restrict(trainings, "restricted")
    trainings.create("job", template=ESCALATING)
    condition = refused(trainings)
    assert condition["status"] == "False"
    assert all(words in condition["message"] for words in WORDS), condition["message"]
    assert trainings.pods("job") == {}
    wait_for("the event", lambda: "PodCreationRejected" in trainings.reasons("job"))
    restrict(trainings, None)
    status = trainings.wait_state("job", "Running", seconds=40)
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_job_whose_pods_are_refused_for_too_long_fails_with_the_words(
    trainings: Trainings,
) -> None:
    restrict(trainings, "restricted")
    trainings.create("job", template=ESCALATING, runPolicy={"preRunningDeadlineSeconds": 3})
    trainings.wait_state("job", "Failed", seconds=40)
    condition = trainings.condition("job", "Failed")
    assert condition["reason"] == "PreRunningDeadlineExceeded"
    assert all(words in condition["message"] for words in WORDS), condition["message"]


def test_a_replacement_that_is_refused_waits_and_counts_nothing(trainings: Trainings) -> None:
    trainings.create("job", template=ESCALATING)
    trainings.wait_state("job", "Running")
    restrict(trainings, "restricted")
    trainings.delete_pod("job-1-1")
    condition = refused(trainings)
    assert all(words in condition["message"] for words in WORDS), condition["message"]
    assert trainings.status("job")["state"] == "Restarting"
    assert sorted(trainings.pods("job")) == ["job-0-1"]
    restrict(trainings, None)
    status = trainings.wait_state("job", "Running", attempt=2, seconds=40)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)


def test_a_secret_that_does_not_exist_is_quoted_from_the_kubelets_event(
    trainings: Trainings,
) -> None:
    trainings.create("job", nodes=1, annotations={"kwok.localcluster/hold": "true"})
    wait_for("the pod", lambda: trainings.pods("job"))
    words = 'MountVolume.SetUp failed for volume "token" : secret "missing" not found'
    trainings.warn("job-0-1", "FailedMount", words)

    def told() -> Json | None:
        found = trainings.condition("job", "PodsReady")
        return found if found.get("reason") == "PodStartFailed" else None

    condition = wait_for("the words of the kubelet", told, seconds=40)
    assert condition["status"] == "False"
    assert condition["message"] == f"pod job-0-1: FailedMount: {words}"
    wait_for("the event", lambda: "PodStartFailed" in trainings.reasons("job"))
    trainings.cluster.kubectl(
        *("annotate", "pod", "job-0-1", f"--namespace={trainings.namespace}"),
        "kwok.localcluster/hold-",
    )
    status = trainings.wait_state("job", "Running", seconds=40)
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_pods_of_our_own_making_pass_the_strictest_level(trainings: Trainings) -> None:
    restrict(trainings, "restricted")
    trainings.create("job")
    trainings.wait_state("job", "Running")


def known(trainings: Trainings, name: str) -> dict[str, Any]:
    """What must not change in a job that nothing happens to."""
    status = trainings.status(name)
    pods = {pod: raw["metadata"]["uid"] for pod, raw in trainings.pods(name).items()}
    return {"pods": pods, **{key: status[key] for key in ("attempt", "restarts", "conditions")}}


def test_groups_that_are_jobs_of_their_own_restart_apart(trainings: Trainings) -> None:
    for name in ("group-0", "group-1"):
        trainings.create(name)
        trainings.wait_state(name, "Running")
    before = known(trainings, "group-1")
    for attempt in (1, 2):
        trainings.annotate(f"group-0-1-{attempt}", fail_after="1ms")
        trainings.wait_state("group-0", "Running", attempt=attempt + 1)
    assert known(trainings, "group-1") == before
