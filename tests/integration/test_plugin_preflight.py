"""``preflight`` and ``checkpoints promote`` on the real API server.

No operator runs: the status of the jobs and their pods are the test's, on a node whose kubelet
serves logs and runs commands as processes of this machine.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fake_kubelet import FakeKubelet
from inception_operator.contract import names
from inception_operator.contract.assignment import to_json, work
from inception_operator.plugin import helper_pod
from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.checkpoint.folder import FolderCheckpoints
from localcluster.cluster import Cluster
from plugin_commands import Commands
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(180)

Json = dict[str, Any]
CHECKS = ("matmul", "memory", "data", "checkpoint", "clock", "allReduce", "link")
TIME = "2026-01-01T00:00:00.5Z"


@pytest.fixture(scope="module")
def kubelet(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeKubelet]:
    folder = tmp_path_factory.mktemp("kubelet")
    with FakeKubelet(training_api, "preflight-node", folder) as found:
        yield found


def pod(job: str, slot: int, **spec: Any) -> Json:
    """A pod with one rank of two."""
    assigned = to_json(work(1, slot, 2, 1, "10.0.0.1", graceful=False))
    metadata = {
        "name": f"{job}-{slot}-1",
        "labels": {
            names.LABEL_JOB: job,
            names.LABEL_SLOT: str(slot),
            names.LABEL_INCARNATION: "1",
        },
        "annotations": {names.ANNOTATION_ASSIGNMENT: assigned},
    }
    container = {
        "name": names.CONTAINER,
        "image": "trainer",
        "command": [sys.executable, "-m", "inception_trainer", "launch"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], **spec},
    }


def told(rank: int, **changes: Any) -> list[str]:
    """The log of a pod whose rank says that it is fit, but for the changes."""
    lines = []
    for check in CHECKS:
        line = {"rank": rank, "check": check, "ok": True, "seconds": 1.0, **changes.get(check, {})}
        lines.append(f"{TIME} inception-preflight {json.dumps(line)}")
    return [f"{TIME} hello", *lines]


class Operator:
    """Runs the job of this name as the operator would, in a thread: makes pods, writes its end."""

    def __init__(self, shared: Trainings, kubelet: FakeKubelet, name: str, reason: str) -> None:
        self._shared, self._kubelet = shared, kubelet
        self._name, self._reason = name, reason
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Operator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        assert not self.errors, self.errors

    def _run(self) -> None:
        try:
            wait_for("the small job", lambda: self._name in self._jobs())
            for slot in range(2):
                self._kubelet.run(self._shared.namespace, pod(self._name, slot), "Failed")
            condition = {
                "type": self._reason,
                "status": "True",
                "reason": "R",
                "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            self._shared.change_status(self._name, state=self._reason, conditions=[condition])
        except BaseException as error:
            self.errors.append(error)

    def _jobs(self) -> str:
        here = f"--namespace={self._shared.namespace}"
        return self._shared.cluster.kubectl("get", names.PLURAL, "--output=name", here)


def exists(shared: Trainings, resource: str) -> bool:
    here = f"--namespace={shared.namespace}"
    return bool(
        shared.cluster.kubectl("get", resource, here, "--ignore-not-found", "--output=name").strip()
    )


def test_a_file_is_tried_the_bad_node_is_named_and_the_small_job_goes(
    command: Commands, shared: Trainings, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    job = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "mine"},
        "spec": {
            "numNodes": 2,
            "training": {"recipe": "bninception-digits", "profiler": {"steps": 3}},
            "checkpoint": {"volumeClaimName": "claim"},
            "runPolicy": {"suspend": True},
        },
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    kubelet.logs["mine-preflight-0-1"] = told(0)
    problem = {"ok": False, "problem": "no \x1b[2Jroom", "remedy": "Make room there."}
    # What it says of the other pod's rank is not heard.
    kubelet.logs["mine-preflight-1-1"] = [*told(1, checkpoint=problem), *told(0, data=problem)]
    with Operator(shared, kubelet, "mine-preflight", "Failed"):
        result = command.run("preflight", f"--file={file}")
    assert result.code == 1, result
    failed = [line for line in result.out.splitlines() if line.startswith("FAILED")]
    assert failed == [
        "FAILED rank 1 (pod mine-preflight-1-1 on node preflight-node): checkpoint: no room"
    ]
    assert "Make room there." in result.out
    wait_for("its end", lambda: not exists(shared, f"{names.PLURAL}/mine-preflight"))


def test_the_job_that_is_there_is_tried_and_the_small_one_may_stay(
    command: Commands, shared: Trainings, kubelet: FakeKubelet
) -> None:
    shared.create("waits", training={"recipe": "bninception-digits"})
    for slot in range(2):
        kubelet.logs[f"waits-preflight-{slot}-1"] = told(slot)
    with Operator(shared, kubelet, "waits-preflight", "Succeeded"):
        result = command("preflight", "waits", "--keep", "-o", "json")
    assert result.json["ok"] is True
    assert [rank["node"] for rank in result.json["ranks"]] == ["preflight-node"] * 2
    assert exists(shared, f"{names.PLURAL}/waits-preflight")
    again = command.run("preflight", "waits")
    assert (again.code, "there is a job waits-preflight" in again.err) == (1, True)
    # The one that is there already is another user's: it stays.
    assert exists(shared, f"{names.PLURAL}/waits-preflight")


def test_a_job_without_nodes_ends_with_the_time(command: Commands, shared: Trainings) -> None:
    result = command.run("preflight", "lost", "--recipe=bninception-digits", "--timeout=1s")
    assert result.code == 124
    assert "it has not ended in time and is Pending" in result.out
    wait_for("its end", lambda: not exists(shared, f"{names.PLURAL}/lost-preflight"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The checkpoints of a job."""
    place = tmp_path / "digits"
    writer = FolderCheckpoints(place, 1, 2)
    writer.acquire()
    for step in (1, 2):
        checkpoint = {
            "format": FORMAT,
            "model": {"weight": torch.ones(2)},
            "progress": {"step": step},
        }
        writer.save(checkpoint, step)
        writer.wait()
    return place


