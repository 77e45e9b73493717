"""Namespaces that enforce the Pod Security Standard `restricted`: jobs need nothing more."""

from __future__ import annotations

import pytest

from demo.run import SAMPLE
from localcluster.errors import CommandError
from node_jobs import Jobs

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1500)]
ENFORCE = "pod-security.kubernetes.io/enforce=restricted"


def test_the_sample_trains_to_its_end_in_a_restricted_namespace(jobs: Jobs) -> None:
    jobs.cluster.kubectl("label", "namespace", jobs.namespace, ENFORCE)
    plain = ("run", "plain", "--image=localhost/pause:1", "--dry-run=server")
    with pytest.raises(CommandError, match='violates PodSecurity "restricted'):
        jobs.kubectl(*plain)

    jobs.kubectl("apply", f"--filename={SAMPLE}")
    status = jobs.wait_succeeded("bninception-digits", seconds=1200)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert float(status["trainerStatus"]["accuracyTop1"]) >= 0.97
