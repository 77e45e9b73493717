"""What the operator relies on: the real API server's rules, its own rights, and being killed
between any two writes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from crashing_operator import CRASHED
from inception_operator.contract import names
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RejectedError,
)
from inception_operator.runtime.client import JOBS, PODS, Client, load_configuration
from localcluster.cluster import Cluster
from operator_process import ROOT, OperatorProcess
from trainings import Trainings, training, wait_for

MANIFESTS = ROOT / "manifests"
RIGHTS = (
    "Namespace",
    "Lease",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
)
SYSTEM = "inception-system"
pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture
async def client(training_api: Cluster) -> AsyncIterator[Client]:
    client = Client(await load_configuration(training_api.kubeconfig))
    yield client
    await client.close()


def pod(name: str) -> dict[str, object]:
    labels = {names.LABEL_ROLE: names.ROLE_WORKER}
    spec = {"containers": [{"name": "trainer", "image": "i"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


async def test_a_status_write_on_a_stale_view_is_a_conflict(
    client: Client, trainings: Trainings
) -> None:
    created = trainings.create("job")
    identity = {
        name: created["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")
    }
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": identity,
        "status": {"attempt": 1},
    }
    stored = await client.apply_status(JOBS, body)
    assert stored["status"] == {"attempt": 1}
    assert stored["metadata"]["resourceVersion"] != identity["resourceVersion"]
    with pytest.raises(ConflictError):
        await client.apply_status(JOBS, {**body, "status": {"attempt": 7}})
    assert trainings.status("job") == {"attempt": 1}
    fresh = {**identity, "resourceVersion": stored["metadata"]["resourceVersion"]}
    unchanged = await client.apply_status(JOBS, {**body, "metadata": fresh})
    assert unchanged["metadata"]["resourceVersion"] == fresh["resourceVersion"], (
        "applying the same is no write"
    )
    replaced = await client.apply_status(
        JOBS, {**body, "metadata": fresh, "status": {"restarts": 2}}
    )
    assert replaced["status"] == {"restarts": 2}, "what is no longer applied is removed"


async def test_a_status_write_needs_its_object(client: Client, trainings: Trainings) -> None:
    metadata = {"name": "absent", "namespace": trainings.namespace}
    with pytest.raises(NotFoundError):
        await client.apply_status(JOBS, {**training("absent"), "metadata": metadata, "status": {}})


async def test_preconditions_protect_the_successor_of_a_pod(
    client: Client, trainings: Trainings
) -> None:
    made = await client.create(PODS, trainings.namespace, pod("p"))
    with pytest.raises(AlreadyExistsError):
        await client.create(PODS, trainings.namespace, pod("p"))
    with pytest.raises(ConflictError):
        await client.delete(PODS, trainings.namespace, "p", uid="another", grace=None)
    order = {"annotations": {"a": "b"}}
    with pytest.raises(RejectedError, match="immutable"):
        await client.merge(
            PODS, trainings.namespace, "p", {"metadata": {"uid": "another", **order}}
        )
    uid = made["metadata"]["uid"]
    merged = await client.merge(PODS, trainings.namespace, "p", {"metadata": {"uid": uid, **order}})
    assert merged["metadata"]["annotations"]["a"] == "b"
    await client.delete(PODS, trainings.namespace, "p", uid=uid, grace=0)
    with pytest.raises(NotFoundError):
        await client.delete(PODS, trainings.namespace, "p", uid=uid, grace=0)


async def test_admission_refuses_with_a_text(client: Client, trainings: Trainings) -> None:
    trainings.quota(0)
    with pytest.raises(RejectedError, match="exceeded quota"):
        await client.create(PODS, trainings.namespace, pod("p"))
    with pytest.raises(RejectedError, match="Invalid value"):
        await client.create(PODS, trainings.namespace, pod("Not A Name"))


async def test_a_metadata_list_is_small_and_versioned(client: Client, trainings: Trainings) -> None:
    trainings.create("job")
    page = await client.list_page(JOBS, {}, metadata_only=True)
    (item,) = [i for i in page["items"] if i["metadata"]["namespace"] == trainings.namespace]
    assert "spec" not in item
    assert int(page["metadata"]["resourceVersion"]) >= int(item["metadata"]["resourceVersion"])


async def test_a_pod_that_leaves_the_selector_is_reported_as_deleted(
    client: Client, trainings: Trainings
) -> None:
    made = await client.create(PODS, trainings.namespace, pod("p"))
    query = {
        "labelSelector": f"{names.LABEL_ROLE}={names.ROLE_WORKER}",
        "resourceVersion": made["metadata"]["resourceVersion"],
        "timeoutSeconds": "20",
    }
    await client.merge(
        PODS, trainings.namespace, "p", {"metadata": {"labels": {names.LABEL_ROLE: None}}}
    )
    async with aclosing(client.watch(PODS, query, 30)) as events:
        kinds = [e["type"] async for e in _until(events, "DELETED", made["metadata"]["uid"])]
    assert kinds[-1] == "DELETED"


async def _until(
    events: AsyncIterator[dict[str, object]], kind: str, uid: str
) -> AsyncIterator[dict[str, object]]:
    async for event in events:
        found = event["object"]
        if isinstance(found, dict) and found["metadata"].get("uid") == uid:
            yield event
            if event["type"] == kind:
                return


@pytest.fixture(scope="module")
def limited_kubeconfig(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Credentials of the operator's own service account, as the manifests install it."""
    documents = yaml.safe_load_all((MANIFESTS / "install.yaml").read_text())
    wanted = [document for document in documents if document and document["kind"] in RIGHTS]
    training_api.apply(*sorted(wanted, key=lambda document: RIGHTS.index(document["kind"])))
    token = training_api.kubectl(
        "create", "token", "inception-operator", f"--namespace={SYSTEM}"
    ).strip()
    kubeconfig = yaml.safe_load(training_api.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("limited") / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(kubeconfig))
    yield path
    training_api.kubectl("delete", "namespace", SYSTEM, "--timeout=50s")


