"""What people do by hand to running trainings, on a real API server: the job heals, or says which
pod is in the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inception_operator.contract import names
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from trainings import Json, Trainings, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def running(
    control_plane: Cluster, operator: OperatorProcess, namespace: str
) -> Iterator[Trainings]:
    """A namespace with the training "job" at work."""
    with Trainings(control_plane, namespace) as trainings:
        trainings.create("job")
        trainings.wait_state("job", "Running")
        yield trainings


def patch(trainings: Trainings, kind: str, name: str, body: Json, *options: str) -> None:
    scope = f"--namespace={trainings.namespace}"
    trainings.cluster.kubectl(
        "patch", kind, name, scope, "--type=merge", f"--patch={json.dumps(body)}", *options
    )


def metadata(trainings: Trainings, name: str) -> Json:
    found: Json = trainings.pods()[name]["metadata"]
    return found


def make_pod(trainings: Trainings, name: str, **extra: Any) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": trainings.namespace, **extra},
    }
    trainings.cluster.apply({**body, "spec": {"containers": [{"name": "c", "image": "i"}]}})


def counters(status: Json) -> tuple[int, int, int]:
    return status["attempt"], status["restarts"], status["restartsCountTowardsMax"]


@pytest.mark.parametrize(
    "label",
    [names.LABEL_JOB, names.LABEL_SLOT, names.LABEL_INCARNATION, names.LABEL_ROLE, names.LABEL_APP],
)
@pytest.mark.parametrize("value", [None, "7"], ids=["removed", "changed"])
def test_a_label_comes_back_and_nothing_restarts(
    running: Trainings, label: str, value: str | None
) -> None:
    before = metadata(running, "job-1-1")
    patch(running, "pod", "job-1-1", {"metadata": {"labels": {label: value}}})
    wait_for("the label", lambda: metadata(running, "job-1-1")["labels"] == before["labels"])
    assert metadata(running, "job-1-1")["uid"] == before["uid"]
    assert counters(running.status("job")) == (1, 0, 0)


def test_labels_lost_while_no_operator_ran_come_back(
    training_api: Cluster, namespace: str, tmp_path: Path
) -> None:
    process = OperatorProcess(training_api.kubeconfig, tmp_path / "log")
    with process, Trainings(training_api, namespace) as trainings:
        trainings.create("job")
        trainings.wait_state("job", "Running")
        process.kill()
        before = metadata(trainings, "job-0-1")
        patch(
            trainings,
            "pod",
            "job-0-1",
            {"metadata": {"labels": {names.LABEL_ROLE: None, names.LABEL_SLOT: "1"}}},
        )
        process.start()
        wait_for("the labels", lambda: metadata(trainings, "job-0-1")["labels"] == before["labels"])
        assert counters(trainings.status("job")) == (1, 0, 0)


def test_the_owner_comes_back_and_other_owners_stay(running: Trainings) -> None:
    before = metadata(running, "job-0-1")
    scope = f"--namespace={running.namespace}"
    root = running.cluster.kubectl(
        "get", "configmap", "kube-root-ca.crt", scope, "--output=jsonpath={.metadata.uid}"
    )
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "uid": root}
    patch(running, "pod", "job-0-1", {"metadata": {"ownerReferences": [other]}})
    wait_for(
        "both owners", lambda: len(metadata(running, "job-0-1").get("ownerReferences", [])) == 2
    )
    owners = {owner["kind"]: owner for owner in metadata(running, "job-0-1")["ownerReferences"]}
    assert owners[names.KIND] == before["ownerReferences"][0]
    assert owners["ConfigMap"]["uid"] == root
    assert metadata(running, "job-0-1")["uid"] == before["uid"]
    assert counters(running.status("job")) == (1, 0, 0)


@pytest.mark.parametrize("text", [None, "{", '{"attempt": 1, "nnodes": 0, "graceful": false}'])
def test_an_assignment_is_written_again(running: Trainings, text: str | None) -> None:
    before = metadata(running, "job-1-1")["annotations"][names.ANNOTATION_ASSIGNMENT]
    patch(
        running,
        "pod",
        "job-1-1",
        {"metadata": {"annotations": {names.ANNOTATION_ASSIGNMENT: text}}},
    )

    def back() -> bool:
        return (
            metadata(running, "job-1-1")["annotations"].get(names.ANNOTATION_ASSIGNMENT) == before
        )

    wait_for("the assignment", back)
    assert counters(running.status("job")) == (1, 0, 0)


@pytest.mark.parametrize(
    "content", [{"status": None}, {"status": {"conditions": None}}], ids=["all", "conditions"]
)
def test_a_wiped_status_is_rebuilt_on_the_same_pods(running: Trainings, content: Json) -> None:
    before = {name: pod["metadata"]["uid"] for name, pod in running.pods("job").items()}
    known = {condition["type"] for condition in running.status("job")["conditions"]}
    patch(running, "itrain", "job", content, "--subresource=status")

    def rebuilt() -> bool:
        status = running.status("job")
        there = {condition["type"] for condition in status.get("conditions") or []}
        return there == known and running.condition("job", "Running")["status"] == "True"

    wait_for("the conditions", rebuilt)
    assert {name: pod["metadata"]["uid"] for name, pod in running.pods("job").items()} == before
    assert counters(running.status("job"))[1:] == (0, 0)


@pytest.fixture
def held(running: Trainings) -> Iterator[str]:
    """A pod of the training "waiting" that a finalizer holds; on no node, for kwok would take the
    finalizer off.
    """
    running.create("waiting", template={"spec": {"nodeSelector": {"no": "where"}}})
    wait_for("pods", lambda: len(running.pods("waiting")) == 2)
    patch(running, "pod", "waiting-1-1", {"metadata": {"finalizers": ["example.com/hold"]}})
    yield "waiting-1-1"
    patch(running, "pod", "waiting-1-1", {"metadata": {"finalizers": None}})


def test_a_held_pod_of_a_running_attempt_is_replaced(running: Trainings, held: str) -> None:
    for slot in (0, 1):
        running.play_kubelet(f"waiting-{slot}-1", f"127.0.0.{90 + slot}", ready=True)
    running.wait_state("waiting", "Running")
    running.delete_pod(held)
    wait_for("its successor", lambda: "waiting-1-2" in running.pods("waiting"))
    assert held in running.pods("waiting"), "the first is still there"
    assert counters(running.status("waiting")) == (2, 1, 0)


def test_a_held_pod_that_never_started_is_named_and_replaced(running: Trainings, held: str) -> None:
    running.delete_pod(held)
    wait_for("its successor", lambda: "waiting-1-2" in running.pods("waiting"), seconds=40)
    assert held in running.pods("waiting"), "the first is still there"
    cause = running.status("waiting")["rootCause"]
    assert (cause["reason"], cause["pod"]) == ("PodDeleted", held)
    assert cause["message"] == "the pod was deleted and is held by example.com/hold"
    assert counters(running.status("waiting")) == (2, 1, 0)


def test_a_pod_made_by_hand_is_left_alone_and_named_when_it_is_in_the_way(
    running: Trainings,
) -> None:
    labels = metadata(running, "job-0-1")["labels"]
    make_pod(running, "job-0-9", labels={**labels, names.LABEL_INCARNATION: "9"})
    make_pod(
        running, "job-1-2", labels={**labels, names.LABEL_SLOT: "1", names.LABEL_INCARNATION: "2"}
    )
    before = {name: metadata(running, name) for name in ("job-0-9", "job-1-2")}
    running.delete_pod("job-1-1")
    condition = wait_for(
        "the text",
        lambda: "job-1-2" in (c := running.condition("job", "PodsReady")).get("message", "") and c,
    )
    assert condition["reason"] == "PodCreationRejected"
    assert (
        "has a name that this job needs and belongs to nobody; delete it and the job goes on"
        in condition["message"]
    )
    wait_for("the event", lambda: "PodCreationRejected" in running.reasons("job"))
    for name, known in before.items():
        now = metadata(running, name)
        assert now["uid"] == known["uid"]
        assert now["labels"] == known["labels"]
        assert "deletionTimestamp" not in now
    running.delete_pod("job-1-2")
    status = running.wait_state("job", "Running", attempt=2, seconds=40)
    assert counters(status) == (2, 1, 0)
    assert running.reasons("job").count("PodCreationRejected") == 1
    assert metadata(running, "job-0-9")["uid"] == before["job-0-9"]["uid"]


@pytest.mark.nightly
def test_two_operators_at_once_do_no_harm(
    running: Trainings, operator: OperatorProcess, tmp_path: Path
) -> None:
    """Somebody runs a second one without election: both see everything, and both write."""
    with OperatorProcess(running.cluster.kubeconfig, tmp_path / "second") as second:
        running.create("other")
        running.wait_state("other", "Running")
        for attempt in range(2, 6):
            running.delete_pod(
                max(name for name in running.pods("job") if name.startswith("job-1-"))
            )
            running.wait_state("job", "Running", attempt=attempt)
        newest = max(name for name in running.pods("job") if name.startswith("job-1-"))
        running.annotate(newest, fail_after="1ms", exit_code="1")
        status = running.wait_state("job", "Running", attempt=6)
        assert counters(status) == (6, 5, 1)
        assert counters(running.status("other")) == (1, 0, 0)
        ended = {"Succeeded", "Failed"}
        alive = sorted(
            name for name, pod in running.pods("job").items() if pod["status"]["phase"] not in ended
        )
        assert alive == ["job-0-1", "job-1-6"]
        assert sorted(running.pods("other")) == ["other-0-1", "other-1-1"]
        assert second.metric("reconcile_total") > 0
        assert "Traceback" not in second.log
