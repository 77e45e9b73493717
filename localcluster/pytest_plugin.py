"""Fixtures that give tests a real Kubernetes.

``control_plane``   one control plane per test process, with two fake nodes (localcluster.kwok says how to steer them);
``node_cluster``    one cluster with a real node per test process, offering four ``cambricon.com/mlu``; needs root;
``namespace``       a fresh namespace in ``control_plane``, deleted afterwards;
``node_namespace``  a fresh namespace in ``node_cluster``, deleted afterwards.

A cluster that cannot be started fails the test: a test that did not run must not look like one that passed. Starting
is not counted into a test's own time-out if the fixture is requested at session scope, but building is slow the first
time: run ``python -m localcluster build`` once.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator

import pytest

from .cluster import Cluster
from .errors import LocalClusterError
from .model import ClusterSpec, DeviceSpec
from .progress import to_stderr

FAKE_NODES = 2
FAKE_RESOURCES = {"cambricon.com/mlu": "8", "nvidia.com/gpu": "8"}
REAL_DEVICES = (DeviceSpec("cambricon.com/mlu", 4),)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A control plane with fake nodes that have FAKE_RESOURCES."""
    name = f"test-{os.getpid()}"
    spec = ClusterSpec(name, flavour="control-plane", kwok_nodes=FAKE_NODES, kwok_resources=FAKE_RESOURCES)
    yield from _running(spec)


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """A cluster with one real node that has REAL_DEVICES."""
    yield from _running(ClusterSpec(f"test-node-{os.getpid()}", flavour="node", devices=REAL_DEVICES))


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """The name of a fresh namespace in ``control_plane``."""
    yield from _fresh_namespace(control_plane)


@pytest.fixture
def node_namespace(node_cluster: Cluster) -> Iterator[str]:
    """The name of a fresh namespace in ``node_cluster``."""
    yield from _fresh_namespace(node_cluster)


def _running(spec: ClusterSpec) -> Iterator[Cluster]:
    try:
        cluster = Cluster.up(spec, to_stderr)
    except LocalClusterError as error:
        pytest.fail(f"no local cluster: {error}", pytrace=False)
    with cluster:
        yield cluster


def _fresh_namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    # Pods are refused until the controller manager has made the default service account.
    account = f"--namespace={name}", "serviceaccount/default"
    cluster.kubectl("wait", "--for=create", "--timeout=30s", *account)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    _drop_finalizers(cluster, name)


def _drop_finalizers(cluster: Cluster, namespace: str) -> None:
    """Nobody is left to honour the finalizers of a test's objects; without this the namespace would never end."""
    pods = json.loads(cluster.kubectl("get", "pods", f"--namespace={namespace}", "--output=json"))["items"]
    for pod in pods:
        if pod["metadata"].get("finalizers"):
            patch = '{"metadata":{"finalizers":null}}'
            name = pod["metadata"]["name"]
            cluster.kubectl(
                "patch", "pod", name, f"--namespace={namespace}", "--type=merge", f"--patch={patch}", check=False
            )
