"""Faults around the operator: it is killed, replaced, cut off; and how fast it answers a failure of
live launchers.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cut_proxy import CutProxy
from fake_launcher import FakeLauncher
from inception_trainer.launcher import notify
from launchers import free_port
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from recording_proxy import RecordingProxy
from trainings import Trainings, wait_for

HOLD = {"kwok.localcluster/hold": "true"}
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def operator(training_api: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(training_api.kubeconfig, tmp_path / "operator.log") as process:
        yield process
        assert "Traceback" not in process.log


def test_counters_survive_the_operator(trainings: Trainings, tmp_path: Path) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log")
    with operator:
        trainings.create("job", nodes=1, failurePolicy={"maxRestarts": 2})
        for attempt in (1, 2, 3):
            trainings.wait_state("job", "Running", attempt=attempt)
            operator.kill()
            trainings.annotate(f"job-0-{attempt}", fail_after="1ms")
            wait_for(
                "the pod fails",
                lambda name=f"job-0-{attempt}": (
                    trainings.pods("job")[name]["status"]["phase"] == "Failed"
                ),  # type: ignore[misc]
            )
            operator.start()
        status = trainings.wait_state("job", "Failed")
    assert (status["attempt"], status["restartsCountTowardsMax"]) == (3, 2)
    assert max(trainings.pods("job")) == "job-0-3"


def test_a_restarted_operator_restarts_no_healthy_training(
    trainings: Trainings, tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log")
    with operator:
        trainings.create("job")
        trainings.wait_state("job", "Running")
        wait_for("the event", lambda: "AttemptRunning" in trainings.reasons("job"))
        before = trainings.get("job")["metadata"]["resourceVersion"]
        pods = {name: pod["metadata"]["uid"] for name, pod in trainings.pods("job").items()}
        operator.kill()
        operator.start()
        wait_for("it has looked", lambda: operator.metric("reconcile_total") > 1)
        time.sleep(1)
        assert trainings.get("job")["metadata"]["resourceVersion"] == before
        assert {name: pod["metadata"]["uid"] for name, pod in trainings.pods("job").items()} == pods


def test_what_happened_while_no_operator_ran_is_made_up_for(
    trainings: Trainings, tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "log")
    with operator:
        trainings.create("job")
        trainings.create("doomed")
        trainings.wait_state("job", "Running")
        operator.kill()
        trainings.delete_pod("job-1-1")
        trainings.delete("doomed")
        trainings.create("late")
        operator.start()
        trainings.wait_state("job", "Running", attempt=2)
        trainings.wait_state("late", "Running")


def test_sigterm_is_a_clean_end(operator: OperatorProcess, trainings: Trainings) -> None:
    trainings.create("job")
    trainings.wait_state("job", "Running")
    assert operator.stop() == 0
    assert "ERROR" not in operator.log


def holder_of(trainings: Trainings, lease: str) -> str:
    jsonpath = "jsonpath={.spec.holderIdentity}"
    return trainings.cluster.kubectl("get", "lease", lease, "--namespace=default", "-o", jsonpath)


@pytest.mark.nightly
def test_a_second_operator_stands_by_and_takes_over(trainings: Trainings, tmp_path: Path) -> None:
    lease = f"lease-{uuid.uuid4().hex[:8]}"
    kubeconfig = trainings.cluster.kubeconfig
    first = OperatorProcess(kubeconfig, tmp_path / "first", lease=lease)
    second = OperatorProcess(kubeconfig, tmp_path / "second", lease=lease)
    with first, second.standing_by():
        trainings.create("job")
        trainings.wait_state("job", "Running")
        assert (first.metric("leader"), second.metric("leader")) == (1, 0)
        assert second.fetch("/readyz")[0] == second.fetch("/healthz")[0] == 200
        assert second.writes() == 0
        holder = holder_of(trainings, lease)
        assert first.stop() == 0
        assert holder_of(trainings, lease) != holder, "released, not left to run out"
        trainings.delete_pod("job-0-1")
        trainings.wait_state("job", "Running", attempt=2)
        first.start(wait_for_work=False)
        second.kill()
        killed = time.monotonic()
        trainings.delete_pod("job-0-2")
        trainings.wait_state("job", "Running", attempt=3, seconds=40)
        assert time.monotonic() - killed > 5, "a lease that was not released is respected"


def test_an_operator_that_lost_its_lease_ends(training_api: Cluster, tmp_path: Path) -> None:
    lease = f"lease-{uuid.uuid4().hex[:8]}"
    with OperatorProcess(training_api.kubeconfig, tmp_path / "log", lease=lease) as operator:
        patch = '{"spec": {"holderIdentity": "somebody else"}}'
        training_api.kubectl(
            "patch", "lease", lease, "--namespace=default", "--type=merge", f"--patch={patch}"
        )
        assert operator.wait(30) == 1
        assert "LeadershipLostError" in operator.log
        assert "somebody else holds" in operator.log


def test_cut_connections_and_an_outage_lose_nothing(trainings: Trainings, tmp_path: Path) -> None:
    with (
        CutProxy(trainings.cluster.kubeconfig, tmp_path) as proxy,
        OperatorProcess(proxy.kubeconfig, tmp_path / "log") as operator,
    ):
        trainings.create("job")
        trainings.wait_state("job", "Running")
        for attempt in (2, 3):
            proxy.cut()
            trainings.delete_pod(
                next(name for name in trainings.pods("job") if name.startswith("job-1-"))
            )
            trainings.wait_state("job", "Running", attempt=attempt)
        with proxy.outage():
            trainings.delete_pod("job-0-1")
            trainings.create("late")
            time.sleep(3)
        trainings.wait_state("job", "Running", attempt=4, seconds=60)
        trainings.wait_state("late", "Running", seconds=60)
        assert operator.fetch("/healthz")[0] == 200
        assert operator.stop() == 0


@pytest.mark.parametrize(
    "code", [503, *(pytest.param(code, marks=pytest.mark.nightly) for code in (401, 403, 404, 429))]
)
def test_a_load_balancer_without_an_api_server_behind_it_loses_nothing(
    trainings: Trainings, tmp_path: Path, code: int
) -> None:
    with (
        RecordingProxy(trainings.cluster.kubeconfig, tmp_path) as proxy,
        OperatorProcess(proxy.kubeconfig, tmp_path / "log") as operator,
    ):
        trainings.create("job")
        trainings.wait_state("job", "Running")
        with proxy.refusing(code):
            trainings.delete_pod("job-0-1")
            trainings.create("late")
            # Longer than kopf tries again for.
            time.sleep(12)
        operator.check()
        trainings.wait_state("job", "Running", attempt=2, seconds=60)
        trainings.wait_state("late", "Running", seconds=60)
        assert operator.stop() == 0, "by itself it did not end"
        assert "Traceback" not in operator.log


def test_an_operator_that_has_not_reached_the_api_server_is_not_ready(
    trainings: Trainings, tmp_path: Path
) -> None:
    lease = f"lease-{uuid.uuid4().hex[:8]}"
    with CutProxy(trainings.cluster.kubeconfig, tmp_path) as proxy:
        operator = OperatorProcess(proxy.kubeconfig, tmp_path / "log", lease=lease)
        with proxy.outage(), ExitStack() as until_it_works:
            until_it_works.enter_context(operator.standing_by())
            running = until_it_works.pop_all()
            wait_for("the line", lambda: "has never answered" in operator.log)
            # Long enough for several tries at the Lease.
            time.sleep(5)
            code, text = operator.fetch("/readyz")
            assert code == 503
            assert "the API server at https://127.0.0.1:" in text
            assert "network policies" in text
            assert operator.fetch("/healthz")[0] == 200, "a restart would not help"
            assert operator.log.count("has never answered") == 1
            assert "Traceback" not in operator.log
        with running:
            wait_for("readiness", lambda: operator.fetch("/readyz") == (200, "ok"))
            trainings.create("job")
            trainings.wait_state("job", "Running")


@pytest.fixture
def launchers() -> Iterator[list[FakeLauncher]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeLauncher(f"127.0.0.{number}")) for number in (81, 82)]


def start_with(trainings: Trainings, launchers: list[FakeLauncher], **spec: Any) -> None:
    """A training on two nodes whose launchers answer."""
    trainings.create("job", annotations=HOLD, failurePolicy={"maxRestarts": 100}, **spec)
    wait_for("pods", lambda: len(trainings.pods("job")) == len(launchers))
    for slot, launcher in enumerate(launchers):
        trainings.play_kubelet(f"job-{slot}-1", launcher.ip, ready=True)
    follow(trainings, launchers, 1)
    trainings.wait_state("job", "Running", attempt=1)


def follow(trainings: Trainings, launchers: list[FakeLauncher], attempt: int) -> None:
    """Wait until both pods are told this attempt, and begin it."""
    for slot, launcher in enumerate(launchers):

        def given(name: str = f"job-{slot}-1") -> bool:
            order = trainings.assignment(name)
            return (
                order is not None
                and order["attempt"] == attempt
                and order["nnodes"] == len(launchers)
            )

        wait_for(f"attempt {attempt} for slot {slot}", given, pause=0.001)
        launcher.report = {"attempt": attempt, "state": "Running"}


def test_a_failed_rank_is_answered_on_the_same_pods(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    start_with(trainings, launchers)
    for attempt in range(2, 6):
        now = datetime.now(UTC).isoformat()
        report = {
            "attempt": attempt - 1,
            "state": "Failed",
            "exitCode": 137,
            "rank": 1,
            "reason": "Signal",
            "time": now,
            # Progress: without it the job would pause.
            "step": 10 * attempt,
        }
        launchers[1].report = {**report, "host": "job-1-1", "message": "SIGKILL"}
        trainings.play_kubelet("job-1-1", launchers[1].ip, ready=False)
        follow(trainings, launchers, attempt)
        trainings.play_kubelet("job-1-1", launchers[1].ip, ready=True)
        status = trainings.wait_state("job", "Running", attempt=attempt)
    assert status["rootCause"]["message"] == "SIGKILL"
    assert status["rootCause"]["rank"] == 1
    assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"], "the pods stay"


def test_a_launcher_that_rings_is_heard_before_its_readiness_drops(
    trainings: Trainings,
    launchers: list[FakeLauncher],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A launcher rings once and gives up after a second: its readiness drops then, here it does not.
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 30.0)
    port = free_port()
    bell = ("--http-port", str(port), "--advertise-address", "127.0.0.1")
    with OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "operator.log", *bell):
        start_with(trainings, launchers)
        order = trainings.assignment("job-1-1")
        assert order is not None
        assert order["bell"] == f"127.0.0.1:{port}"
        # Nothing but the ring tells of the failure: the pods stay ready.
        launchers[1].report = {
            "attempt": 1,
            "state": "Failed",
            "exitCode": 137,
            "rank": 1,
            "reason": "Signal",
        }
        notify.notify_and_wait(order["bell"], f"{trainings.namespace}/job", "job-1-1")
        follow(trainings, launchers, 2)
        assert trainings.wait_state("job", "Running", attempt=2)["rootCause"]["pod"] == "job-1-1"


@pytest.mark.nightly
def test_a_job_whose_launchers_cannot_be_reached_ends(
    trainings: Trainings, operator: OperatorProcess
) -> None:
    trainings.create("job", annotations=HOLD, failurePolicy={"maxRestarts": 0})
    wait_for("pods", lambda: len(trainings.pods("job")) == 2)
    for slot in (0, 1):
        # Nobody listens there, as if a NetworkPolicy let only the kubelet in.
        trainings.play_kubelet(f"job-{slot}-1", f"127.0.0.{91 + slot}", ready=True)
    trainings.wait_state("job", "Running", attempt=1)

    def is_told() -> bool:
        conditions = trainings.status("job")["conditions"]
        ready = next(c for c in conditions if c["type"] == "PodsReady")
        return ready["status"] == "True" and "NetworkPolicies have to let" in ready["message"]

    wait_for("the condition", is_told, seconds=50)
    wait_for("the event", lambda: "LauncherUnreachable" in trainings.reasons("job"))
    trainings.play_kubelet("job-1-1", "127.0.0.92", ready=False)
    status = trainings.wait_state("job", "Failed", seconds=60)
    cause = status["rootCause"]
    assert (cause["reason"], cause["pod"]) == ("LauncherUnreachable", "job-1-1")
    failed = next(c for c in status["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "MaxRestartsExceeded"


@pytest.mark.nightly
def test_a_launcher_that_fell_silent_while_the_operator_was_replaced_does_not_count(
    trainings: Trainings, launchers: list[FakeLauncher], tmp_path: Path
) -> None:
    operator = OperatorProcess(trainings.cluster.kubeconfig, tmp_path / "operator.log")
    with operator:
        start_with(trainings, launchers)
        operator.kill()
        # Nobody listens there, as if the node had died.
        trainings.play_kubelet("job-1-1", "127.0.0.93", ready=False)
        operator.start()
        cause = wait_for("the cause", lambda: trainings.status("job").get("rootCause"), seconds=60)
        assert (cause["reason"], cause["pod"]) == ("NotResponding", "job-1-1")
        status = trainings.status("job")
        assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)


def test_an_unhealthy_device_costs_its_pod(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    start_with(trainings, launchers, accelerator={"profile": "cambricon", "devicesPerNode": 1})
    devices = [{"resourceID": "mlu-0", "health": "Unhealthy"}]
    trainings.play_kubelet(
        "job-1-1", launchers[1].ip, ready=True, devices={"cambricon.com/mlu": devices}
    )
    cause = wait_for("the cause", lambda: trainings.status("job").get("rootCause"))
    assert (cause["reason"], cause["pod"]) == ("DeviceUnhealthy", "job-1-1")
    assert "cambricon.com/mlu mlu-0" in cause["message"]
    broken = cause["node"]
    found = wait_for(
        "its successor",
        lambda: trainings.pods("job").get("job-1-2", {}).get("spec", {}).get("nodeName"),
    )
    assert found != broken, "there is another node"
    assert "job-0-1" in trainings.pods("job")
    status = trainings.status("job")
    assert status["restartsCountTowardsMax"] == 0
    assert [(entry["name"], entry["reason"]) for entry in status["avoidedNodes"]] == [
        (broken, "DeviceUnhealthy")
    ]


def test_figures_of_rank_0_reach_the_status_at_most_every_ten_seconds(
    trainings: Trainings, operator: OperatorProcess, launchers: list[FakeLauncher]
) -> None:
    launchers[
        0
    ].metrics = 'trainer_progress_ratio 0.25\ntrainer_accuracy_ratio{split="val",k="1"} 0.5\n'
    start_with(trainings, launchers)
    first = wait_for("figures", lambda: trainings.status("job").get("trainerStatus"), seconds=30)
    assert (first["progressPercentage"], first["accuracyTop1"]) == (25, "0.5000")
    launchers[0].metrics = "trainer_progress_ratio 0.75\n"
    seen = wait_for(
        "new figures",
        lambda: (s := trainings.status("job")["trainerStatus"])["progressPercentage"] == 75 and s,
        seconds=40,
    )
    pause = datetime.fromisoformat(seen["lastUpdatedTime"]) - datetime.fromisoformat(
        first["lastUpdatedTime"]
    )
    assert pause.total_seconds() >= 10
    assert operator.metric("job_progress_ratio", namespace=trainings.namespace, name="job") == 0.75
