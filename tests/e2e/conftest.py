"""Fixtures of the tests on the real node: images built, operator installed, a namespace per
test.
"""

from __future__ import annotations

import sys

import pytest

from demo.clusters import Ready
from localcluster import images
from localcluster.cluster import Cluster
from node_jobs import Jobs, install


@pytest.fixture(scope="session")
def installed(node_cluster: Cluster) -> Ready:
    """Both images on the node and the chart installed."""
    return install(node_cluster, lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture(scope="module")
def foreign(node_cluster: Cluster) -> str:
    """An image with Python and torch, and no line of this project."""
    images.import_base(node_cluster.layout, images.TORCH_BASE, print)
    return images.TORCH_BASE.tag


@pytest.fixture
def jobs(node_cluster: Cluster, installed: Ready, namespace: str) -> Jobs:
    """Jobs in a namespace of the test's own."""
    return Jobs(node_cluster, namespace)