def test_the_installed_rights_are_enough(
    limited_kubeconfig: Path, trainings: Trainings, tmp_path: Path
) -> None:
    arguments = ("--lease-namespace", SYSTEM)
    operator = OperatorProcess(
        limited_kubeconfig, tmp_path / "log", *arguments, lease="inception-operator"
    )
    with operator:
        trainings.fail_and_suspend("job")
        assert operator.metric("api_requests_total", code="403") == 0
        assert operator.stop() == 0


@pytest.mark.parametrize("writes", range(1, 9))
def test_dying_after_any_write_changes_nothing_in_the_end(
    writes: int, trainings: Trainings, tmp_path: Path
) -> None:
    script = str(ROOT / "tests" / "support" / "crashing_operator.py")
    kubeconfig = trainings.cluster.kubeconfig
    crashing = OperatorProcess(kubeconfig, tmp_path / "crash", program=(script, str(writes)))
    trainings.create("job")
    with crashing.standing_by():
        assert crashing.wait(30) == CRASHED
    with OperatorProcess(kubeconfig, tmp_path / "log"):
        status = trainings.wait_state("job", "Running")
        # What the other one had not written follows in the same pass, after the status.
        orders = wait_for("all are assigned", lambda: all_assigned(trainings.pods("job")))
    assert sorted(trainings.pods("job")) == ["job-0-1", "job-1-1"]
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert [(order["attempt"], order["nodeRank"]) for order in orders] == [(1, 0), (1, 1)]


def all_assigned(pods: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What each pod was assigned, by name; None while one has nothing."""
    texts = [
        pods[name]["metadata"].get("annotations", {}).get(names.ANNOTATION_ASSIGNMENT)
        for name in sorted(pods)
    ]
    return [json.loads(text) for text in texts] if all(texts) else None


@pytest.mark.parametrize("writes", range(1, 8))
def test_dying_during_a_restart_counts_it_once(
    writes: int, trainings: Trainings, tmp_path: Path
) -> None:
    script = str(ROOT / "tests" / "support" / "crashing_operator.py")
    kubeconfig = trainings.cluster.kubeconfig
    with OperatorProcess(kubeconfig, tmp_path / "before"):
        trainings.create("job")
        trainings.wait_state("job", "Running")
    trainings.annotate("job-1-1", fail_after="1ms")
    wait_for(
        "the pod fails", lambda: trainings.pods("job")["job-1-1"]["status"]["phase"] == "Failed"
    )
    crashing = OperatorProcess(kubeconfig, tmp_path / "crash", program=(script, str(writes)))
    with crashing.standing_by():
        assert crashing.wait(30) == CRASHED
    with OperatorProcess(kubeconfig, tmp_path / "log"):
        status = trainings.wait_state("job", "Running", attempt=2)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 1)
    assert {"job-0-1", "job-1-2"} <= set(trainings.pods("job")) <= {"job-0-1", "job-1-1", "job-1-2"}
