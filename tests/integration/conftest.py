"""Fixtures of the tests on the real API server: the kind installed, and a test's own trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inception_operator import api
from localcluster.cluster import Cluster
from operator_process import ROOT
from trainings import Trainings


@pytest.fixture(scope="module")
def training_api(control_plane: Cluster) -> Cluster:
    control_plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests' / 'crd.yaml'}")
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{api.PLURAL}.{api.GROUP}")
    return control_plane


@pytest.fixture
def trainings(training_api: Cluster, namespace: str) -> Iterator[Trainings]:
    with Trainings(training_api, namespace) as found:
        yield found
