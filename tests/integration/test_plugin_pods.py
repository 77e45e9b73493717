"""The plug-in's commands that read logs and files of pods, on the real API server.

No operator runs: the jobs, their status and their pods are the test's, on a node whose kubelet
serves logs and runs commands as processes of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fake_kubelet import FakeKubelet
from inception_operator.contract import names
from inception_operator.contract.assignment import to_json, work
from localcluster.cluster import Cluster
from localcluster.pytest_plugin import fresh_namespace
from plugin_commands import Commands
from trainings import Trainings

pytestmark = pytest.mark.timeout(180)

Json = dict[str, Any]


@pytest.fixture(scope="module")
def kubelet(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeKubelet]:
    with FakeKubelet(training_api, "plugin-node", tmp_path_factory.mktemp("kubelet")) as found:
        yield found


@pytest.fixture(scope="module")
def shared(training_api: Cluster) -> Iterator[Trainings]:
    with fresh_namespace(training_api) as namespace, Trainings(training_api, namespace) as found:
        yield found


@pytest.fixture
def command(shared: Trainings, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(
        capsys, f"--kubeconfig={shared.cluster.kubeconfig}", f"--namespace={shared.namespace}"
    )


def pod(job: str, slot: int, incarnation: int, attempt: int) -> Json:
    """A pod with two ranks of four."""
    labels = {
        names.LABEL_JOB: job,
        names.LABEL_SLOT: str(slot),
        names.LABEL_INCARNATION: str(incarnation),
    }
    assigned = to_json(work(attempt, slot, 2, 2, "10.0.0.1", graceful=False))
    metadata = {
        "name": f"{job}-{slot}-{incarnation}",
        "labels": labels,
        "annotations": {names.ANNOTATION_ASSIGNMENT: assigned},
    }
    container = {"name": names.CONTAINER, "image": "trainer"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container]},
    }


def written(*lines: str) -> list[str]:
    """A log, a line a second."""
    return [f"2026-01-01T00:00:{second:02}.5Z {line}" for second, line in enumerate(lines)]


def begins(attempt: int, first: int) -> str:
    return (
        f"2026-01-01 00:00:00,000 inception-launcher: attempt {attempt}: "
        f"Running ranks {first} to {first + 1} of 4 "
    )


@pytest.fixture(scope="module")
def talker(shared: Trainings, kubelet: FakeKubelet) -> str:
    """A job of two slots in its second attempt, for which the pod of slot 1 was replaced."""
    shared.create("talker", training={"recipe": "bninception-digits"})
    kubelet.run(shared.namespace, pod("talker", 0, 1, 2))
    kubelet.run(shared.namespace, pod("talker", 1, 1, 1), "Failed")
    kubelet.run(shared.namespace, pod("talker", 1, 2, 2))
    kubelet.logs["talker-0-1"] = written(
        begins(1, 0),
        "00:00:01 [talker attempt 1 rank 0] epoch 1",
        begins(2, 0),
        "00:00:02 [talker attempt 2 rank 0] epoch 2",
        "00:00:03 [talker attempt 2 rank 1] slow disk",
    )
    kubelet.logs["talker-1-1"] = written(begins(1, 2), "ValueError: bad luck")
    kubelet.logs["talker-1-2"] = written(
        begins(2, 2), "a warning of a library", "00:00:04 [talker attempt 2 rank 3] odd image"
    )
    return "talker"


def test_logs_are_those_of_the_rank_and_the_attempt_that_are_asked_for(
    command: Commands, talker: str
) -> None:
    assert command("logs", talker, "--rank=0", "--attempt=2").out.splitlines() == [
        f"[talker-0-1] {begins(2, 0)}",
        "[talker-0-1] 00:00:02 [talker attempt 2 rank 0] epoch 2",
    ]
    assert command("logs", talker, "--rank=3", "--no-prefix").out.splitlines()[1:] == [
        "a warning of a library",
        "00:00:04 [talker attempt 2 rank 3] odd image",
    ]
    # In the pod that was replaced, too.
    first = command("logs", talker, "--attempt=1").out
    assert "[talker-1-1] ValueError: bad luck" in first
    assert "attempt 2" not in first
    assert command("logs", talker, "--previous", "--rank=2", "--tail=1").out == (
        "[talker-1-1] ValueError: bad luck\n"
    )
    assert "[talker-0-1]" not in command("logs", talker, "--previous").out
    missing = command.run("logs", talker, "--rank=7")
    assert missing.code == 1
    assert "no line of rank 7 is in the logs of talker" in missing.err
    assert "talker-1-2 has rank 2 to 3 in attempt 2" in missing.err
