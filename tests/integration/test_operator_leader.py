"""Two operators with one Lease while jobs start: whatever becomes of the one that leads, no pod is
made twice, no restart is lost or counted twice, and who has lost the Lease says nothing more.
`benchmarks/leader_drill.py` does the same many times over.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.cluster import Cluster
from nightly import but_nightly
from replicas import PodLedger, Replicas, Starts
from trainings import Trainings

pytestmark = pytest.mark.timeout(600)
JOBS = 10


@pytest.fixture
def replicas(training_api: Cluster, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(training_api, tmp_path, f"lease-{uuid.uuid4().hex[:8]}") as found:
        yield found
        for replica in found.all:
            assert "Traceback" not in replica.log


@pytest.fixture
def starts(trainings: Trainings) -> Starts:
    ledger = PodLedger(trainings.cluster, trainings.namespace)
    ledger.start()
    return Starts(trainings, ledger, "job", JOBS)


@pytest.mark.parametrize(
    "fault", but_nightly(["kill", "freeze", "cut_off", "drain"], ["kill", "cut_off", "drain"])
)
def test_the_other_one_goes_on_where_the_leader_stopped(
    fault: str, replicas: Replicas, starts: Starts
) -> None:
    starts.create()
    seconds = getattr(replicas, fault)()
    assert seconds > 5 or fault == "drain", "a Lease that was not given back is respected"
    starts.wait()
    assert starts.mistakes() == []


def test_what_a_proxy_held_back_does_no_harm_when_it_arrives_after_the_take_over(
    replicas: Replicas, trainings: Trainings
) -> None:
    ledger = PodLedger(trainings.cluster, trainings.namespace)
    ledger.start()
    # None of them fails: names of pods stay taken, which is what refuses a creation that is late.
    starts = Starts(trainings, ledger, "job", JOBS, some_fail=False)
    before = time.monotonic()
    leader, _ = replicas.leader_and_other()
    starts.create()
    replicas.cut_off(keeps=True)
    held = replicas.held(leader, before)
    assert held, "nothing was under way: the test has shown nothing"
    starts.wait()
    assert starts.mistakes() == []
