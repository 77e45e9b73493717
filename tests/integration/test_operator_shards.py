"""Operators that divide the jobs among them: each job is run by one, whoever dies, and no pod is
made twice while the number of shards changes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from localcluster.cluster import Cluster
from replicas import TAKE_OVER_SECONDS, PodLedger, Replica, Replicas, Starts
from shard_processes import Shards, make_leases
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(600)
JOBS = 30


@pytest.fixture
def lease(training_api: Cluster) -> str:
    name = f"lease-{uuid.uuid4().hex[:8]}"
    make_leases(training_api, name, 3)
    return name


@pytest.fixture
def ledger(trainings: Trainings) -> PodLedger:
    found = PodLedger(trainings.cluster, trainings.namespace)
    found.start()
    return found


def test_every_job_is_run_by_its_own_shard_alone(
    lease: str, trainings: Trainings, ledger: PodLedger, tmp_path: Path
) -> None:
    starts = Starts(trainings, ledger, "job", JOBS, some_fail=False)
    with Shards(trainings.cluster, tmp_path, lease, 3) as shards:
        shards.wait_working()
        starts.create()
        starts.wait()
        assert starts.mistakes() == []
        assert shards.strangers(trainings) == []
        parts = shards.parts(trainings)
        assert min(parts) > 0, "names that leave a shard without jobs show nothing"
        for index, replica in enumerate(shards.all):
            shown = replica.metric("job_state", namespace=trainings.namespace)
            assert shown == parts[index], "no series of other shards' jobs"
            assert replica.metric("shards", shard=str(index)) == 3
            assert "Traceback" not in replica.log


@pytest.mark.nightly
@pytest.mark.parametrize("fault", ["kill", "freeze", "drain"])
def test_a_shard_is_followed_by_its_successor_and_the_others_work_on(
    fault: str, lease: str, trainings: Trainings, ledger: PodLedger, tmp_path: Path
) -> None:
    starts = Starts(trainings, ledger, "job", JOBS)
    folder = tmp_path / "successor"
    folder.mkdir()
    successor = Replica(trainings.cluster.kubeconfig, folder, "next", lease, "--shard", "1/3")
    with Shards(trainings.cluster, tmp_path, lease, 3) as shards, successor.proxy:
        shards.wait_working()
        with successor.standing_by():
            starts.create()
            hurt = shards.all[1]
            thaw = _end(hurt, fault)
            wait_for("the successor", lambda: bool(successor.identities()), TAKE_OVER_SECONDS)
            thaw()
            starts.wait()
            assert starts.mistakes() == []
            others = (shards.all[0], shards.all[2])
            assert [len(each.identities()) for each in others] == [1, 1], "they have led throughout"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (2, 3, "drain"),
        (2, 3, "kill"),
        (2, 3, "freeze"),
        (3, 2, "drain"),
        (1, 3, "kill"),
        (3, 1, "freeze"),
    ],
)
def test_no_pod_is_made_twice_while_the_number_of_shards_changes(
    old: int,
    new: int,
    fault: str,
    lease: str,
    trainings: Trainings,
    ledger: PodLedger,
    tmp_path: Path,
) -> None:
    batches = [Starts(trainings, ledger, f"batch-{number}", 6) for number in range(10)]
    creating = threading.Thread(target=lambda: [_create(batch) for batch in batches], name="users")
    with Shards(trainings.cluster, tmp_path, lease, old) as before:
        before.wait_working()
        creating.start()
        with Shards(trainings.cluster, tmp_path, lease, new) as after:
            # As the Deployments are rolled: one after the other ends, in the midst of its work.
            thaws = []
            for replica in before.all:
                time.sleep(2)
                assert not any(each.identities() for each in after.all)
                thaws.append(_end(replica, fault))
            after.wait_working()
            for thaw in thaws:
                thaw()
            creating.join()
            for batch in batches:
                batch.wait()
                assert batch.mistakes() == []
            assert [_traceback(each) for each in (*before.all, *after.all)] == [""] * (old + new)


def _traceback(replica: Replica) -> str:
    """The first traceback in a process's log, with what led to it."""
    before, found, after = replica.log.partition("Traceback")
    return found and before[-500:] + found + after[:4000]


def _create(batch: Starts) -> None:
    batch.create()
    time.sleep(2)


def _end(replica: Replica, fault: str) -> Callable[[], None]:
    """End a process, or freeze it; what is answered lets a frozen one go on, which ends it."""
    if fault == "kill":
        replica.kill()
    elif fault == "drain":
        assert replica.stop() == 0
    else:
        os.kill(replica.pid, signal.SIGSTOP)

        def thaw() -> None:
            thawed = time.monotonic()
            os.kill(replica.pid, signal.SIGCONT)
            Replicas.ended_in_silence(replica, thawed, restart=False)

        return thaw
    return lambda: None
