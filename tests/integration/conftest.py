"""Fixtures of the tests on the real API server: the kind installed, and a test's own trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.cluster import Cluster
from localcluster.pytest_plugin import fresh_namespace
from operator_process import ROOT, OperatorProcess
from plugin_commands import Commands
from trainings import Trainings, wait_served


@pytest.fixture(scope="module")
def training_api(control_plane: Cluster) -> Cluster:
    control_plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests' / 'crd.yaml'}")
    wait_served(control_plane)
    return control_plane


@pytest.fixture(scope="module")
def operator(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """One operator for the tests of a file; those without a word of it say so by `usefixtures`."""
    with OperatorProcess(
        training_api.kubeconfig, tmp_path_factory.mktemp("operator") / "log"
    ) as process:
        yield process
        process.check()
        assert "Traceback" not in process.log


@pytest.fixture(autouse=True)
def _operator_lives(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test whose operator has ended says so: what it waited for in vain says nothing."""
    process = request.getfixturevalue("operator") if "operator" in request.fixturenames else None
    yield
    if isinstance(process, OperatorProcess):
        process.check()


@pytest.fixture
def trainings(training_api: Cluster, namespace: str) -> Iterator[Trainings]:
    with Trainings(training_api, namespace) as found:
        yield found


@pytest.fixture(scope="module")
def shared(training_api: Cluster) -> Iterator[Trainings]:
    """A namespace of all tests of a file."""
    with fresh_namespace(training_api) as namespace, Trainings(training_api, namespace) as found:
        yield found


@pytest.fixture
def command(shared: Trainings, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The plug-in's commands in the namespace that a file's tests share."""
    return Commands(
        capsys, f"--kubeconfig={shared.cluster.kubeconfig}", f"--namespace={shared.namespace}"
    )
