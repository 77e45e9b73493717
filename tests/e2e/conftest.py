"""Fixtures of the tests on the real node: images built, operator installed, a namespace per
test.
"""

from __future__ import annotations

import sys

import pytest

from demo.clusters import Ready
from localcluster.cluster import Cluster
from node_jobs import Jobs, install


@pytest.fixture(scope="session")
def installed(node_cluster: Cluster) -> Ready:
    """Both images on the node and the chart installed."""
    return install(node_cluster, lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture
def jobs(node_cluster: Cluster, installed: Ready, namespace: str) -> Jobs:
    """Jobs in a namespace of the test's own."""
    return Jobs(node_cluster, namespace)
