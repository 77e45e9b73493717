"""Claims of devices on a real API server with the real scheduler and controllers; drivers only
publish devices.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from inception_operator.contract import names
from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from localcluster.dra import objects
from localcluster.dra.objects import Offer
from localcluster.errors import CommandError
from operator_process import OperatorProcess
from trainings import Trainings, training, wait_for

pytestmark = pytest.mark.timeout(240)
Json = dict[str, Any]
GROUP = f"/apis/{objects.API_VERSION}"
NODES = ("kwok-0", "kwok-1")


class Drivers:
    """What the drivers of the fake nodes publish, and what is claimed of it."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.name = f"mlu-{uuid.uuid4().hex[:8]}.example.com"
        self.offers = {node: Offer(self.name, node, 4) for node in NODES}
        self._client = client
        self._namespaced = f"{GROUP}/namespaces/{namespace}"

    def publish(self) -> None:
        self._client.request("POST", f"{GROUP}/deviceclasses", objects.device_class(self.name))
        for offer in self.offers.values():
            self._client.request("POST", f"{GROUP}/resourceslices", objects.resource_slice(offer))

    def withdraw(self) -> None:
        for offer in self.offers.values():
            self._client.request("DELETE", f"{GROUP}/resourceslices/{offer.slice_name}")
        self._client.request("DELETE", f"{GROUP}/deviceclasses/{self.name}")

    def taint(self, node: str, device: str) -> None:
        """The driver declares a device broken."""
        path = f"{GROUP}/resourceslices/{self.offers[node].slice_name}"
        found = self._client.request("GET", path)
        changed = objects.resource_slice(
            self.offers[node], {device}, effect="NoExecute", generation=2
        )
        changed["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        self._client.request("PUT", path, changed)

    def claims(self, job: str) -> list[Json]:
        """ResourceClaims of a job that Kubernetes made from its templates."""
        found: list[Json] = self._client.request(
            "GET", f"{self._namespaced}/resourceclaims?labelSelector={names.LABEL_JOB}%3D{job}"
        )["items"]
        return found

    def templates(self) -> list[Json]:
        found: list[Json] = self._client.request(
            "GET", f"{self._namespaced}/resourceclaimtemplates"
        )["items"]
        return found

    def create_template(self, body: Json) -> None:
        self._client.request("POST", f"{self._namespaced}/resourceclaimtemplates", body)

    def devices(self, job: str) -> dict[str, list[tuple[str, str]]]:
        """Node and device by pod."""
        found: dict[str, list[tuple[str, str]]] = {}
        for claim in self.claims(job):
            results = (
                (claim.get("status") or {})
                .get("allocation", {})
                .get("devices", {})
                .get("results", [])
            )
            (pod,) = claim["metadata"]["ownerReferences"]
            found[pod["name"]] = [(result["pool"], result["device"]) for result in results]
        return found


@pytest.fixture
def trainings(
    control_plane: Cluster, operator: OperatorProcess, namespace: str
) -> Iterator[Trainings]:
    with Trainings(control_plane, namespace) as found:
        yield found


@pytest.fixture
def drivers(control_plane: Cluster, namespace: str) -> Iterator[Drivers]:
    found = Drivers(ApiClient(control_plane.kubeconfig), namespace)
    found.publish()
    yield found
    found.withdraw()


def of_class(drivers: Drivers, count: int) -> Json:
    return {
        "profile": "nvidia",
        "claims": [{"name": "mlus", "deviceClassName": drivers.name, "count": count}],
    }


def test_every_pod_gets_devices_of_its_own_and_a_rank_for_each(
    trainings: Trainings, drivers: Drivers
) -> None:
    trainings.create("job", accelerator=of_class(drivers, 2))
    status = trainings.wait_state("job", "Running")
    assert status["accelerator"] == f"{drivers.name} x2"
    found = drivers.devices("job")
    assert sorted(found) == ["job-0-1", "job-1-1"]
    taken = [device for devices in found.values() for device in devices]
    assert len(set(taken)) == len(taken) == 4
    pods = trainings.pods("job")
    for name, devices in found.items():
        assert {node for node, _ in devices} == {pods[name]["spec"]["nodeName"]}
        (container,) = pods[name]["spec"]["containers"]
        assert container["resources"]["claims"] == [{"name": "mlus"}]
        assert "limits" not in container["resources"]
        order = trainings.assignment(name)
        assert order is not None
        assert order["nprocPerNode"] == 2
    (template,) = drivers.templates()
    assert template["metadata"]["ownerReferences"][0]["name"] == "job"
    trainings.delete("job")
    # The garbage collector of a new control plane may need half a minute to learn of our kind.
    wait_for(
        "all of it goes", lambda: not drivers.templates() and not drivers.claims("job"), seconds=90
    )


def test_jobs_share_no_device_and_one_that_finds_none_waits_until_there_are_some(
    trainings: Trainings, drivers: Drivers
) -> None:
    for name in ("first", "second"):
        trainings.create(name, accelerator=of_class(drivers, 2))
        trainings.wait_state(name, "Running")
    taken = [
        d
        for name in ("first", "second")
        for devices in drivers.devices(name).values()
        for d in devices
    ]
    assert len(set(taken)) == len(taken) == 8
    trainings.create("third", nodes=1, accelerator=of_class(drivers, 1))
    wait_for(
        "third is told",
        lambda: trainings.condition("third", "PodsReady").get("reason") == "Unschedulable",
    )
    message = trainings.condition("third", "PodsReady")["message"]
    assert re.match(
        r"pod third-0-1: 0/\d+ nodes are available: .*cannot allocate all claims", message
    ), message
    trainings.delete("first")
    trainings.wait_state("third", "Running", seconds=60)


def test_more_than_any_node_has_ends_with_the_words_of_the_scheduler(
    trainings: Trainings, drivers: Drivers
) -> None:
    policy = {"preRunningDeadlineSeconds": 3}
    trainings.create("job", nodes=1, accelerator=of_class(drivers, 5), runPolicy=policy)
    status = trainings.wait_state("job", "Failed")
    failed = trainings.condition("job", "Failed")
    assert failed["reason"] == "PreRunningDeadlineExceeded"
    assert "cannot allocate all claims" in failed["message"]
    assert status["attempt"] == 1


def test_templates_of_users_are_taken_as_they_are(trainings: Trainings, drivers: Drivers) -> None:
    """It may ask for whatever Kubernetes knows: here for a device by its number, and any other
    one.
    """
    chosen = {"cel": {"expression": f"device.attributes['{drivers.name}'].index == 3"}}
    requests = [
        {"name": "last", "exactly": {"deviceClassName": drivers.name, "selectors": [chosen]}},
        {"name": "any", "exactly": {"deviceClassName": drivers.name}},
    ]
    spec = {"spec": {"devices": {"requests": requests}}}
    kind = {"apiVersion": objects.API_VERSION, "kind": "ResourceClaimTemplate"}
    drivers.create_template(
        {**kind, "metadata": {"name": "mine", "labels": {"by": "hand"}}, "spec": spec}
    )
    accelerator = {
        "profile": "nvidia",
        "claims": [{"name": "mlus", "resourceClaimTemplateName": "mine"}],
    }
    trainings.create("job", nodes=1, accelerator=accelerator, numProcPerNode=2)
    status = trainings.wait_state("job", "Running")
    assert status["accelerator"] == "claims from mine"
    assert [template["metadata"]["name"] for template in drivers.templates()] == ["mine"]
    (pod,) = trainings.pods("job").values()
    (claim,) = pod["status"]["resourceClaimStatuses"]
    found = trainings.cluster.kubectl(
        *(
            "get",
            "resourceclaim",
            claim["resourceClaimName"],
            f"--namespace={trainings.namespace}",
            "--output=json",
        )
    )
    results = json.loads(found)["status"]["allocation"]["devices"]["results"]
    assert {result["request"]: result["device"] for result in results}["last"] == "device-3"
    assert len(results) == 2


def test_a_tainted_device_costs_the_attempt_and_is_not_given_again(
    trainings: Trainings, drivers: Drivers
) -> None:
    trainings.create("job", nodes=1, accelerator=of_class(drivers, 4))
    trainings.wait_state("job", "Running")
    ((node, device), *_) = drivers.devices("job")["job-0-1"]
    drivers.taint(node, device)
    status = trainings.wait_state("job", "Running", attempt=2, seconds=60)
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    cause = status["rootCause"]
    assert (cause["pod"], cause["node"]) == ("job-0-1", node)
    # Fake nodes let go of a pod so fast that its last words may be missed.
    assert cause["reason"] in ("Disrupted", "PodDeleted")
    again = drivers.devices("job")["job-0-2"]
    assert (node, device) not in again
    assert len(again) == 4
    assert {place for place, _ in again} == {place for place in NODES if place != node}, (
        "none is left there"
    )


def test_a_suspended_job_may_claim_something_else(trainings: Trainings, drivers: Drivers) -> None:
    trainings.create("job", nodes=1, accelerator=of_class(drivers, 1))
    trainings.wait_state("job", "Running")
    with pytest.raises(
        CommandError, match=r"spec\.accelerator cannot change while the job is not suspended"
    ):
        trainings.change("job", accelerator=of_class(drivers, 3))
    trainings.change("job", runPolicy={"suspend": True})
    trainings.wait_state("job", "Suspended")
    wait_for("its devices are free", lambda: not drivers.claims("job"))
    trainings.change("job", accelerator=of_class(drivers, 3))
    trainings.change("job", runPolicy={"suspend": False})
    status = trainings.wait_state("job", "Running", attempt=2)
    assert status["accelerator"] == f"{drivers.name} x3"
    assert len(drivers.devices("job")["job-0-2"]) == 3
    assert len(drivers.templates()) == 2


def test_a_class_that_nobody_knows_is_named_until_somebody_makes_it(
    trainings: Trainings, drivers: Drivers
) -> None:
    accelerator = {
        "profile": "nvidia",
        "claims": [{"name": "mlus", "deviceClassName": "nobody.example.com"}],
    }
    trainings.create("job", nodes=1, accelerator=accelerator)

    def told() -> bool:
        return "nobody.example.com" in trainings.condition("job", "PodsReady").get("message", "")

    wait_for("the class is named", told)
    assert trainings.condition("job", "PodsReady")["reason"] == "Unschedulable"


CLAIM: Json = {"name": "mlus", "deviceClassName": "mlu.example.com", "count": 2}
OWN: Json = {"name": "mine", "resourceClaimTemplateName": "big"}
REJECTED: dict[str, tuple[Json, str]] = {
    "on a CPU": (
        {"accelerator": {"claims": [CLAIM]}},
        "spec.accelerator.claims need a profile other than cpu",
    ),
    "and devicesPerNode": (
        {"accelerator": {"profile": "nvidia", "claims": [CLAIM], "devicesPerNode": 2}},
        "spec.accelerator.claims cannot be set beside resourceName and devicesPerNode",
    ),
    "and resourceName": (
        {"accelerator": {"profile": "nvidia", "claims": [CLAIM], "resourceName": "nvidia.com/gpu"}},
        "spec.accelerator.claims cannot be set beside resourceName and devicesPerNode",
    ),
    "of nothing": (
        {"accelerator": {"profile": "nvidia", "claims": [{"name": "a"}]}, "numProcPerNode": 1},
        "spec.accelerator.claims needs in each claim exactly one of resourceClaimTemplateName "
        "and deviceClassName",
    ),
    "of both": (
        {"accelerator": {"profile": "nvidia", "claims": [{**CLAIM, **OWN}]}},
        "spec.accelerator.claims needs in each claim exactly one of",
    ),
    "count of a template": (
        {
            "accelerator": {"profile": "nvidia", "claims": [{**OWN, "count": 2}]},
            "numProcPerNode": 1,
        },
        "spec.accelerator.claims has a count that belongs to deviceClassName",
    ),
    "unknown number of ranks": (
        {"accelerator": {"profile": "nvidia", "claims": [OWN]}},
        "spec.numProcPerNode auto needs exactly one claim with a deviceClassName in "
        "spec.accelerator.claims",
    ),
    "two that may be it": (
        {
            "accelerator": {"profile": "nvidia", "claims": [CLAIM, {**CLAIM, "name": "nic"}]},
            "numProcPerNode": "auto",
        },
        "spec.numProcPerNode auto needs exactly one claim",
    ),
    "twice": (
        {"accelerator": {"profile": "nvidia", "claims": [CLAIM, CLAIM]}, "numProcPerNode": 1},
        'spec.accelerator.claims[1]: Duplicate value: {"name":"mlus"}',
    ),
    "too many": (
        {"accelerator": {"profile": "nvidia", "claims": [{**CLAIM, "count": 65}]}},
        "spec.accelerator.claims[0].count in body should be less than or equal to 64",
    ),
}


def dry_run(trainings: Trainings, spec: Json) -> str:
    body = json.dumps(training("job", **spec))
    options = ("--dry-run=server", f"--namespace={trainings.namespace}", "--filename=-")
    return trainings.cluster.kubectl("create", *options, input=body)


@pytest.mark.parametrize("spec", [spec for spec, _ in REJECTED.values()], ids=REJECTED)
def test_contradictions_are_refused(
    trainings: Trainings, spec: Json, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(CommandError) as caught:
        dry_run(trainings, spec)
    said = re.sub(r"\s+", " ", str(caught.value))
    assert REJECTED[request.node.callspec.id][1] in said


@pytest.mark.parametrize(
    "spec",
    [
        {"accelerator": {"profile": "nvidia", "claims": [CLAIM]}},
        {"accelerator": {"profile": "nvidia", "claims": []}},
        {"accelerator": {"profile": "nvidia", "claims": [CLAIM, OWN]}, "numProcPerNode": 2},
        {"accelerator": {"profile": "nvidia", "claims": [OWN]}, "numProcPerNode": 8},
    ],
    ids=["class", "none", "class and template", "template"],
)
def test_what_makes_sense_is_accepted(trainings: Trainings, spec: Json) -> None:
    assert "created (server dry run)" in dry_run(trainings, spec)
