"""Ways from one installation to another, with Helm 3 and Helm 4 on the real API server.

From kubectl to Helm, from one release to another, from one major version of Helm to the other, from
one update strategy to the other; docs/install.md has the lines. Jobs never notice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import helm_versions
from localcluster.cluster import Cluster
from nightly import but_nightly
from releases import LAST, unpack

ROOT = Path(__file__).resolve().parents[2]
CHART = str(ROOT / "charts" / "inception-operator")
INSTALL = ROOT / "manifests" / "install.yaml"
SYSTEM = "inception-system"
CRD = "inceptiontrainings.training.inception.dev"
# What docs/install.md names. Helm 3 knows no conflicts of field managers.
FORCE = {3: (), 4: ("--force-conflicts",)}
TAKE = {major: ("--take-ownership", *force) for major, force in FORCE.items()}
# Each is some ten calls of programs that read the whole API first.
pytestmark = pytest.mark.timeout(600)

Helm = Callable[..., str]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if not session.config.option.collectonly:
        for major in helm_versions.MAJORS:
            helm_versions.build(major)


@pytest.fixture(params=but_nightly(helm_versions.MAJORS, [4]))
def major(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def helm(training_api: Cluster, major: int) -> Helm:
    return helm_versions.runner(major, training_api.kubeconfig)


@pytest.fixture
def system(training_api: Cluster) -> Iterator[str]:
    """The namespace of install.yaml, empty before and after."""
    remove(training_api)
    training_api.kubectl("create", "namespace", SYSTEM)
    yield SYSTEM
    remove(training_api)


def remove(cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=50s")
    kinds = "clusterroles,clusterrolebindings"
    selector = "--selector=app.kubernetes.io/part-of=inception-training-operator"
    cluster.kubectl("delete", kinds, selector, "--ignore-not-found")


def create_job(cluster: Cluster, namespace: str) -> str:
    """A job and its UID, by which the same one is known later."""
    job = {
        "apiVersion": "training.inception.dev/v1alpha1",
        "kind": "InceptionTraining",
        "metadata": {"name": "job"},
        "spec": {"training": {"recipe": "bninception-digits"}},
    }
    scope = f"--namespace={namespace}"
    cluster.kubectl("apply", "--server-side", scope, "--filename=-", input=json.dumps(job))
    return uid(cluster, namespace)


def uid(cluster: Cluster, namespace: str) -> str:
    get = ("get", "itrain", "job", f"--namespace={namespace}", "--output=jsonpath={.metadata.uid}")
    return cluster.kubectl(*get)


def release_of(cluster: Cluster, *thing: str) -> str:
    annotation = "{.metadata.annotations.meta\\.helm\\.sh/release-name}"
    return cluster.kubectl("get", *thing, f"--output=jsonpath={annotation}")


def test_an_installation_of_kubectl_becomes_a_release(
    training_api: Cluster, namespace: str, system: str, helm: Helm, major: int
) -> None:
    scope = f"--namespace={system}"
    training_api.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={INSTALL}")
    job = create_job(training_api, namespace)
    deployment = ("get", "deployment", "inception-operator", scope)
    before = training_api.kubectl(*deployment, "--output=jsonpath={.metadata.uid}")

    helm("install", "inception-operator", CHART, scope, *TAKE[major])
    assert training_api.kubectl(*deployment, "--output=jsonpath={.metadata.uid}") == before
    for thing in ("deployment", "lease", "serviceaccount"):
        assert release_of(training_api, thing, "inception-operator", scope) == "inception-operator"
    # kubectl still counts as an owner of what both wrote alike.
    helm("upgrade", "inception-operator", CHART, scope, "--set=replicaCount=2", *FORCE[major])

    helm("uninstall", "inception-operator", scope)
    selector = "--selector=app.kubernetes.io/part-of=inception-training-operator"
    kinds = "deployments,services,leases,serviceaccounts,roles,rolebindings,clusterroles"
    assert training_api.kubectl("get", kinds, scope, selector, "--output=name") == ""
    assert uid(training_api, namespace) == job


def test_a_release_becomes_an_installation_of_kubectl(
    training_api: Cluster, namespace: str, system: str, helm: Helm, major: int
) -> None:
    scope = f"--namespace={system}"
    helm("install", "inception-operator", CHART, scope, *TAKE[major])
    job = create_job(training_api, namespace)
    helm("uninstall", "inception-operator", scope)
    training_api.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={INSTALL}")
    for thing in ("deployment", "lease", "serviceaccount"):
        assert release_of(training_api, thing, "inception-operator", scope) == ""
    assert uid(training_api, namespace) == job


def test_a_release_is_followed_by_one_of_another_name(
    training_api: Cluster, namespace: str, helm: Helm, major: int
) -> None:
    scope = f"--namespace={namespace}"
    helm("install", "first", CHART, scope, *TAKE[major])
    job = create_job(training_api, namespace)
    helm("uninstall", "first", scope)
    assert release_of(training_api, "crd", CRD) == "first", "it is kept with its jobs"
    helm("install", "second", CHART, scope, *TAKE[major])
    assert release_of(training_api, "crd", CRD) == "second"
    helm("uninstall", "second", scope)
    assert uid(training_api, namespace) == job


@pytest.fixture(scope="module")
def last_chart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The chart of the last release."""
    source = unpack(LAST, tmp_path_factory.mktemp(LAST), "charts")
    return str(source / "charts" / "inception-operator")