def test_a_checkpoint_is_promoted_by_a_pod_that_runs(
    command: Commands, shared: Trainings, kubelet: FakeKubelet, trained: Path
) -> None:
    shared.create("served", training={"recipe": "bninception-digits"})
    shared.change_status("served", checkpointPath=str(trained))
    kubelet.run(shared.namespace, pod("served", 0))
    place = trained / "promoted" / "step-000000002"
    assert command("checkpoints", "promote", "served").out == f"step 2 is promoted: {place}\n"
    found = command("checkpoints", "promote", "served", "1", "--name=old", "-o", "json").json
    assert (found["name"], found["isNew"]) == ("old", True)
    assert json.loads((trained / "promoted" / "current.json").read_text())["name"] == "old"
    missing = command.run("checkpoints", "promote", "served", "7")
    assert (missing.code, "no checkpoint of step 7" in missing.err) == (1, True)
    assert "step-000000001.pt" in command("checkpoints", "served").out


def test_where_no_pod_runs_one_is_made_for_it_and_deleted(
    command: Commands,
    shared: Trainings,
    kubelet: FakeKubelet,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared.create("ended", training={"recipe": "bninception-digits"})
    shared.change_status("ended", checkpointPath=str(trained))
    kubelet.run(shared.namespace, pod("ended", 0), "Succeeded")
    # Nothing runs pods here: only what the API server says of it is seen.
    monkeypatch.setattr(helper_pod, "_SECONDS", 2)
    result = command.run("checkpoints", "promote", "ended")
    assert result.code == 124, result
    assert "has not ended" in result.err
    name = next(word for word in result.err.split() if word.startswith("ended-helper-"))
    wait_for("its end", lambda: not exists(shared, f"pod/{name}"))
