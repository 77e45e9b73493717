"""The plain manifests and the chart on a real API server: what they install, what the operator may
do, what stays.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import components
from localcluster.cluster import Cluster
from localcluster.progress import to_stderr
from trainings import wait_served

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
CHART = ROOT / "charts" / "inception-operator"
SYSTEM = "inception-system"
OPERATOR = f"--as=system:serviceaccount:{SYSTEM}:inception-operator"
GROUP = "training.inception.dev"
CRD = f"inceptiontrainings.{GROUP}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if not session.config.option.collectonly:
        components.build(["helm"], to_stderr)


def remove(cluster: Cluster) -> None:
    """Everything that install.yaml makes but the CRD, which other tests use."""
    cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=50s")
    for role in ("inception-operator", "inception-operator-view", "inception-operator-edit"):
        cluster.kubectl("delete", "clusterrole", role, "--ignore-not-found")
    cluster.kubectl("delete", "clusterrolebinding", "inception-operator", "--ignore-not-found")


@pytest.fixture(scope="module")
def installed(control_plane: Cluster) -> Iterator[Cluster]:
    """The control plane with install.yaml applied, the operator's pod on a fake node."""
    remove(control_plane)
    control_plane.kubectl(
        "apply", "--server-side", "--force-conflicts", f"--filename={MANIFESTS / 'install.yaml'}"
    )
    yield control_plane
    remove(control_plane)


def test_install_manifest_applies_again_without_a_change(installed: Cluster) -> None:
    get = (
        "get",
        "deployment/inception-operator",
        f"--namespace={SYSTEM}",
        "--output=jsonpath={.metadata.generation}",
    )
    before = installed.kubectl(*get)
    installed.kubectl("apply", "--server-side", f"--filename={MANIFESTS / 'install.yaml'}")
    assert installed.kubectl(*get) == before


def test_the_namespace_admits_the_operator_pod(installed: Cluster) -> None:
    """The namespace enforces the restricted profile, so a pod that broke it would never appear."""
    selector = f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/name=inception-operator"
    installed.kubectl("wait", "--for=create", "pod", *selector, "--timeout=30s")
    installed.kubectl("wait", "--for=condition=PodScheduled", "pod", *selector, "--timeout=30s")


MAY = [
    ("list", CRD, "-A"),
    ("watch", CRD, "-A"),
    ("patch", CRD, "--subresource=status", "-n=default"),
    ("update", CRD, "--subresource=finalizers", "-n=default"),
    ("delete", CRD, "-n=default"),
    ("create", "pods", "-n=default"),
    ("patch", "pods", "-n=default"),
    ("delete", "pods", "-n=default"),
    ("watch", "pods", "-A"),
    ("create", "events", "-n=default"),
    ("list", "events", "-n=default"),
    ("list", "nodes", "-A"),
    ("watch", "nodes", "-A"),
    ("get", "leases.coordination.k8s.io/inception-operator", f"-n={SYSTEM}"),
    ("update", "leases.coordination.k8s.io/inception-operator", f"-n={SYSTEM}"),
]
MAY_NOT = [
    ("get", "secrets", "-n=default"),
    ("list", "configmaps", f"-n={SYSTEM}"),
    ("patch", CRD, "-n=default"),
    ("deletecollection", CRD, "-n=default"),
    ("create", "pods", "--subresource=exec", "-n=default"),
    ("create", "serviceaccounts", "--subresource=token", f"-n={SYSTEM}"),
    ("create", "leases.coordination.k8s.io", f"-n={SYSTEM}"),
    ("update", "leases.coordination.k8s.io/other", f"-n={SYSTEM}"),
    ("update", CRD, "--subresource=scale", "-n=default"),
    ("patch", "nodes", "-A"),
    ("get", "nodes", "--subresource=proxy", "-A"),
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [*((question, "yes") for question in MAY), *((question, "no") for question in MAY_NOT)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_operator_may_do_its_work_and_no_more(
    installed: Cluster, question: tuple[str, ...], answer: str
) -> None:
    assert installed.kubectl("auth", "can-i", *question, OPERATOR, check=False).strip() == answer


def give_role(cluster: Cluster, namespace: str, role: str) -> None:
    """Bind one of the cluster's roles to the user ``person`` in a namespace."""
    cluster.kubectl(
        "create",
        "rolebinding",
        "person",
        f"--clusterrole={role}",
        "--user=person",
        f"--namespace={namespace}",
    )
    # The controller that collects rules into the cluster's roles takes a moment.
    rules = f"--for=jsonpath={{.rules[?(@.apiGroups[0]=='{GROUP}')].apiGroups[0]}}={GROUP}"
    cluster.kubectl("wait", f"clusterrole/{role}", rules, "--timeout=20s", check=False)


@pytest.mark.parametrize(
    ("role", "verb", "answer"),
    [
        ("view", "list", "yes"),
        ("view", "create", "no"),
        ("edit", "create", "yes"),
        ("admin", "delete", "yes"),
    ],
)
def test_the_roles_of_the_cluster_learn_about_jobs(
    installed: Cluster, namespace: str, role: str, verb: str, answer: str
) -> None:
    give_role(installed, namespace, role)
    question = ("auth", "can-i", verb, CRD, f"--namespace={namespace}", "--as=person")
    assert installed.kubectl(*question, check=False).strip() == answer


def job_manifest(name: str, **spec: Any) -> str:
    """A job of the digits recipe, as kubectl applies it."""
    kind = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "InceptionTraining"}
    fields = {"training": {"recipe": "bninception-digits"}, **spec}
    return json.dumps({**kind, "metadata": {"name": name}, "spec": fields})


@pytest.mark.parametrize("role", ["edit", "admin"])
def test_people_with_the_roles_edit_and_admin_scale_jobs(
    installed: Cluster, namespace: str, role: str
) -> None:
    give_role(installed, namespace, role)
    scope = f"--namespace={namespace}"
    elastic = {"numNodes": 2, "elasticPolicy": {"minNodes": 1, "maxNodes": 4}}
    job = job_manifest("job", **elastic)
    installed.kubectl("apply", "--server-side", scope, "--filename=-", input=job)
    installed.kubectl("scale", "itrain", "job", "--replicas=3", scope, "--as=person")
    size = ("get", "itrain", "job", scope, "--output=jsonpath={.spec.numNodes}")
    assert installed.kubectl(*size) == "3"


def test_the_examples_on_artifact_hub_are_accepted(installed: Cluster, namespace: str) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    examples = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])
    assert len(examples) == 3
    for example in examples:
        dry = ("--dry-run=server", f"--namespace={namespace}", "--filename=-")
        installed.kubectl("apply", "--server-side", *dry, input=json.dumps(example))