def test_a_downgrade_by_the_last_releases_chart_can_leave_the_definition_as_it_is(
    training_api: Cluster, namespace: str, helm: Helm, major: int, last_chart: str
) -> None:
    scope, reuse = f"--namespace={namespace}", "--reset-then-reuse-values"
    image = ("get", "deployment", scope, "--output=jsonpath={.items[0].spec.template.spec..image}")
    definition = ("get", "crd", CRD, "--output=jsonpath={.spec}")
    helm("install", "trainings", CHART, scope, *TAKE[major], "--set=image.tag=new")
    job = create_job(training_api, namespace)
    newest = training_api.kubectl(*definition)

    helm("upgrade", "trainings", last_chart, scope, reuse, "--set=crds.enabled=false,image.tag=old")
    assert training_api.kubectl(*image) == "inception-operator:old"
    assert training_api.kubectl(*definition) == newest
    helm("upgrade", "trainings", CHART, scope, reuse, "--set=crds.enabled=true,image.tag=new")
    assert training_api.kubectl(*image) == "inception-operator:new"
    assert training_api.kubectl(*definition) == newest
    assert release_of(training_api, "crd", CRD) == "trainings"
    helm("uninstall", "trainings", scope)
    assert uid(training_api, namespace) == job


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((3, 4), id="3 to 4"),
        pytest.param((4, 3), id="4 to 3", marks=pytest.mark.nightly),
    ],
)
def test_a_release_is_upgraded_and_removed_by_the_other_major_version_of_helm(
    training_api: Cluster, namespace: str, order: tuple[int, int]
) -> None:
    old, new = (helm_versions.runner(major, training_api.kubeconfig) for major in order)
    release = ("trainings", CHART, f"--namespace={namespace}")
    old("install", *release, *TAKE[order[0]])
    job = create_job(training_api, namespace)
    new("upgrade", *release, "--set=replicaCount=2")
    replicas = ("get", "deployment", "--output=jsonpath={.items[0].spec.replicas}")
    assert training_api.kubectl(*replicas, f"--namespace={namespace}") == "2"
    old("upgrade", *release, "--set=replicaCount=1")
    new("rollback", "trainings", "2", f"--namespace={namespace}")
    assert training_api.kubectl(*replicas, f"--namespace={namespace}") == "2"
    new("uninstall", "trainings", f"--namespace={namespace}")
    assert uid(training_api, namespace) == job


def test_the_update_strategy_can_change_to_recreate_and_back(
    training_api: Cluster, namespace: str, helm: Helm, major: int
) -> None:
    scope = f"--namespace={namespace}"
    own = ("trainings", CHART, scope, "--set=crds.enabled=false")
    strategy = ("get", "deployment", "--output=jsonpath={.items[0].spec.strategy}", scope)
    helm("install", *own)
    try:
        helm("upgrade", *own, "--set=updateStrategy.type=Recreate")
        assert json.loads(training_api.kubectl(*strategy)) == {"type": "Recreate"}
        helm("upgrade", *own)
        rolling = {"maxSurge": 1, "maxUnavailable": 0}
        assert json.loads(training_api.kubectl(*strategy)) == {
            "type": "RollingUpdate",
            "rollingUpdate": rolling,
        }
    finally:
        helm("uninstall", "trainings", scope)


def test_a_lease_that_an_older_operator_made_is_no_obstacle(
    training_api: Cluster, namespace: str, helm: Helm
) -> None:
    scope = f"--namespace={namespace}"
    own = ("trainings", CHART, scope, "--set=crds.enabled=false")
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "trainings-inception-operator"},
        "spec": {"holderIdentity": "old", "leaseDurationSeconds": 15},
    }
    training_api.kubectl("create", scope, "--filename=-", input=json.dumps(lease))
    helm("install", *own)
    try:
        helm("upgrade", *own, "--set=replicaCount=2")
        holder = ("get", "lease", lease["metadata"]["name"], scope)  # type: ignore[index]
        held = training_api.kubectl(*holder, "--output=jsonpath={.spec.holderIdentity}")
        assert held == "old"
    finally:
        helm("uninstall", "trainings", scope)
