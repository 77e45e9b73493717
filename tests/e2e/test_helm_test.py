"""`helm test` on the real node: one job that really trains, where the Pod Security Standard
`restricted` is enforced.
"""

from __future__ import annotations

import pytest

import helm_versions
from demo.clusters import Ready
from demo.run import OPERATOR_NAMESPACE
from localcluster.cluster import Cluster
from nightly import but_nightly

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize("major", but_nightly(helm_versions.MAJORS, [4]))
def test_helm_test_trains_and_leaves_nothing(
    node_cluster: Cluster, installed: Ready, major: int
) -> None:
    helm = helm_versions.runner(major, node_cluster.kubeconfig)
    scope = f"--namespace={OPERATOR_NAMESPACE}"
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    node_cluster.kubectl("label", "--overwrite", "namespace", OPERATOR_NAMESPACE, restricted)
    said = helm("test", "inception-operator", scope, "--timeout=15m")
    assert "Phase:          Succeeded" in said
    node_cluster.kubectl("wait", "itrain", "--all", "--for=delete", scope, "--timeout=120s")
    kinds = "pods,configmaps,serviceaccounts,roles,rolebindings,itrain"
    selector = "--selector=app.kubernetes.io/component=test"
    assert node_cluster.kubectl("get", kinds, scope, selector, "--output=name") == ""
