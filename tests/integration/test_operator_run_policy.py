"""The life cycle around the attempts on a real API server: deadlines, clean-up, time to live,
managers, bad specs.
"""

from __future__ import annotations

from typing import Any

import pytest

from inception_operator.contract import names
from localcluster.pytest_plugin import FAKE_NODES
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("operator")]

NOWHERE = {"spec": {"nodeSelector": {"no": "where"}}}
ENDS_WELL = {"kwok.localcluster/succeed-after": "100ms"}


def failed(trainings: Trainings, name: str = "job") -> tuple[str, str]:
    """Reason and message, once the job has failed."""
    trainings.wait_state(name, "Failed", seconds=40)
    condition = trainings.condition(name, "Failed")
    return condition["reason"], condition["message"]


def pods_left(trainings: Trainings, policy: str | None) -> list[str]:
    """What is left of a job with a pod that has failed for good and one that runs, once the
    clean-up is done.
    """
    run_policy = {} if policy is None else {"cleanPodPolicy": policy}
    trainings.create("job", runPolicy=run_policy)
    trainings.wait_state("job", "Running")
    trainings.annotate("job-0-1", fail_after="1ms", exit_code="78")
    assert failed(trainings)[0] == "PermanentFailure"
    gone = {"Running": {"job-1-1"}, "All": {"job-0-1", "job-1-1"}}.get(policy or "None", set())
    wait_for("the clean-up", lambda: not gone & set(trainings.pods("job")), seconds=15)
    return sorted(trainings.pods("job"))


def test_a_job_that_takes_too_long_fails(trainings: Trainings) -> None:
    trainings.create("job", runPolicy={"activeDeadlineSeconds": 3})
    reason, message = failed(trainings)
    assert reason == "DeadlineExceeded"
    assert "within 3 s" in message
    wait_for("the event", lambda: "DeadlineExceeded" in trainings.reasons("job"))
    order = wait_for("the last word", lambda: trainings.assignment("job-1-1"))
    wait_for("the last word", lambda: (trainings.assignment("job-1-1") or order).get("end"))
    assert (trainings.assignment("job-1-1") or {})["graceful"] is True


def test_the_deadline_of_a_running_job_can_be_set_later(trainings: Trainings) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    trainings.change("job", runPolicy={"activeDeadlineSeconds": 1})
    assert failed(trainings)[0] == "DeadlineExceeded"


def test_a_job_whose_pods_fit_nowhere_fails_with_the_words_of_the_scheduler(
    trainings: Trainings,
) -> None:
    trainings.create("job", template=NOWHERE, runPolicy={"preRunningDeadlineSeconds": 3})
    reason, message = failed(trainings)
    assert reason == "PreRunningDeadlineExceeded"
    assert "Unschedulable: pod job-0-1: 0/" in message
    wait_for("no pods", lambda: trainings.pods("job") == {})


def test_pods_that_want_a_node_each_are_not_put_together(trainings: Trainings) -> None:
    alone = {"schedulingPolicy": {"podPlacement": "OnePerNode"}}
    trainings.create("job", nodes=FAKE_NODES, runPolicy=alone)
    trainings.wait_state("job", "Running")
    assert len({pod["spec"]["nodeName"] for pod in trainings.pods("job").values()}) == FAKE_NODES
    trainings.create(
        "wide", nodes=FAKE_NODES + 1, runPolicy={**alone, "preRunningDeadlineSeconds": 3}
    )
    reason, message = failed(trainings, "wide")
    assert reason == "PreRunningDeadlineExceeded"
    assert "didn't match pod anti-affinity rules" in message


def test_pods_on_the_network_of_their_nodes_never_share_a_port(trainings: Trainings) -> None:
    template = {"spec": {"hostNetwork": True}}
    for name in ("one", "two"):
        trainings.create(
            name, nodes=1, template=template, runPolicy={"preRunningDeadlineSeconds": 20}
        )
        trainings.wait_state(name, "Running")
    pods = {name: trainings.pods(name)[f"{name}-0-1"] for name in ("one", "two")}
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == FAKE_NODES == 2
    assert {pod["spec"]["dnsPolicy"] for pod in pods.values()} == {"ClusterFirstWithHostNet"}
    ports = {(trainings.assignment(f"{name}-0-1") or {}).get("masterPort") for name in pods}
    assert len(ports) == 2
    trainings.create(
        "three", nodes=1, template=template, runPolicy={"preRunningDeadlineSeconds": 3}
    )
    assert "didn't have free ports" in failed(trainings, "three")[1]


def test_a_finished_job_never_comes_back(trainings: Trainings, operator: OperatorProcess) -> None:
    trainings.create("job", runPolicy={"activeDeadlineSeconds": 2})
    assert failed(trainings)[0] == "DeadlineExceeded"
    ended = trainings.status("job")
    trainings.change("job", runPolicy={"activeDeadlineSeconds": 3600, "cleanPodPolicy": "All"})
    wait_for("no pods", lambda: trainings.pods("job") == {})
    operator.kill()
    operator.start()
    trainings.change("job", failurePolicy={"maxRestarts": 3})
    generation = trainings.get("job")["metadata"]["generation"]
    after = wait_for(
        "the last change",
        lambda: (s := trainings.status("job")).get("observedGeneration") == generation and s,
    )
    for key in ("state", "completionTime", "attempt", "restarts"):
        assert after[key] == ended[key]
    assert trainings.pods("job") == {}


