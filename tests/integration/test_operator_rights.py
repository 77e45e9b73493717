"""The operator's rights are exactly what it uses: the API server's audit log beside the role that
the manifests install.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from audited_api import AuditedApi, audited_api
from inception_operator.contract import names
from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from operator_process import ROOT, OperatorProcess
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(600)

SYSTEM = "inception-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:inception-operator"
KINDS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
KINDS_OF_ELECTION = ("Lease",)
# Group, resource with its sub-resource, verb.
Right = tuple[str, str, str]
FINALIZERS: Right = (names.GROUP, f"{names.PLURAL}/finalizers", "update")
# What every account may ask: which kinds there are, and what it may do itself.
DISCOVERY = ("/api", "/apis", "/version")
OF_EVERYBODY: Right = ("authorization.k8s.io", "selfsubjectaccessreviews", "create")
ENDS_WELL = {"kwok.localcluster/succeed-after": "100ms"}


def documents() -> list[dict[str, Any]]:
    """What of the manifests is about rights, in the order in which it can be applied."""
    kinds = (*KINDS, *KINDS_OF_ELECTION)
    every = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text())
    chosen = [each for each in every if each and each["kind"] in kinds]
    return sorted(chosen, key=lambda each: kinds.index(each["kind"]))


def granted(kind: str, name: str) -> set[Right]:
    """The rights of a role, one by one."""
    (role,) = [
        each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def audited(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AuditedApi]:
    """An API server that records the operator, and asks for the right that owners need."""
    training_api.apply(*documents())
    folder = tmp_path_factory.mktemp("audited")
    # Off by default, on in OpenShift and hardened clusters: only with it finalizers matter.
    with audited_api(training_api, ACCOUNT, folder, "OwnerReferencesPermissionEnforcement") as api:
        yield api
    training_api.kubectl("delete", "namespace", SYSTEM, "--timeout=50s")


@pytest.fixture
def operator(
    audited: AuditedApi, training_api: Cluster, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator under its own account, at the API server that records it."""
    account = ("token", "inception-operator", f"--namespace={SYSTEM}")
    kubeconfig = yaml.safe_load(audited.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": training_api.kubectl("create", *account).strip()}
    path = tmp_path / "limited.yaml"
    path.write_text(yaml.safe_dump(kubeconfig))
    election = ("--lease-namespace", SYSTEM)
    with OperatorProcess(path, tmp_path / "log", *election, lease="inception-operator") as process:
        yield process


def used(requests: list[dict[str, Any]]) -> set[Right]:
    """The rights that requests took; a request for no resource must be a question of discovery."""
    rights = set()
    for request in requests:
        target = request.get("objectRef")
        if target is None or "resource" not in target:
            assert request["requestURI"].split("?")[0].startswith(DISCOVERY), request["requestURI"]
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        rights.add((target.get("apiGroup", ""), resource, request["verb"]))
    return rights


def test_each_right_is_used_and_none_is_missing(
    operator: OperatorProcess, audited: AuditedApi, trainings: Trainings
) -> None:
    live(trainings)
    run_into_a_name_that_is_taken(trainings)
    ask_for_a_node(trainings)
    ask_for_claims(trainings)
    ask_for_events(trainings)
    run_into_a_conflict(trainings, operator)
    assert operator.stop() == 0
    requests = audited.requests()
    forbidden = [each["requestURI"] for each in requests if each["responseStatus"]["code"] == 403]
    assert forbidden == []
    cluster_wide = granted("ClusterRole", "inception-operator")
    in_its_namespace = granted("Role", "inception-operator-leader")
    rights = used(requests) - {OF_EVERYBODY}
    assert rights <= cluster_wide | in_its_namespace
    # The API server asks for the right to finalizers in the name of a request to create a pod;
    # the next test shows that it does.
    assert cluster_wide - rights == {FINALIZERS}


def test_without_the_right_to_finalizers_no_pod_is_made_where_owners_are_checked(
    operator: OperatorProcess, training_api: Cluster, trainings: Trainings
) -> None:
    (role,) = [
        each
        for each in documents()
        if (each["kind"], each["metadata"]["name"]) == ("ClusterRole", "inception-operator")
    ]
    fewer = [rule for rule in role["rules"] if rule["resources"] != [FINALIZERS[1]]]
    training_api.apply({**role, "rules": fewer})
    try:
        trainings.create("job")
        condition = wait_for(
            "the refusal",
            lambda: (
                found
                if (found := trainings.condition("job", "PodsReady")).get("reason")
                == "PodCreationRejected"
                else None
            ),
        )
        assert "cannot set blockOwnerDeletion" in condition["message"]
    finally:
        training_api.apply(role)
    trainings.wait_state("job", "Running", seconds=60)


def live(trainings: Trainings) -> None:
    """A failure, a suspension, and an end with a time to live."""
    trainings.fail_and_suspend("job")
    trainings.create("short", annotations=ENDS_WELL, runPolicy={"ttlSecondsAfterFinished": 0})
    wait_for("the end", lambda: trainings.gone("short"))


def run_into_a_name_that_is_taken(trainings: Trainings) -> None:
    """Somebody else's pod has the name of one of ours: the operator looks whose it is."""
    squatter = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "taken-0-1", "namespace": trainings.namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    trainings.cluster.apply(squatter)
    trainings.create("taken")
    wait_for(
        "the name is told",
        lambda: "taken-0-1" in trainings.condition("taken", "PodsReady").get("message", ""),
    )


def ask_for_a_node(trainings: Trainings) -> None:
    """A pod whose launcher cannot be reached, in a job that gives up lost nodes."""
    hold = {"kwok.localcluster/hold": "true"}
    trainings.create("far", annotations=hold, failurePolicy={"nodeLostSeconds": 30})
    wait_for("the pods", lambda: len(trainings.pods("far")) == 2)
    wait_for(
        "a node", lambda: all(pod["spec"].get("nodeName") for pod in trainings.pods("far").values())
    )
    trainings.play_kubelet("far-0-1", "127.0.0.1", ready=False)


def ask_for_events(trainings: Trainings) -> None:
    """A pod that does not start, of which the kubelet tells in an event."""
    hold = {"kwok.localcluster/hold": "true"}
    trainings.create("stuck", nodes=1, annotations=hold)
    wait_for("the pod", lambda: trainings.pods("stuck"))
    trainings.warn("stuck-0-1", "FailedMount", "no such Secret")
    wait_for(
        "the words of the event",
        lambda: "no such Secret" in trainings.condition("stuck", "PodsReady").get("message", ""),
        seconds=40,
    )


def ask_for_claims(trainings: Trainings) -> None:
    """Devices by claim: the operator makes the template of the claims."""
    claim = {"name": "mlus", "deviceClassName": "nobody.example.com", "count": 1}
    accelerator = {"profile": "cambricon", "claims": [claim]}
    trainings.create("claims", nodes=1, accelerator=accelerator, numProcPerNode=1)
    path = f"/apis/resource.k8s.io/v1/namespaces/{trainings.namespace}/resourceclaimtemplates"
    api = ApiClient(trainings.cluster.kubeconfig)
    wait_for("the template", lambda: api.request("GET", path)["items"])


def run_into_a_conflict(trainings: Trainings, operator: OperatorProcess) -> None:
    """Somebody writes the resource while the operator decides; it reads the resource again."""
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}/job"
    api = ApiClient(trainings.cluster.kubeconfig)
    turns = 0

    def meets_a_conflict() -> bool:
        nonlocal turns
        turns += 1
        suspend = turns % 2 == 0
        for number in range(10):
            change = {
                "metadata": {"annotations": {"turn": f"{turns}-{number}"}},
                "spec": {"runPolicy": {"suspend": suspend}},
            }
            api.request("PATCH", path, change, "application/merge-patch+json")
        return operator.metric("reconcile_total", result="conflict") > 0

    wait_for("a conflict", meets_a_conflict, seconds=90)
