"""CPUs of a rank's own: how they are divided, and that every thread and loader process of a rank
stays on them.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import trainer_ranks
from inception_trainer import affinity
from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.errors import ConfigError
from shard_files import png
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(300)
CPUS = sorted(os.sched_getaffinity(0))
TRAINER = str(Path(__file__).parents[2] / "trainer")
POOLS = """
import json, os, threading, time
import torch
from torch import nn

torch.set_num_threads(3)
torch.ones(512, 512) @ torch.ones(512, 512)
nn.Conv2d(3, 8, 3)(torch.ones(4, 3, 64, 64)).sum().backward()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
before = len(os.listdir("/proc/self/task"))

from inception_trainer import affinity

affinity.pin([min(os.sched_getaffinity(0))])
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
found = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
print(json.dumps([before, found]))
"""
ONE_CPU = """
import os, sys

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from inception_trainer.cli import main

main(sys.argv[1:])
"""


def run(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": TRAINER, **variables}
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, env=environment
    )


def allowed(pid: int) -> set[tuple[int, ...]]:
    """The CPUs of every thread of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {tuple(sorted(os.sched_getaffinity(int(task.name)))) for task in tasks}


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize(
    ("cpus", "ranks", "parts"),
    [
        (range(4), 1, [[0, 1, 2, 3]]),
        (range(4), 2, [[0, 1], [2, 3]]),
        (range(5), 2, [[0, 1], [2, 3, 4]]),
        ({9, 3, 12, 4, 10, 11}, 3, [[3, 4], [9, 10], [11, 12]]),
        (range(10), 4, [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]),
        (range(3), 3, [[0], [1], [2]]),
    ],
)
def test_parts(cpus, ranks, parts) -> None:
    assert [affinity.part(sorted(cpus), rank, ranks) for rank in range(ranks)] == parts


def test_threads_of_a_core_stay_together(tmp_path) -> None:
    """Two packages of two cores of two threads, numbered as Linux numbers them."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu // 2 % 2}\n")
        (folder / "core_id").write_text(f"{cpu % 2}\n")
    assert affinity.by_core(range(8), tmp_path) == [0, 4, 1, 5, 2, 6, 3, 7]
    assert affinity.by_core({7, 1, 3, 5}, tmp_path) == [1, 5, 3, 7]


@pytest.mark.parametrize("text", [None, "", "unknown"])
def test_without_a_topology_the_numbers_decide(text, tmp_path) -> None:
    if text is not None:
        (tmp_path / "cpu2" / "topology").mkdir(parents=True)
        (tmp_path / "cpu2" / "topology" / "physical_package_id").write_text(text)
    assert affinity.by_core({9, 2, 4}, tmp_path) == [2, 4, 9]


def test_fewer_cpus_than_ranks() -> None:
    words = (
        r"cpuAffinity: PerRank needs a CPU for each of the 3 ranks of this pod, which may use 2; "
    )
    words += "give the pod more"
    with pytest.raises(ConfigError, match=words):
        affinity.part([0, 1], 0, 3)


def test_shared_leaves_everything_alone(monkeypatch) -> None:
    monkeypatch.setattr(affinity.os, "sched_setaffinity", lambda *_: pytest.fail("pinned"))
    settings = Settings(local_rank=1, local_world_size=2)
    assert affinity.pin_rank(from_mapping(TINY).cpu_affinity, settings) is settings


def test_threads_that_run_already_are_pinned_too() -> None:
    done = run("-c", POOLS)
    assert done.returncode == 0, done.stderr
    before, found = json.loads(done.stdout)
    assert before >= 4, "torch has a pool, and there is a thread of ours"
    assert len(found) > before
    assert found == [[CPUS[0]]] * len(found)


def test_each_rank_and_its_loaders_have_cpus_of_their_own(tmp_path) -> None:
    assert len(CPUS) >= 2, "two ranks need two CPUs"
    for split in ("train", "val"):
        for number in range(8):
            path = tmp_path / "data" / split / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    data = {"kind": "ImageFolder", "path": str(tmp_path / "data"), "workers": 1, "imageSize": 32}
    job = merge(
        {**TINY, "data": data},
        {"cpuAffinity": "PerRank", "epochs": 100_000, "batch": {"global": 4}},
    )
    job["evaluation"] = {"everyEpochs": 100_000}
    # What each rank may use decides its threads, no variable.
    gang = trainer_ranks.start(tmp_path, job, 2, environment={"OMP_NUM_THREADS": ""})
    gang.until(lambda: gang.progress()["step"] >= 4)
    for rank, process in enumerate(gang.processes):
        own = tuple(affinity.part(affinity.by_core(CPUS), rank, 2))
        assert allowed(process.pid) == {own}
        loaders = children(process.pid)
        assert loaders
        assert {cpus for loader in loaders for cpus in allowed(loader)} == {own}
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75, 75], gang.output()


def test_a_pod_with_too_few_cpus_is_told_so_at_once() -> None:
    ranks = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
    }
    done = run(
        "-c", ONE_CPU, "train", "--set", "data.kind=Digits", "--set", "cpuAffinity=PerRank", **ranks
    )
    assert done.returncode == 78, done.stderr
    words = (
        "ConfigError: cpuAffinity: PerRank needs a CPU for each of the 2 ranks of this pod, "
        "which may use 1"
    )
    assert words in done.stderr


def test_where_ranks_run_decides_no_result() -> None:
    assert fingerprint(from_mapping(TINY)) == fingerprint(
        from_mapping({**TINY, "cpuAffinity": "PerRank"})
    )
    with pytest.raises(
        ConfigError,
        match=r"cpuAffinity: 'Perrank' is unknown \(did you mean PerRank\?\); choose Shared",
    ):
        from_mapping({**TINY, "cpuAffinity": "Perrank"})