@pytest.fixture
def helm(control_plane: Cluster) -> Callable[..., str]:
    """Runs Helm against the control plane."""
    program = components.build(["helm"], to_stderr)["helm"]

    def run(*arguments: str) -> str:
        command = [str(program), f"--kubeconfig={control_plane.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_jobs_live_through_upgrade_and_removal_of_a_release(
    control_plane: Cluster, namespace: str, helm: Callable[..., str]
) -> None:
    scope = f"--namespace={namespace}"
    release = ("trainings", str(CHART), scope)
    # Other tests may have applied the CRD before; a user's first install owns it from the start.
    helm("install", *release, "--take-ownership", "--force-conflicts")
    wait_served(control_plane)
    try:
        control_plane.kubectl(
            "apply", "--server-side", scope, "--filename=-", input=job_manifest("job")
        )
        get = ("get", "itrain", "job", scope, "--output=json")
        before = json.loads(control_plane.kubectl(*get))

        helm("upgrade", *release, "--set=replicaCount=2")
        assert json.loads(control_plane.kubectl(*get)) == before
        assert "poddisruptionbudget" in control_plane.kubectl("get", "pdb", scope, "--output=name")
    finally:
        helm("uninstall", "trainings", scope)

    assert json.loads(control_plane.kubectl(*get)) == before, (
        "uninstalling keeps the definition and the jobs"
    )
    kinds = "deployments,services,serviceaccounts,roles,rolebindings,configmaps,"
    kinds += "clusterroles,clusterrolebindings,pdb,leases"
    rest = control_plane.kubectl(
        "get",
        kinds,
        scope,
        "--selector=app.kubernetes.io/instance=trainings",
        "--output=name",
        "--ignore-not-found",
    )
    assert rest == ""


def test_two_releases_in_one_namespace_have_each_a_lease_and_no_right_to_the_other(
    training_api: Cluster, namespace: str, helm: Callable[..., str]
) -> None:
    scope = f"--namespace={namespace}"
    own = ("--set=crds.enabled=false,rbac.aggregateClusterRoles=false", scope)
    releases = ("first", "second")
    try:
        for name in releases:
            helm("install", name, str(CHART), *own, f"--set=watchNamespaces={{{namespace}}}")
        for name in releases:
            person = f"--as=system:serviceaccount:{namespace}:{name}-inception-operator"
            for lease in releases:
                kind = f"leases.coordination.k8s.io/{lease}-inception-operator"
                may = training_api.kubectl(
                    "auth", "can-i", "update", kind, scope, person, check=False
                )
                assert may.strip() == ("yes" if lease == name else "no")
                training_api.kubectl("get", kind, scope)
    finally:
        for name in releases:
            helm("uninstall", name, scope)
