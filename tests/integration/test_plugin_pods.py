"""The plug-in's commands that read logs and files of pods, on the real API server.

No operator runs: the jobs, their status and their pods are the test's, on a node whose kubelet
serves logs and runs commands as processes of this machine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_kubelet import FakeKubelet
from inception_operator.contract import names
from inception_operator.contract.assignment import to_json, work
from localcluster.cluster import Cluster
from plugin_commands import Commands
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(180)

Json = dict[str, Any]


@pytest.fixture(scope="module")
def kubelet(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeKubelet]:
    with FakeKubelet(training_api, "plugin-node", tmp_path_factory.mktemp("kubelet")) as found:
        # Where a launcher has its files: nobody else's launcher is found there.
        found.environment["TMPDIR"] = str(tmp_path_factory.mktemp("pod"))
        yield found


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


def unpacked(file: Path) -> dict[str, str]:
    """The files of an archive, without the folder."""
    with tarfile.open(file) as archive:
        found = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
        return {name: member.read().decode() for name, member in found.items() if member}


def test_debug_collects_all_that_may_be_seen_and_names_the_rest(
    command: Commands, shared: Trainings, kubelet: FakeKubelet, talker: str, tmp_path: Path
) -> None:
    file = tmp_path / "talker.tar.gz"
    result = command("debug", talker, f"--file={file}")
    assert result.out == f"{file}\n"
    found = unpacked(file)
    assert next(iter(found)) == "summary.txt"
    assert yaml.safe_load(found["job.yaml"])["spec"]["numNodes"] == 2
    assert f"talker in {shared.namespace}: Pending" in found["summary.txt"]
    assert "example.com/gpu" in found["nodes/plugin-node.yaml"]
    assert "T00:00:01.5Z ValueError: bad luck" in found["logs/talker-1-1.log"]
    assert "API server" in found["doctor.txt"]
    # The kubelet runs the very command of the pod, for which no rank of any launcher is there.
    assert "stacks/talker-0-1.txt: the ranks did not show where they are: no ranks" in result.err
    assert "operator/deployment.yaml: none is labelled" in found["summary.txt"]
    again = command.run("debug", talker, f"--file={file}")
    assert (again.code, again.out) == (1, "")
    assert "--force" in again.err


def test_debug_shows_where_the_ranks_are(
    command: Commands, kubelet: FakeKubelet, talker: str, tmp_path: Path
) -> None:
    attempt = Path(kubelet.environment["TMPDIR"]) / "inception-x" / "attempt-2-y"
    attempt.mkdir(parents=True)
    code = (
        "import os, pathlib, sys, time\n"
        "from inception_trainer.launcher import rank, stacks\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "stacks.offer(folder, 0)\n"
        "rank.pid_path(folder, 0).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(attempt)]) as process:
        try:
            wait_for("a rank", (attempt / "pid-0").exists)
            file = tmp_path / "talker.tar.gz"
            command("debug", talker, f"--file={file}")
        finally:
            process.kill()
    text = unpacked(file)["stacks/talker-1-2.txt"]
    assert text.startswith(f"attempt 2\n\nrank 2, process {process.pid} in state S:")
    assert 'File "<string>", line 6 in <module>' in text


def test_who_may_not_see_the_pods_still_gets_an_archive(
    shared: Trainings, talker: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = f"--namespace={shared.namespace}"
    kubectl = shared.cluster.kubectl
    kubectl(
        "create", "role", "looks", "--verb=get", f"--resource={names.PLURAL}.{names.GROUP}", here
    )
    who = f"{shared.namespace}:default"
    kubectl("create", "rolebinding", "looks", "--role=looks", f"--serviceaccount={who}", here)
    config = yaml.safe_load(shared.cluster.kubeconfig.read_text(encoding="utf-8"))
    token = kubectl("create", "token", "default", here).strip()
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    weak = tmp_path / "config"
    weak.write_text(json.dumps(config), encoding="utf-8")
    file = tmp_path / "talker.tar.gz"
    result = Commands(capsys, f"--kubeconfig={weak}", here)("debug", talker, f"--file={file}")
    for what in ("pods/: ", "events.yaml: ", "operator/configuration.yaml: "):
        assert f"{what}" in result.err
        assert what in unpacked(file)["summary.txt"]
    assert "(you may not see the pods)" in unpacked(file)["summary.txt"]


def test_checkpoints_are_listed_and_copied_by_a_pod_that_runs(
    command: Commands, shared: Trainings, talker: str, tmp_path: Path
) -> None:
    none = command.run("checkpoints", talker)
    assert none.code == 1
    assert "talker has no checkpoints" in none.err
    place, content = tmp_path / "talker", bytes(range(256)) * 4096
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "step-000000012.pt").write_bytes(content)
    (place / "checkpoints" / "step-000000012.pt.sha256").write_text(
        f"{hashlib.sha256(content).hexdigest()}  step-000000012.pt\n"
    )
    latest = {"file": "checkpoints/step-000000012.pt", "step": 12}
    (place / "latest.json").write_text(json.dumps(latest))
    trainer = {"lastCheckpointTime": "2026-01-01T00:00:00Z"}
    shared.change_status(talker, checkpointPath=str(place), trainerStatus=trainer)

    listed = command("checkpoints", talker)
    assert listed.out.startswith(f"{place}, last saved ")
    row = listed.out.splitlines()[2]
    assert row.split()[:4] == ["step-000000012.pt", "12", "1.0", "MiB"]
    assert row.endswith("goes on from it")
    assert command("checkpoints", talker, "-o", "json").json["latest"] == "step-000000012.pt"

    copied = command("checkpoints", talker, "--download=step-000000012.pt", f"--to={tmp_path}")
    assert Path(copied.out.strip()).read_bytes() == content
    again = command.run("checkpoints", talker, "--download=step-000000012.pt", f"--to={tmp_path}")
    assert (again.code, "--force" in again.err) == (1, True)
    missing = command.run("checkpoints", talker, "--download=best.pt", f"--to={tmp_path}")
    assert (missing.code, "there is no" in missing.err) == (1, True)
    assert command.run("checkpoints", talker, "--download=../latest.json").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000012.pt", "talker"]


def test_without_a_pod_that_runs_the_status_is_shown_and_a_copy_refused(
    command: Commands, shared: Trainings
) -> None:
    shared.create("quiet", checkpoint={"volumeClaimName": "mine"})
    shared.change_status("quiet", checkpointPath="/checkpoint/quiet")
    listed = command("checkpoints", "quiet")
    assert listed.out == "/checkpoint/quiet, last saved never\n"
    assert "no pod of quiet runs" in listed.err
    assert command("checkpoints", "quiet", "-o", "json").json == {
        "place": "/checkpoint/quiet",
        "lastCheckpointTime": None,
    }
    refused = command.run("checkpoints", "quiet", "--download=best.pt")
    assert refused.code == 1
    assert "the claim mine, folder quiet" in refused.err