def test_a_job_is_deleted_when_its_time_is_over(trainings: Trainings) -> None:
    trainings.create("job", annotations=ENDS_WELL, runPolicy={"ttlSecondsAfterFinished": 2})
    trainings.wait_state("job", "Succeeded")
    wait_for("gone", lambda: trainings.gone("job"))
    wait_for("no pods", lambda: trainings.pods() == {}, seconds=60)


def test_a_job_can_be_deleted_at_once_and_the_operator_forgets_it(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create("job", annotations=ENDS_WELL, runPolicy={"ttlSecondsAfterFinished": 0})
    wait_for("gone", lambda: trainings.gone("job"))
    wait_for("the events", lambda: "Completed" in trainings.reasons("job"))
    labels = {"namespace": trainings.namespace, "name": "job"}
    wait_for("no series", lambda: operator.metric("job_state", **labels) == 0)


def test_the_time_to_live_can_be_set_after_the_end(trainings: Trainings) -> None:
    trainings.create("job", annotations=ENDS_WELL)
    trainings.wait_state("job", "Succeeded")
    trainings.change("job", runPolicy={"ttlSecondsAfterFinished": 0})
    wait_for("gone", lambda: trainings.gone("job"))


@pytest.mark.parametrize(
    ("policy", "left"),
    [(None, ["job-0-1", "job-1-1"]), ("Running", ["job-0-1"]), ("All", [])],
    ids=["default", "Running", "All"],
)
def test_pods_are_cleaned_up_as_the_policy_says(
    trainings: Trainings, policy: str | None, left: list[str]
) -> None:
    assert pods_left(trainings, policy) == left


def test_a_job_of_another_controller_is_not_touched(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create(
        "foreign", runPolicy={"managedBy": "kueue.x-k8s.io/multikueue", "suspend": False}
    )
    trainings.create("ours", runPolicy={"managedBy": names.MANAGER})
    trainings.wait_state("ours", "Running")
    foreign = trainings.get("foreign")
    assert "status" not in foreign
    assert trainings.pods("foreign") == {}
    assert {entry["manager"] for entry in foreign["metadata"]["managedFields"]} & {
        names.FIELD_MANAGER
    } == set()
    assert operator.metric("job_state", namespace=trainings.namespace, name="foreign") == 0


def rejected(trainings: Trainings, words: str, **spec: Any) -> None:
    trainings.create("job", **spec)
    status = trainings.wait_state("job", "Rejected")
    assert "startTime" not in status
    condition = trainings.condition("job", "Accepted")
    assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
    assert words in condition["message"]
    assert trainings.pods("job") == {}


def test_an_accelerator_that_nobody_knows_is_named_and_can_be_corrected(
    trainings: Trainings,
) -> None:
    rejected(
        trainings,
        "spec.accelerator.profile: abacus is unknown; choose one of",
        accelerator={"profile": "abacus"},
    )
    trainings.change("job", runPolicy={"suspend": True})
    trainings.change("job", accelerator={"profile": "cpu"}, runPolicy={"suspend": False})
    status = trainings.wait_state("job", "Running")
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert trainings.condition("job", "Accepted")["status"] == "True"
    reasons = wait_for(
        "the events", lambda: (r := trainings.reasons("job"))[-1] == "AttemptRunning" and r
    )
    assert reasons.count("InvalidSpec") == 1
    assert "Accepted" in reasons


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"nvidia.com/gpu": 1, "cambricon.com/mlu": 1},
            "a device of profile cambricon, but the profile is nvidia",
        ),
        ({"nvidia.com/gpu": "1.5"}, "nvidia.com/gpu: 1.5 is not a whole number of devices"),
        (
            {"nvidia.com/gpus": 1},
            "spec.template.spec.containers[0].resources: nvidia.com/gpus is unknown",
        ),
    ],
    ids=["two vendors", "half a device", "unknown"],
)
def test_a_template_that_asks_for_strange_devices_is_rejected(
    trainings: Trainings, limits: dict[str, Any], words: str
) -> None:
    container = {"name": "trainer", "resources": {"limits": limits}}
    template = {"spec": {"containers": [container]}}
    rejected(trainings, words, accelerator={"profile": "nvidia"}, template=template)


def test_a_rejected_job_shows_in_kubectl_get(trainings: Trainings) -> None:
    rejected(trainings, "abacus", accelerator={"profile": "abacus"})
    header, row = trainings.cluster.kubectl(
        "get", f"--namespace={trainings.namespace}", "itrain"
    ).splitlines()
    assert header.split()[1] == "STATE"
    assert row.split()[1] == "Rejected"
