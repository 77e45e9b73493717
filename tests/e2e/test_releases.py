"""What a platform team does with the operator while a job trains on a real node, with Helm 3 and
Helm 4: the last release, built from git's history, is installed, upgraded to this source, rolled
back, upgraded again, removed and followed by a release of another name.

docs/upgrade.md and docs/install.md promise what is asserted here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import helm_versions
from demo.images import IMAGES, ROOT, build_local_image, local_tag
from demo.run import OPERATOR_NAMESPACE
from localcluster.cluster import Cluster
from node_jobs import Jobs, Json, install
from releases import LAST, Release, build_release

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]

NAME = "inception-operator"
CRD = "inceptiontrainings.training.inception.dev"
JOB = "travelling"
# What docs/install.md names. Helm 3 knows no conflicts of field managers.
TAKE = {3: ("--take-ownership",), 4: ("--take-ownership", "--force-conflicts")}
# All that a release makes but the definition, which is kept.
KINDS = (
    "deployments,services,leases,serviceaccounts,configmaps,poddisruptionbudgets,"
    "roles,rolebindings,clusterroles,clusterrolebindings"
)
OURS = "--selector=app.kubernetes.io/part-of=inception-training-operator"
# A rule that is in this source's definition and not in the last release's.
NEW_FIELD = "foreignPickle"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="module")
def last(node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The last release, as who installed it then has it."""
    return build_release(node_cluster.layout, LAST, tmp_path_factory.mktemp(LAST), say)


@pytest.fixture(scope="module")
def current(node_cluster: Cluster) -> Release:
    """This source."""
    for image in IMAGES:
        build_local_image(node_cluster.layout, image, say)
    return Release(ROOT / "charts" / NAME, local_tag("operator"), local_tag("trainer"))


@pytest.fixture
def jobs(node_cluster: Cluster, current: Release, namespace: str) -> Iterator[Jobs]:
    """Jobs in a cluster without operator and definition; other tests find theirs afterwards."""
    remove_all(node_cluster)
    yield Jobs(node_cluster, namespace)
    remove_all(node_cluster)
    install(node_cluster, say)


def remove_all(cluster: Cluster) -> None:
    """Remove every release, the definition with all jobs, and the operators' namespaces."""
    helm = helm_versions.runner(4, cluster.kubeconfig)
    for release in json.loads(helm("list", "--all-namespaces", "--output=json")):
        helm("uninstall", release["name"], f"--namespace={release['namespace']}")
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=120s")
    for namespace in (OPERATOR_NAMESPACE, "trainings"):
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


@dataclass(frozen=True)
class Platform:
    """A platform team at work, and the job that must not notice."""

    major: int
    jobs: Jobs

    @property
    def cluster(self) -> Cluster:
        return self.jobs.cluster

    def helm(self, *arguments: str, namespace: str = OPERATOR_NAMESPACE) -> str:
        run = helm_versions.runner(self.major, self.cluster.kubeconfig)
        return run(*arguments, f"--namespace={namespace}")

    def upgrade(self, release: Release, *values: str) -> None:
        """As docs/install.md says, with the values of before."""
        command = ("upgrade", NAME, str(release.chart), "--reset-then-reuse-values")
        self.helm(*command, release.images, *values)

    def wait_operated(
        self, release: Release, replicas: int, namespace: str = OPERATOR_NAMESPACE
    ) -> None:
        """Until no operators run but those of the release, and one has reported a new step."""
        select = ("get", "pods", f"--namespace={namespace}", OURS, "--output=json")

        def only_these() -> bool:
            pods = json.loads(self.cluster.kubectl(*select))["items"]
            images = [pod["spec"]["containers"][0]["image"] for pod in pods]
            return images == [release.operator_image] * replicas and all(is_ready(p) for p in pods)

        wait_until(f"{replicas} operators of {release.operator_image}", only_these)
        self.wait_reported()

    def wait_reported(self) -> None:
        """Until the status has a step that was made after this call."""
        step = self.step()
        self.jobs.wait(
            JOB, "going on", lambda status: status.get("trainerStatus", {}).get("step", 0) > step
        )

    def step(self) -> float:
        """The step at which the job is, by its own page: it needs no operator."""
        pages: list[float] = []

        def answered() -> bool:
            pages.append(self.jobs.page(JOB).get("trainer_step", 0.0))
            return pages[-1] > 0

        wait_until("the job's page", answered)
        return pages[-1]

    def knows_the_new_field(self) -> bool:
        return NEW_FIELD in self.cluster.kubectl("get", "crd", CRD, "--output=yaml")

    def left(self) -> str:
        """Objects of any release."""
        return self.cluster.kubectl("get", KINDS, "--all-namespaces", OURS, "--output=name")


