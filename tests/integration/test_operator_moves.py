"""Jobs leave nodes that are about to go, on a real API server with fake nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inception_operator.contract import names
from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(300)

NODES = ("move-1", "move-2", "move-3", "move-4")
LABEL = {"inception.test/moves": "true"}
RESOURCES = {"cpu": "8", "memory": "8Gi", "pods": "20"}
APART = {"schedulingPolicy": {"podPlacement": "OnePerNode"}}


@pytest.fixture(scope="module", autouse=True)
def nodes(training_api: Cluster) -> Iterator[None]:
    """Nodes of the tests' own: others go on with theirs."""
    training_api.add_kwok_nodes(NODES, RESOURCES, LABEL)
    yield
    training_api.kubectl("delete", "node", *NODES)


@pytest.fixture(autouse=True)
def all_stay(training_api: Cluster) -> Iterator[None]:
    """After each test no node is about to go any more."""
    yield
    for name in NODES:
        training_api.kubectl("uncordon", name)
        training_api.kubectl("taint", "node", name, "ToBeDeletedByClusterAutoscaler-", check=False)


def start(trainings: Trainings, nodes: int = 2, **spec: Any) -> None:
    """A job on these nodes, one pod on each."""
    template = {"spec": {"nodeSelector": LABEL}}
    trainings.create("job", nodes=nodes, template=template, runPolicy=APART, **spec)
    trainings.wait_state("job", "Running", attempt=1)


def node_of(trainings: Trainings, pod: str) -> str:
    return str(trainings.pods("job")[pod]["spec"]["nodeName"])


def ranks(trainings: Trainings, attempt: int) -> dict[str, int]:
    orders = {name: trainings.assignment(name) or {"attempt": 0} for name in trainings.pods("job")}
    return {
        name: order["nodeRank"]
        for name, order in orders.items()
        if order["attempt"] == attempt and order["nnodes"]
    }


def moved(trainings: Trainings, attempt: int = 2) -> dict[str, Any]:
    """The status once the attempt runs that the job moved with; no restart was counted."""
    status = trainings.wait_state("job", "Running", attempt=attempt, seconds=60)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (0, 0)
    return status


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("slot", [0, 1])
def test_a_member_on_a_cordoned_node_is_replaced_first_and_then_costs_one_attempt(
    trainings: Trainings, training_api: Cluster, slot: int
) -> None:
    start(trainings)
    old = node_of(trainings, f"job-{slot}-1")
    training_api.kubectl("cordon", old)
    moved(trainings)
    wait_for("the old pod is gone", lambda: f"job-{slot}-1" not in trainings.pods("job"))
    assert ranks(trainings, 2) == {f"job-{slot}-2": slot, f"job-{1 - slot}-1": 1 - slot}
    assert node_of(trainings, f"job-{slot}-2") != old
    order = trainings.assignment(f"job-{1 - slot}-1")
    assert order is not None
    assert order["graceful"] is True
    wait_for("the events", lambda: "Moved" in trainings.reasons("job"))
    assert trainings.reasons("job").count("Moved") == 1
    assert "Restarting" not in trainings.reasons("job")


@pytest.mark.usefixtures("operator")
def test_a_spare_takes_the_place_of_a_member_on_a_node_that_an_autoscaler_removes(
    trainings: Trainings, training_api: Cluster
) -> None:
    start(trainings, elasticPolicy={"spareNodes": 1})
    wait_for("a spare", lambda: trainings.status("job")["nodes"].get("spareReady") == 1)
    (spare,) = set(trainings.pods("job")) - set(ranks(trainings, 1))
    (leaver,) = [name for name, rank in ranks(trainings, 1).items() if rank == 1]
    taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule"
    training_api.kubectl("taint", "node", node_of(trainings, leaver), taint)
    moved(trainings)
    assert ranks(trainings, 2)[spare] == 1
    wait_for("another spare", lambda: trainings.status("job")["nodes"].get("spareReady") == 1)
    assert leaver not in trainings.pods("job")


@pytest.mark.usefixtures("operator")
def test_a_job_without_room_elsewhere_stays_and_says_so_and_moves_once_there_is_room(
    trainings: Trainings, training_api: Cluster
) -> None:
    start(trainings)
    trainings.quota(2)
    training_api.kubectl("cordon", node_of(trainings, "job-1-1"))
    condition = wait_for(
        "it is said",
        lambda: (
            found
            if (found := trainings.condition("job", "PodsReady"))["reason"] == "CannotLeaveNode"
            else None
        ),
    )
    assert (condition["status"], "exceeded quota" in condition["message"]) == ("True", True)
    assert trainings.status("job")["attempt"] == 1
    trainings.lift_quota()
    moved(trainings)


