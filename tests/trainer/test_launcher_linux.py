"""Process tree and memory cgroup."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inception_trainer.launcher import linux


@pytest.mark.parametrize(
    ("name", "content", "kills"),
    [
        pytest.param("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2, id="v2"),
        pytest.param(
            "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5, id="v1"
        ),
        pytest.param("memory.events", "oom_kill many\n", 0, id="malformed"),
        pytest.param("elsewhere", "", 0, id="no cgroup"),
    ],
)
def test_oom_kills(tmp_path: Path, name: str, content: str, kills: int) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="ascii")
    assert linux.oom_kills(tmp_path) == kills


def test_descendants_include_those_that_left_the_group() -> None:
    code = (
        "import os, sys; os.setsid(); pid = os.fork(); "
        "print(pid, flush=True) if pid else None; sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert {process.pid, grandchild} <= linux.descendants(os.getpid())
        spared = linux.descendants(os.getpid(), spare=[process.pid])
        assert process.pid not in spared
        assert grandchild in spared
        linux.kill([process.pid, grandchild])


FAMILY = """
import os, sys, time
os.setsid()
def fork(then):
    pid = os.fork()
    if pid == 0:
        then()
        os._exit(0)
    return pid
def have_a_child(stay):
    print(fork(lambda: time.sleep(600)), flush=True)
    stay()
os.waitpid(fork(lambda: have_a_child(lambda: None)), 0)
fork(lambda: have_a_child(lambda: time.sleep(600)))
sys.stdin.read()
"""


def test_orphans_of_a_session_are_those_whose_parents_have_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as leader:
        assert leader.stdout is not None
        orphan = int(leader.stdout.readline())
        child_of_a_living = int(leader.stdout.readline())
        assert linux.orphans(leader.pid) == {orphan}
        linux.kill([orphan, child_of_a_living, *linux.descendants(leader.pid)])


TRACKED = """
import sys
from multiprocessing import resource_tracker
resource_tracker.ensure_running()
print(resource_tracker._resource_tracker._pid, flush=True)
sys.stdin.read()
"""


def test_a_resource_tracker_is_told_from_other_processes() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TRACKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        tracker = int(process.stdout.readline())
        until = time.monotonic() + 10
        # Until it has become another program it looks like its parent.
        while not (found := linux.trackers([process.pid, tracker])) and time.monotonic() < until:
            time.sleep(0.01)
        assert found == {tracker}
        process.communicate()
    assert linux.trackers([process.pid]) == set()


def test_signals_to_the_dead_are_ignored() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    linux.kill([process.pid])
    linux.kill_group(process.pid)
