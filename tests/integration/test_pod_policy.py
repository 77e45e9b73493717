"""The operator's pod policy beside the API server's own admission, and what a namespace that
enforces either makes of a job.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract import names
from inception_operator.pod.build import build_pod
from inception_operator.pod.policy import find_violations
from inception_operator.spec.job import parse
from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster
from operator_process import ROOT, OperatorProcess
from pod_policy_cases import CASES, allowed
from trainings import Json, Trainings, training, wait_for

pytestmark = pytest.mark.timeout(240)

SAMPLES = ROOT / "manifests" / "samples"
TABLE = load_profiles()


def pod_of(template: Json, namespace: str) -> Json:
    metadata = {"name": "j", "namespace": namespace, "uid": "u"}
    job = parse({"metadata": metadata, "spec": {"template": template}})
    return build_pod(job, resolve(job, TABLE), 0, 1, image="i:1", launcher_image="i:1")


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_the_policy_and_the_api_server_say_the_same(
    level: str, control_plane: Cluster, namespace: str
) -> None:
    enforce = f"pod-security.kubernetes.io/enforce={level}"
    control_plane.kubectl("label", "namespace", namespace, enforce)
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    verdicts = {}
    for case in CASES:
        refusal = refusal_of(control_plane, "POST", path, pod_of(case.template, namespace))
        assert refusal is None or "violates PodSecurity" in refusal, case.name
        verdicts[case.name] = refusal is None
    stricter = {case.name for case in CASES if case.stricter and level == "baseline"}
    expected = {case.name: case.name in stricter or allowed(case, level) for case in CASES}
    assert verdicts == expected
    ours = {case.name: not find_violations(pod_of(case.template, "n"), level) for case in CASES}
    assert ours == {case.name: allowed(case, level) for case in CASES}


def refusal_of(cluster: Cluster, method: str, path: str, body: Json) -> str | None:
    """The API server's words about a request; None when it accepts it."""
    try:
        ApiClient(cluster.kubeconfig).request(method, path, body)
    except ApiError as error:
        return str(error)
    return None


@pytest.fixture
def restricted_operator(training_api: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    arguments = ("--pod-policy", "baseline")
    with OperatorProcess(training_api.kubeconfig, tmp_path / "log", *arguments) as process:
        yield process
        assert "Traceback" not in process.log


@pytest.mark.usefixtures("restricted_operator")
def test_a_job_that_breaks_the_policy_says_so_and_runs_when_it_is_corrected(
    trainings: Trainings,
) -> None:
    trainings.create("host", template={"spec": {"hostNetwork": True}})
    trainings.create("plain")
    status = trainings.wait_state("host", "Rejected")
    accepted = trainings.condition("host", "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PodPolicyViolation")
    assert "is baseline: spec.template.spec.hostNetwork must be false" in accepted["message"]
    assert status["attempt"] == 1
    trainings.wait_state("plain", "Running")
    assert trainings.pods("host") == {}
    wait_for("the event", lambda: "PodPolicyViolation" in trainings.reasons("host"))
    trainings.change("host", runPolicy={"suspend": True})
    trainings.wait_state("host", "Rejected")
    trainings.change("host", template=None)
    trainings.change("host", runPolicy={"suspend": False})
    trainings.wait_state("host", "Running")


@pytest.mark.usefixtures("operator")
def test_the_cpu_sample_is_admitted_where_pods_are_restricted(
    trainings: Trainings,
) -> None:
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    trainings.cluster.kubectl("label", "namespace", trainings.namespace, *levels)
    # A quota that counts requests refuses pods that have none.
    hard = {"requests.cpu": "8", "requests.memory": "16Gi", "pods": "20"}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "requests", "namespace": trainings.namespace},
        "spec": {"hard": hard},
    }
    trainings.cluster.apply(quota)
    sample, claim = _sample("bninception-digits.yaml")
    # No volume is provisioned here; that the pods are there is what is asked.
    trainings.cluster.apply(*({**each, "metadata": _in(each, trainings)} for each in claim))
    trainings.create("sample", **{**sample["spec"], "nodes": sample["spec"].pop("numNodes", 1)})
    trainings.create("bare", nodes=2)
    trainings.wait_state("bare", "Running")
    wait_for("the sample's pods", lambda: trainings.pods("sample"))
    assert trainings.condition("sample", "PodsReady")["reason"] != "PodCreationRejected"
    for pod in trainings.pods("bare").values():
        assert pod["spec"]["containers"][0]["resources"]["requests"] == {
            "cpu": "100m",
            "memory": "430Mi",
        }


