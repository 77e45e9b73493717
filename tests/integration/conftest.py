"""Fixtures of the tests on the real API server: the kind installed, and a test's own trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.cluster import Cluster
from operator_process import ROOT
from trainings import Trainings, wait_served


@pytest.fixture(scope="module")
def training_api(control_plane: Cluster) -> Cluster:
    control_plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests' / 'crd.yaml'}")
    wait_served(control_plane)
    return control_plane


@pytest.fixture
def trainings(training_api: Cluster, namespace: str) -> Iterator[Trainings]:
    with Trainings(training_api, namespace) as found:
        yield found
