"""An operator for some namespaces: with the chart's own Roles it runs the jobs there, and is blind
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from charts import plain
from localcluster import components
from localcluster.cluster import Cluster
from localcluster.progress import to_stderr
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

SYSTEM = "inception-few"
LISTED, ELSEWHERE = ("inception-few-a", "inception-few-b"), "inception-few-elsewhere"
CLUSTER_RIGHTS = ("ClusterRole", "ClusterRoleBinding")
RIGHTS = ("Lease", "ServiceAccount", "Role", "RoleBinding")
pytestmark = pytest.mark.timeout(180)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if not session.config.option.collectonly:
        components.build(["helm"], to_stderr)


@pytest.fixture(scope="module")
def kubeconfig(training_api: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Credentials of an operator that the chart installs for two namespaces."""
    namespaces = [SYSTEM, *LISTED, ELSEWHERE]
    for name in namespaces:
        training_api.kubectl("create", "namespace", name)
    helm = str(components.build(["helm"], to_stderr)["helm"])
    chosen = f"--set=watchNamespaces={{{','.join(LISTED)}}}"
    objects = plain.render(helm, chosen, "--set=rbac.aggregateClusterRoles=false", namespace=SYSTEM)
    training_api.apply(*(item for item in objects if item["kind"] in RIGHTS))
    token = training_api.kubectl("create", "token", plain.RELEASE, f"--namespace={SYSTEM}").strip()
    content = yaml.safe_load(training_api.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("few") / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(content))
    yield path
    training_api.kubectl("delete", "namespace", *namespaces, "--wait=false")


@pytest.fixture
def places(training_api: Cluster, kubeconfig: Path) -> Iterator[dict[str, Trainings]]:
    """The trainings of each namespace."""
    found = {name: Trainings(training_api, name) for name in (*LISTED, ELSEWHERE)}
    yield found
    for trainings in found.values():
        trainings.__exit__(None, None, None)


def operator(kubeconfig: Path, log: Path, *namespaces: str) -> OperatorProcess:
    arguments = ("--lease-namespace", SYSTEM, "--namespaces", ",".join(namespaces))
    return OperatorProcess(kubeconfig, log, *arguments, lease="inception-operator")


def test_jobs_of_listed_namespaces_run_and_others_are_ignored(
    kubeconfig: Path, places: dict[str, Trainings], tmp_path: Path
) -> None:
    first, second = (places[name] for name in LISTED)
    elsewhere = places[ELSEWHERE]
    elsewhere.create("before")
    with operator(kubeconfig, tmp_path / "log", *LISTED) as process:
        elsewhere.create("after")
        for trainings in (first, second):
            trainings.create("job")
        for trainings in (first, second):
            trainings.wait_state("job", "Running")
        first.annotate("job-1-1", fail_after="1ms")
        assert first.wait_state("job", "Running", attempt=2)["restarts"] == 1
        second.change("job", runPolicy={"suspend": True})
        second.wait_state("job", "Suspended")
        wait_for("no pods", lambda: second.pods() == {})
        wait_for("events", lambda: "Suspended" in second.reasons("job"))
        first.delete("job")
        wait_for("no pods", lambda: first.pods() == {}, seconds=60)

        # The operator had a reason to look around: everything above happened after these two were
        # made.
        assert (elsewhere.status("before"), elsewhere.status("after")) == ({}, {})
        assert elsewhere.pods() == {}
        assert process.metric("api_requests_total", code="403") == 0
        assert process.metric("api_requests_total", code="201") > 0
        assert process.stop() == 0
        assert "orbidden" not in process.log, "kopf's own requests are allowed too"


def test_jobs_of_one_name_have_places_of_their_own_in_a_store(
    kubeconfig: Path, places: dict[str, Trainings], tmp_path: Path
) -> None:
    with operator(kubeconfig, tmp_path / "log", *LISTED):
        for name in LISTED:
            places[name].create("job", checkpoint={"uri": "s3://runs"})
        for name in LISTED:
            trainings = places[name]
            trainings.wait_state("job", "Running")
            path = f"s3://runs/{name}/job"
            assert trainings.status("job")["checkpointPath"] == path
            container = trainings.pods("job")["job-0-1"]["spec"]["containers"][0]
            values = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert json.loads(values["INCEPTION_CONFIG"])["checkpoint"]["path"] == path
            metadata = trainings.get("job")["metadata"]
            assert values["INCEPTION_JOB_UID"] == metadata["uid"]
            assert values["INCEPTION_JOB_CREATED"] == metadata["creationTimestamp"]


def accepted(trainings: Trainings) -> str:
    return str(wait_for("a condition", lambda: trainings.condition("job", "Accepted"))["message"])


def test_nodes_are_read_only_with_a_right_of_its_own(
    training_api: Cluster, kubeconfig: Path, places: dict[str, Trainings], tmp_path: Path
) -> None:
    trainings = places[LISTED[0]]
    with operator(kubeconfig, tmp_path / "without", *LISTED) as process:
        trainings.create("job", failurePolicy={"nodeLostSeconds": 20})
        assert "nodeLostSeconds has no effect: this operator may not read nodes" in accepted(
            trainings
        )
        assert process.log.count("nodes cannot be read") == 1
        wait_for("it is said", lambda: "planned moves are off" in process.log)
        assert process.metric("planned_moves") == 0
        assert process.metric("api_requests_total", code="403") == 0

    helm = str(components.build(["helm"], to_stderr)["helm"])
    chosen = f"--set=watchNamespaces={{{','.join(LISTED)}}},rbac.readNodes=true,"
    chosen += "rbac.aggregateClusterRoles=false"
    rights = [
        i for i in plain.render(helm, chosen, namespace=SYSTEM) if i["kind"] in CLUSTER_RIGHTS
    ]
    training_api.apply(*rights)
    try:
        with operator(kubeconfig, tmp_path / "with", *LISTED) as process:
            wait_for("no complaint", lambda: accepted(trainings) == "the spec can be carried out")
            assert "nodes cannot be read" not in process.log
            wait_for("nodes are watched", lambda: process.metric("planned_moves") == 1)
    finally:
        for item in rights:
            training_api.kubectl("delete", item["kind"], item["metadata"]["name"])


def test_a_namespace_without_rights_is_named(kubeconfig: Path, tmp_path: Path) -> None:
    with operator(kubeconfig, tmp_path / "log", ELSEWHERE).standing_by() as process:
        code = process.wait(60)
    assert code == 1
    (line,) = [line for line in process.log.splitlines() if "the operator ends" in line]
    assert f"may not list inceptiontrainings in namespace {ELSEWHERE}" in line
    assert f"give the operator its Role in {ELSEWHERE} or take it off the list" in line
    assert "Traceback" not in process.log


def test_a_namespace_that_takes_its_rights_away_stops_nobody_else(
    kubeconfig: Path, places: dict[str, Trainings], tmp_path: Path
) -> None:
    places[ELSEWHERE].create("alone")
    with operator(kubeconfig, tmp_path / "log", ELSEWHERE, LISTED[0]) as process:
        places[LISTED[0]].create("job")
        places[LISTED[0]].wait_state("job", "Running")
        assert f"give the operator its Role in {ELSEWHERE} or take it off the list" in process.log
        assert places[ELSEWHERE].status("alone") == {}
        assert process.metric("api_requests_total", code="403") == 0
        assert process.stop() == 0