@pytest.mark.usefixtures("operator")
def test_kubectl_drain_waits_for_the_move_where_a_disruption_budget_asks_it_to(
    trainings: Trainings, training_api: Cluster
) -> None:
    start(trainings)
    training_api.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "trainings", "namespace": trainings.namespace},
            "spec": {
                "maxUnavailable": 0,
                "selector": {"matchLabels": {names.LABEL_ROLE: names.ROLE_WORKER}},
            },
        }
    )
    path = f"/apis/policy/v1/namespaces/{trainings.namespace}/poddisruptionbudgets/trainings"
    api = ApiClient(training_api.kubeconfig)

    def is_counted() -> bool:
        # The controller manager looks for new kinds twice a minute, and at a budget that it could
        # not count only when it changes.
        training_api.kubectl(
            "annotate",
            "--overwrite",
            "-n",
            trainings.namespace,
            "pdb/trainings",
            f"at={time.time()}",
        )
        return bool(api.request("GET", path)["status"].get("expectedPods") == 2)

    wait_for("the budget", is_counted, seconds=90, pause=1)
    old = node_of(trainings, "job-0-1")
    training_api.kubectl(
        "drain", old, "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"
    )
    moved(trainings)
    assert sorted(trainings.pods("job")) == ["job-0-2", "job-1-1"]


def hold_up(trainings: Trainings, pod: str) -> str:
    """The status has named a rank of the pod for an hour; gives the node that it is to leave."""
    node = node_of(trainings, pod)
    trainings.hold_up("job", rank=1, pod=pod, node=node, ratio="3.0")
    return node


@pytest.mark.usefixtures("operator")
def test_a_straggler_of_long_standing_makes_room_for_a_pod_on_another_node(
    trainings: Trainings,
) -> None:
    start(trainings, failurePolicy={"stragglerPolicy": "Replace"})
    old = hold_up(trainings, "job-1-1")
    status = moved(trainings)
    assert [entry["node"] for entry in status["replacedStragglers"]] == [old]
    assert ranks(trainings, 2) == {"job-0-1": 0, "job-1-2": 1}
    assert node_of(trainings, "job-1-2") != old
    wait_for("the events", lambda: "Moved" in trainings.reasons("job"))
    assert "ReplacingStraggler" in trainings.reasons("job")


@pytest.mark.usefixtures("operator")
def test_a_job_with_no_other_node_keeps_its_straggler_and_says_why(
    trainings: Trainings, training_api: Cluster
) -> None:
    start(trainings, failurePolicy={"stragglerPolicy": "Replace"})
    used = {node_of(trainings, f"job-{slot}-1") for slot in range(2)}
    training_api.kubectl("cordon", *(set(NODES) - used))
    hold_up(trainings, "job-1-1")

    def told() -> bool:
        found = trainings.condition("job", "PodsReady")
        assert found["status"] == "True"
        waits = found["reason"] == "ReplacingStraggler"
        return waits and "nodes are available" in found["message"]

    wait_for("it is said", told)
    assert (trainings.status("job")["attempt"], ranks(trainings, 1)) == (
        1,
        {"job-0-1": 0, "job-1-1": 1},
    )


@pytest.fixture
def demanding(
    training_api: Cluster, operator: OperatorProcess, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """An operator with other signs in the place of that of the file."""
    assert operator.stop() == 0
    signs = ("--leave-on", "default,-cordon,condition=GpuTrouble")
    with OperatorProcess(training_api.kubeconfig, tmp_path / "log", *signs) as process:
        yield process
        assert "Traceback" not in process.log
    operator.start()


def test_a_condition_of_a_node_that_takes_pods_is_left_by_demand(
    trainings: Trainings, training_api: Cluster, demanding: OperatorProcess
) -> None:
    start(trainings, nodes=1)
    old = node_of(trainings, "job-0-1")
    condition = {"type": "GpuTrouble", "status": "True", "reason": "Xid", "message": "79"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    change = ("patch", "node", old, "--subresource=status", f"--patch={patch}")
    training_api.kubectl(*change)
    try:
        moved(trainings)
        assert node_of(trainings, "job-0-2") != old
        assert demanding.metric("planned_moves") == 1
        assert demanding.metric("leaving_nodes") == 1
    finally:
        condition["status"] = "False"
        patch = json.dumps({"status": {"conditions": [condition]}})
        training_api.kubectl(*change[:-1], f"--patch={patch}")
    wait_for("it stays", lambda: demanding.metric("leaving_nodes") == 0)
