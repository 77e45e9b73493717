"""Programs of users on a real API server: their pods, their progress, and jobs that are done when
rank 0 is.
"""

from __future__ import annotations

from typing import Any

import pytest

from fake_launcher import FakeLauncher
from trainings import Trainings, wait_for

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("operator")]
COMMAND = ["torchrun", "--nproc_per_node=2", "train.py"]


def create(trainings: Trainings, *, hold: bool = False, **spec: Any) -> None:
    container = {"name": "trainer", "image": "mine:1", "command": COMMAND, "args": ["--lr", "1"]}
    metadata = {"annotations": {"kwok.localcluster/hold": "true"}} if hold else {}
    template = {"metadata": metadata, "spec": {"containers": [container]}}
    trainings.create("job", training=None, template=template, **spec)


def test_a_program_gets_its_launcher_and_is_admitted_where_pods_are_restricted(
    trainings: Trainings,
) -> None:
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    trainings.cluster.kubectl("label", "namespace", trainings.namespace, *levels)
    create(trainings)
    status = trainings.wait_state("job", "Running")
    assert "model" not in status
    for pod in trainings.pods("job").values():
        (init,), (main,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
        assert main["command"] == [
            "python3",
            "/opt/inception-launcher",
            "--",
            *COMMAND,
            "--lr",
            "1",
        ]
        assert "args" not in main
        assert (init["name"], main["image"]) == ("inception-launcher", "mine:1")
        assert init["image"] != main["image"]


def test_progress_of_a_program_reaches_the_status_without_a_metrics_page(
    trainings: Trainings,
) -> None:
    with FakeLauncher("127.0.0.91") as launcher:
        create(trainings, hold=True, nodes=1)
        wait_for("the pod", lambda: trainings.pods("job"))
        figures = {
            "progress": 0.25,
            "epoch": 2,
            "loss": 0.5,
            "accuracyTop1": 0.75,
            "samplesPerSecond": 100,
        }
        launcher.report = {"attempt": 1, "state": "Running", "step": 12, "metrics": figures}
        trainings.play_kubelet("job-0-1", launcher.ip, ready=True)
        found = wait_for(
            "figures", lambda: trainings.status("job").get("trainerStatus"), seconds=30
        )
    found.pop("lastUpdatedTime")
    assert found == {
        "progressPercentage": 25,
        "epoch": 2,
        "step": 12,
        "loss": "0.5000",
        "accuracyTop1": "0.7500",
        "samplesPerSecond": "100.0",
    }


def test_success_of_rank_0_is_the_success_of_the_job(trainings: Trainings) -> None:
    create(trainings, nodes=3, successPolicy="Chief")
    trainings.wait_state("job", "Running")
    trainings.annotate("job-0-1", succeed_after="1ms")
    status = trainings.wait_state("job", "Succeeded")
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert (
        trainings.condition("job", "Succeeded")["message"]
        == "the node of rank 0 has ended with success"
    )
    for pod in ("job-1-1", "job-2-1"):
        wait_for("the last word", lambda name=pod: (trainings.assignment(name) or {}).get("end"))


def test_ranks_that_lose_rank_0_to_its_success_do_not_restart_the_job(trainings: Trainings) -> None:
    create(trainings, successPolicy="Chief")
    trainings.wait_state("job", "Running")
    trainings.annotate("job-1-1", fail_after="1ms", exit_code="1")
    wait_for("the failure", lambda: trainings.pods("job")["job-1-1"]["status"]["phase"] == "Failed")
    trainings.annotate("job-0-1", succeed_after="1ms")
    status = trainings.wait_state("job", "Succeeded")
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_without_the_policy_rank_0_alone_is_not_enough(trainings: Trainings) -> None:
    create(trainings)
    trainings.wait_state("job", "Running")
    trainings.annotate("job-0-1", succeed_after="1ms")
    wait_for(
        "the end of rank 0",
        lambda: trainings.pods("job")["job-0-1"]["status"]["phase"] == "Succeeded",
    )
    assert trainings.status("job")["state"] == "Running"
    trainings.annotate("job-1-1", succeed_after="1ms")
    trainings.wait_state("job", "Succeeded")
