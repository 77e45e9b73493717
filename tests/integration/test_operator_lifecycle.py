"""The life of a training on a real API server: pods are fake, everything else is not."""

from __future__ import annotations

from functools import partial

import pytest

from inception_operator.contract import names
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("operator")]


def test_a_training_gets_its_pods_its_assignments_and_runs(trainings: Trainings) -> None:
    trainings.create("job")
    status = trainings.wait_state("job", "Running")
    pods = trainings.pods("job")
    assert sorted(pods) == ["job-0-1", "job-1-1"]
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert status["nodes"] == {"desired": 2, "ready": 2, "summary": "2/2"}
    assert status["observedGeneration"] == 1
    master = pods["job-0-1"]["status"]["podIP"]
    for rank, name in enumerate(sorted(pods)):
        order = trainings.assignment(name)
        assert order is not None
        assert (order["attempt"], order["nodeRank"], order["nnodes"]) == (1, rank, 2)
        assert order["masterAddr"] == master
        (owner,) = pods[name]["metadata"]["ownerReferences"]
        assert owner["name"] == "job"
        assert owner["controller"]
    wait_for("the event", lambda: trainings.reasons("job") == ["AttemptRunning"])


def test_a_training_on_one_node_has_its_assignment_from_birth(trainings: Trainings) -> None:
    trainings.create("job", nodes=1)
    trainings.wait_state("job", "Running")
    order = trainings.assignment("job-0-1")
    assert order is not None
    assert (order["attempt"], order["nnodes"], order["masterAddr"]) == (1, 1, "127.0.0.1")


def test_pods_that_end_well_end_the_training(trainings: Trainings) -> None:
    trainings.create("job", annotations={"kwok.localcluster/succeed-after": "100ms"})
    status = trainings.wait_state("job", "Succeeded")
    assert "completionTime" in status
    assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"], "pods stay for their logs"


def test_a_failed_pod_is_replaced_and_the_others_stay(trainings: Trainings) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    trainings.annotate("job-1-1", fail_after="1ms", exit_code="1")
    status = trainings.wait_state("job", "Running", attempt=2)
    assert {"job-0-1", "job-1-2"} <= set(trainings.pods("job"))
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 1)
    assert (status["rootCause"]["pod"], status["rootCause"]["exitCode"]) == ("job-1-1", 1)
    order = trainings.assignment("job-0-1")
    assert order is not None
    assert order["attempt"] == 2


def test_a_deleted_pod_costs_an_attempt_but_not_the_budget(trainings: Trainings) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    trainings.delete_pod("job-0-1")
    status = trainings.wait_state("job", "Running", attempt=2)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    assert status["rootCause"]["reason"] == "PodDeleted"
    assert sorted(trainings.pods("job")) == ["job-0-2", "job-1-1"]


def test_an_exit_code_that_says_never_ends_the_training_at_once(trainings: Trainings) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    trainings.annotate(
        "job-0-1", fail_after="1ms", exit_code="78", message="spec.training.batch: no"
    )
    status = trainings.wait_state("job", "Failed")
    assert status["attempt"] == 1
    assert trainings.condition("job", "Failed")["reason"] == "PermanentFailure"
    wait_for("the last word", lambda: (trainings.assignment("job-1-1") or {}).get("end"))
    wait_for(
        "the survivor goes, for its launcher is play-acted",
        lambda: "job-1-1" not in trainings.pods("job"),
        60,
    )


def test_the_restart_limit_ends_the_training(trainings: Trainings) -> None:
    annotations = {"kwok.localcluster/fail-after": "50ms", "kwok.localcluster/exit-code": "1"}
    trainings.create("job", nodes=1, annotations=annotations, failurePolicy={"maxRestarts": 2})
    status = trainings.wait_state("job", "Failed", seconds=40)
    assert (status["attempt"], status["restartsCountTowardsMax"]) == (3, 2)
    assert trainings.condition("job", "Failed")["reason"] == "MaxRestartsExceeded"
    assert max(trainings.pods("job")) == "job-0-3"