def is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.5)


def seen(jobs: Jobs) -> tuple[Json, Json]:
    """What must not change: the very pods with their containers and images, and the counters."""
    status = jobs.status(JOB)
    keys = ("attempt", "restarts", "restartsCountTowardsMax", "startTime")
    pods = {
        pod["metadata"]["uid"]: [
            (container["containerID"], container["restartCount"], container["image"])
            for container in pod["status"]["containerStatuses"]
        ]
        for pod in jobs.pods(JOB)
    }
    return pods, {key: status.get(key) for key in keys}


def start_a_long_job(jobs: Jobs) -> None:
    """It trains for longer than the test takes."""
    training = {
        "recipe": "bninception-digits",
        "epochs": 1000,
        "logEverySteps": 5,
        "evaluation": {"everyEpochs": 1000},
    }
    jobs.apply(JOB, training=training)
    jobs.wait_checkpoint(JOB)


@pytest.mark.parametrize("major", helm_versions.MAJORS)
def test_a_job_trains_through_install_upgrade_rollback_and_removal(
    last: Release, current: Release, jobs: Jobs, major: int
) -> None:
    team = Platform(major, jobs)
    team.helm("install", NAME, str(last.chart), "--create-namespace", last.images)
    start_a_long_job(jobs)
    before = seen(jobs)
    assert not team.knows_the_new_field()

    team.upgrade(current, "--set=replicaCount=2")
    team.wait_operated(current, replicas=2)
    assert team.knows_the_new_field()
    assert seen(jobs) == before

    team.helm("rollback", NAME)
    team.wait_operated(last, replicas=1)
    assert not team.knows_the_new_field(), "Helm takes the definition back, too"
    assert seen(jobs) == before

    team.upgrade(current)
    team.wait_operated(current, replicas=1)
    assert seen(jobs) == before

    team.helm("uninstall", NAME)
    assert team.left() == ""
    step = team.step()
    wait_until("the job trains without an operator", lambda: team.step() > step)
    assert seen(jobs) == before
    followed_by_another_release(team, current)


def followed_by_another_release(team: Platform, current: Release) -> None:
    """Another name in another namespace: it finds the job, and a failure that nobody answered."""
    jobs = team.jobs
    jobs.kill_rank(jobs.pod(JOB, 1))
    install_it = ("install", "trainings", str(current.chart), "--create-namespace", current.images)
    with pytest.raises(AssertionError, match=f'current value is "{NAME}"'):
        team.helm(*install_it, namespace="trainings")
    team.helm(*install_it, *TAKE[team.major], namespace="trainings")
    jobs.wait_step(JOB, attempt=2, seconds=240)
    team.wait_operated(current, replicas=1, namespace="trainings")
    status = jobs.status(JOB)
    assert (status["attempt"], status["restarts"]) == (2, 1)

    jobs.kubectl("patch", "itrain", JOB, "--type=merge", "-p", suspend("true"))
    jobs.wait(JOB, "suspended", lambda status: status["state"] == "Suspended")
    saved = jobs.status(JOB)["trainerStatus"]["step"]
    jobs.kubectl("patch", "itrain", JOB, "--type=merge", "-p", suspend("false"))
    jobs.wait_step(JOB, attempt=3, seconds=240)
    images = {pod["spec"]["containers"][0]["image"] for pod in jobs.pods(JOB)}
    assert images == {current.trainer_image}, "pods that are made later have the new image"
    assert team.step() > saved - 10, "it reads the checkpoint of the last release's trainer"

    jobs.kubectl("delete", "itrain", JOB, "--timeout=120s")
    jobs.kubectl("wait", "--for=delete", "pod", "--all", "--timeout=120s")
    team.helm("uninstall", "trainings", namespace="trainings")
    assert team.left() == ""
    assert team.knows_the_new_field(), "the definition is kept"


def suspend(value: str) -> str:
    return f'{{"spec": {{"runPolicy": {{"suspend": {value}}}}}}}'
