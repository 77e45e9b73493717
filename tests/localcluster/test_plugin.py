"""The fixtures fail instead of skipping, and find the cluster a test means."""

from __future__ import annotations

import pytest

from localcluster import pytest_plugin
from localcluster.cluster import Cluster
from localcluster.errors import BuildError
from localcluster.model import ClusterSpec


def test_a_cluster_that_cannot_be_started_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*arguments: object) -> Cluster:
        raise BuildError("missing Debian packages; run: sudo apt-get install gcc")

    monkeypatch.setattr(Cluster, "up", up)
    with pytest.raises(pytest.fail.Exception, match="no local cluster: missing Debian packages"):
        next(pytest_plugin._running(ClusterSpec()))


@pytest.mark.parametrize(
    ("fixtures", "cluster"),
    [
        (["namespace", "tmp_path"], "control_plane"),
        (["jobs", "node_cluster", "namespace"], "node_cluster"),
        (["control_plane", "namespace"], "control_plane"),
    ],
    ids=["default", "node", "control-plane"],
)
def test_a_namespace_belongs_to_the_cluster_that_the_test_uses(
    fixtures: list[str], cluster: str
) -> None:
    assert pytest_plugin._cluster_fixture(fixtures) == cluster
