"""Fixtures that give tests a real Kubernetes.

``control_plane``   one control plane per test process, with two fake nodes (localcluster.kwok says
                    how to steer them);
``node_cluster``    one cluster with a real node per test process, offering four devices of each
                    vendor and four more to claims of the class ``mlu.example.com``; needs root;
``namespace``       a fresh namespace, deleted afterwards: in ``node_cluster`` if the test uses
                    that, else in ``control_plane``.

A cluster that cannot be started fails the test: a test that did not run must not look like one that
passed. What the collected tests need is built before the first of them starts, so that the minutes
of a first build count into nobody's time-out.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import pytest

from .apiclient import ApiClient, ApiError
from .cluster import Cluster, prepare
from .deviceplugin import VISIBLE_VARIABLES
from .errors import LocalClusterError
from .model import ClusterSpec, DeviceSpec, DriverSpec
from .progress import to_stderr

FAKE_NODES = 2
FAKE_RESOURCES = {"cambricon.com/mlu": "8", "nvidia.com/gpu": "8"}
# One resource of every vendor, and one that stands for a vendor who has not published a name.
REAL_DEVICES = (
    *(DeviceSpec(name, 4) for name in VISIBLE_VARIABLES),
    DeviceSpec("example.com/card", 4),
)
DRA_DRIVER = DriverSpec("mlu.example.com", 4)


def control_plane_spec() -> ClusterSpec:
    """What the fixture ``control_plane`` starts."""
    name = f"test-{os.getpid()}"
    return ClusterSpec(
        name, flavour="control-plane", kwok_nodes=FAKE_NODES, kwok_resources=FAKE_RESOURCES
    )


def node_cluster_spec() -> ClusterSpec:
    """What the fixture ``node_cluster`` starts."""
    return ClusterSpec(
        f"test-node-{os.getpid()}", flavour="node", devices=REAL_DEVICES, drivers=(DRA_DRIVER,)
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need; a failure is left to the fixture, which meets it
    again.
    """
    if session.config.option.collectonly:
        return
    specs = {"control_plane": control_plane_spec(), "node_cluster": node_cluster_spec()}
    for name in specs.keys() & {name for item in session.items for name in _clusters_of(item)}:
        with contextlib.suppress(LocalClusterError):
            prepare(specs[name], to_stderr)


def _clusters_of(item: pytest.Item) -> set[str]:
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    return {*fixtures, _cluster_fixture(fixtures)} if "namespace" in fixtures else set(fixtures)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A control plane with fake nodes that have FAKE_RESOURCES."""
    yield from _running(control_plane_spec())


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """A cluster with one real node that has REAL_DEVICES and those of DRA_DRIVER."""
    yield from _running(node_cluster_spec())


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a fresh namespace in the cluster that the test uses."""
    cluster: Cluster = request.getfixturevalue(_cluster_fixture(request.fixturenames))
    with fresh_namespace(cluster) as name:
        yield name


def _cluster_fixture(fixtures: Sequence[str]) -> str:
    return "node_cluster" if "node_cluster" in fixtures else "control_plane"


def _running(spec: ClusterSpec) -> Iterator[Cluster]:
    try:
        cluster = Cluster.up(spec, to_stderr)
    except LocalClusterError as error:
        pytest.fail(f"no local cluster: {error}", pytrace=False)
    with cluster:
        yield cluster


@contextlib.contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace that is deleted afterwards, without waiting for the end of what is in
    it.
    """
    name = f"test-{uuid.uuid4().hex[:10]}"
    api = ApiClient(cluster.kubeconfig)
    namespaces = "/api/v1/namespaces"
    api.request("POST", namespaces, {"metadata": {"name": name}})
    # Pods are refused until the controller manager has made the default service account.
    _wait_until_there(api, f"{namespaces}/{name}/serviceaccounts/default")
    yield name
    api.request("DELETE", f"{namespaces}/{name}")


def _wait_until_there(api: ApiClient, path: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            api.request("GET", path)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