def test_suspend_removes_the_pods_and_resume_brings_new_ones(trainings: Trainings) -> None:
    trainings.create("job", runPolicy={"suspend": True})
    trainings.wait_state("job", "Suspended")
    assert trainings.pods("job") == {}
    trainings.change("job", runPolicy={"suspend": False})
    first = trainings.wait_state("job", "Running")["attempt"]
    trainings.change("job", runPolicy={"suspend": True})
    trainings.wait_state("job", "Suspended")
    wait_for("no pods", lambda: trainings.pods("job") == {})
    trainings.change("job", runPolicy={"suspend": False})
    status = trainings.wait_state("job", "Running")
    assert status["attempt"] > first
    assert status["restartsCountTowardsMax"] == 0


def test_deletion_removes_the_pods_and_the_series(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    labels = {"namespace": trainings.namespace, "name": "job"}
    assert operator.metric("job_state", **labels, state="Running") == 1
    trainings.delete("job")
    # The garbage collector looks for new kinds every 30 seconds only.
    wait_for("no pods", lambda: trainings.pods() == {}, seconds=60)
    wait_for("no series", lambda: operator.metric("job_state", **labels) == 0)


def test_successors_of_the_same_names_start_afresh(trainings: Trainings) -> None:
    # Several, because the pods of the first ones go just while those of the second are made.
    jobs = [f"job-{number}" for number in range(5)]
    for name in jobs:
        trainings.create(name)
    for name in jobs:
        trainings.wait_state(name, "Running")
    for name in jobs:
        trainings.delete(name)
        wait_for("gone", partial(trainings.gone, name))
        trainings.create(name)
    for name in jobs:
        status = trainings.wait_state(name, "Running", seconds=60)
        assert status["restarts"] == 0
        owners = {
            pod["metadata"]["ownerReferences"][0]["uid"] for pod in trainings.pods(name).values()
        }
        assert owners == {trainings.get(name)["metadata"]["uid"]}


def test_what_others_write_into_the_status_is_left_alone_and_the_spec_too(
    trainings: Trainings,
) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    managers = {
        (entry["manager"], entry.get("subresource"))
        for entry in trainings.get("job")["metadata"]["managedFields"]
    }
    assert (names.FIELD_MANAGER, "status") in managers
    assert (names.FIELD_MANAGER, None) not in managers, (
        "the operator owns nothing outside of the status"
    )
    assert "annotations" not in trainings.get("job")["metadata"]
    assert "finalizers" not in trainings.get("job")["metadata"]


def test_a_quota_shows_in_the_status_and_heals_when_it_is_lifted(trainings: Trainings) -> None:
    trainings.quota(1)
    trainings.create("job")
    condition = wait_for(
        "the refusal",
        lambda: (
            (c := trainings.condition("job", "PodsReady")).get("reason") == "PodCreationRejected"
            and c
        ),
    )
    assert "exceeded quota" in condition["message"]
    trainings.lift_quota()
    trainings.wait_state("job", "Running", seconds=40)
    assert trainings.condition("job", "PodsReady")["reason"] == "AllPodsReady"


def test_a_pod_that_fits_nowhere_shows_in_the_status(trainings: Trainings) -> None:
    trainings.create("job", template={"spec": {"nodeSelector": {"no": "where"}}})
    condition = wait_for(
        "unschedulable",
        lambda: (
            (c := trainings.condition("job", "PodsReady")).get("reason") == "Unschedulable" and c
        ),
    )
    assert "node" in condition["message"]


def test_nothing_is_written_while_nothing_changes(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    wait_for("the events", lambda: "AttemptRunning" in trainings.reasons("job"))
    version = trainings.get("job")["metadata"]["resourceVersion"]
    before = operator.metric("reconcile_total")
    trainings.cluster.kubectl(
        *("label", "itrain", "job", f"--namespace={trainings.namespace}", "touched=yes"),
    )
    wait_for("a pass", lambda: operator.metric("reconcile_total") > before)
    touched = trainings.get("job")
    assert touched["metadata"]["resourceVersion"] != version
    (label,) = [
        e for e in touched["metadata"]["managedFields"] if e["manager"] == names.FIELD_MANAGER
    ]
    assert label["subresource"] == "status"
    assert (
        trainings.get("job")["metadata"]["resourceVersion"]
        == touched["metadata"]["resourceVersion"]
    )


def test_health_and_readiness(operator: OperatorProcess) -> None:
    assert operator.fetch("/healthz") == (200, "ok")
    assert operator.fetch("/readyz") == (200, "ok")
    assert operator.metric("leader") == 1