def _sample(name: str) -> tuple[Json, list[Json]]:
    documents = [each for each in yaml.safe_load_all((SAMPLES / name).read_text()) if each]
    (job,) = [each for each in documents if each["kind"] == "InceptionTraining"]
    return job, [each for each in documents if each is not job]


def _in(document: Json, trainings: Trainings) -> Json:
    return {**document["metadata"], "namespace": trainings.namespace}


POLICY = SAMPLES / "policies" / "validating-admission-policy.yaml"


@pytest.fixture
def admission_policy(training_api: Cluster, namespace: str) -> Iterator[None]:
    """The sample policy, in force in the test's namespace alone."""
    training_api.kubectl("label", "namespace", namespace, "inception-jobs=restricted")
    training_api.kubectl("apply", "--server-side", f"--filename={POLICY}")
    yield
    training_api.kubectl("delete", f"--filename={POLICY}")


HARMLESS = {
    "resources": {"limits": {"cpu": "2", "memory": "4Gi"}},
    "env": [{"name": "A", "value": "b"}],
}


APPARMOR = "container.apparmor.security.beta.kubernetes.io"
REFUSED: tuple[tuple[Json, str], ...] = (
    ({"template": {"spec": {"hostNetwork": True}}}, "spec.template.spec may only have"),
    ({"template": {"spec": {"hostPID": True}}}, "spec.template.spec may only have"),
    ({"template": {"spec": {"serviceAccountName": "x"}}}, "spec.template.spec may only have"),
    (
        {"template": {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}},
        "volumes may only be",
    ),
    (
        {"template": {"spec": {"containers": [{"name": "trainer", "lifecycle": {}}]}}},
        "containers may only have args",
    ),
    (
        {
            "template": {
                "spec": {
                    "containers": [{"name": "trainer", "securityContext": {"privileged": True}}]
                }
            }
        },
        "securityContext of containers may only have",
    ),
    (
        {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "trainer", "ports": [{"containerPort": 1, "hostPort": 1}]}
                    ]
                }
            }
        },
        "may have no hostPort",
    ),
    (
        {"template": {"metadata": {"annotations": {f"{APPARMOR}/trainer": "unconfined"}}}},
        "may not set the AppArmor profile",
    ),
    (
        {"training": {"data": {"kind": "Digits"}, "model": {"foreignPickle": "Allow"}}},
        "foreignPickle may not be Allow",
    ),
    ({"nodes": 65}, "at most 64 nodes"),
)


@pytest.mark.usefixtures("admission_policy")
def test_the_sample_of_an_admission_policy_refuses_what_it_says(trainings: Trainings) -> None:
    path = f"/apis/{names.API_VERSION}/namespaces/{trainings.namespace}/{names.PLURAL}"

    def refusal(method: str, path: str, body: Json) -> str:
        # A policy takes a moment to be in force.
        return wait_for("the refusal", lambda: refusal_of(trainings.cluster, method, path, body))

    for spec, words in REFUSED:
        assert words in refusal("POST", f"{path}?dryRun=All", training("refused", **spec))
    harmless = {
        "metadata": {"annotations": {"note": "b"}},
        "spec": {"containers": [{"name": "trainer", **HARMLESS}]},
    }
    elastic = {"minNodes": 1, "maxNodes": 100}
    trainings.create("allowed", template=harmless, elasticPolicy=elastic)
    scale = ApiClient(trainings.cluster.kubeconfig).request("GET", f"{path}/allowed/scale")
    # Without a version, as the operator writes the job's status meanwhile.
    metadata = {key: scale["metadata"][key] for key in ("name", "namespace")}
    larger = {**scale, "metadata": metadata, "spec": {"replicas": 65}}
    assert "at most 64 nodes" in refusal("PUT", f"{path}/allowed/scale?dryRun=All", larger)
