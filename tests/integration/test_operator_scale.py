"""Many trainings at once: every pod exactly once, few writes, little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.cluster import Cluster
from nightly import but_nightly
from operator_process import ROOT, OperatorProcess
from trainings import Trainings, training, wait_for, wait_served

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("jobs", but_nightly((40, 200), (40,)))
def test_many_trainings_at_once(
    control_plane: Cluster, namespace: str, tmp_path: Path, jobs: int
) -> None:
    control_plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests' / 'crd.yaml'}")
    wait_served(control_plane)
    # Trainings of other tests would count.
    wait_for(
        "a quiet cluster",
        lambda: not control_plane.kubectl("get", "itrain", "-A", "-o=name"),
        seconds=90,
    )
    names = [f"job-{number}" for number in range(jobs)]
    manifests = [training(name) for name in names]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    with (
        Trainings(control_plane, namespace) as trainings,
        OperatorProcess(
            control_plane.kubeconfig, tmp_path / "log", "--log-level", "info"
        ) as operator,
    ):
        control_plane.apply(*manifests)
        labels = {"namespace": namespace, "state": "Running"}
        wait_for(
            "all run",
            lambda: operator.metric("job_state", **labels) == jobs,
            seconds=200,
            pause=1.0,
        )
        assert sorted(trainings.pods()) == sorted(
            f"{name}-{slot}-1" for name in names for slot in (0, 1)
        )
        assert operator.metric("api_requests_total", verb="create", resource="pods") == 2 * jobs
        # Two pods, two assignments, two statuses and an event. Where pods take longer than five
        # seconds, as on a busy machine, one status more and the second of the events below.
        assert operator.writes() / jobs < 9.5
        told = [reason for name in names for reason in trainings.reasons(name)]
        # Nobody listens at the addresses of fake pods, which is said after a while.
        assert set(told) <= {"AttemptRunning", "LauncherUnreachable"}, told
        assert operator.rss_mib() < 150
        assert operator.metric("reconcile_total", result="error") == 0
        assert {status["attempt"] for status in (job["status"] for job in trainings.all())} == {1}
        wait_for("the queue is short", lambda: operator.metric("queue_oldest_age_seconds") < 1)
        assert operator.stop() == 0
