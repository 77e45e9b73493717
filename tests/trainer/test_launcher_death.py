"""Launchers as real processes whose ranks are killed while their loader workers live on."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import loading_program
from launchers import Gang, wait_for

pytestmark = pytest.mark.timeout(180)

SCRIPT = loading_program.__file__
# With something left to do a shell does not give its process to the program.
IN_A_SHELL = f"{sys.executable} {SCRIPT}; exit $?"


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    with Gang(tmp_path, **request.param) as gang:
        yield gang
        # Of a launcher that is killed, these loader workers would know no more than of a rank.
        for launcher in gang.launchers:
            launcher.terminate()
            launcher.wait_exit()
    assert wait_for("an empty process table", lambda: not gang.processes())


def workers(gang: Gang, attempt: int, rank: int) -> set[int]:
    """The process numbers of a rank's loader workers, as soon as all of them have begun."""
    paths = [
        gang.folder / f"worker-{attempt}-{rank}-{worker}"
        for worker in range(loading_program.WORKERS)
    ]
    wait_for("loader workers", lambda: all(path.exists() for path in paths))
    return {int(path.read_text(encoding="utf-8")) for path in paths}


# Whoever waited for the end of the workers would wait for ten minutes.
@pytest.mark.parametrize(
    ("gang", "consequence"),
    [
        pytest.param({"size": 2, "program": program}, consequence, id=name, marks=marks)
        for name, program, consequence, marks in (
            ("a function", ["loading_program:train"], "PeerLost", ()),
            ("a script", [sys.executable, SCRIPT], "PeerLost", pytest.mark.nightly),
            # Of an interpreter of its own nothing is known but its exit code.
            ("in a shell", ["bash", "-c", IN_A_SHELL], "Error", ()),
        )
    ],
    indirect=["gang"],
)
def test_a_killed_rank_is_noticed_everywhere_while_its_loader_workers_live(
    gang: Gang, consequence: str
) -> None:
    first, second = gang.launchers
    gang.assign(1)
    for launcher in gang.launchers:
        launcher.wait_state("Running", 1)
    pids = gang.first_steps(1, 2)
    left = workers(gang, 1, 1)
    os.kill(pids[1], signal.SIGKILL)
    cause = second.wait_state("Failed", 1)
    assert (cause["reason"], cause["exitCode"], cause["rank"]) == ("Signal", 137, 1)
    assert first.wait_state("Failed", 1)["reason"] == consequence
    wait_for("the end of the workers", lambda: not left & set(gang.processes()))
    gang.assign(2)
    gang.first_steps(2, 2)


HOLDING = """
import time
class Waiting:
    def __del__(self):
        time.sleep(600)
def train():
    waiting = Waiting()
    %s
train()
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise ValueError('bad luck')", 1), ("raise SystemExit(7)", 7)],
    ids=["an error", "an exit"],
)
def test_a_rank_that_fails_does_not_wait_for_what_its_objects_wait_for(
    tmp_path: Path, end: str, code: int
) -> None:
    script = tmp_path / "holding.py"
    script.write_text(HOLDING % end, encoding="utf-8")
    with Gang(tmp_path, program=[sys.executable, str(script)]) as gang:
        gang.assign(1)
        assert gang.launchers[0].wait_exit() == code


@pytest.mark.parametrize(
    "gang", [{"program": ["loading_program:train"]}], indirect=True, ids=["1 launcher"]
)
def test_the_end_of_the_fork_server_is_noticed_while_loader_workers_live(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    launcher.wait_state("Running", 1)
    gang.first_steps(1, 1)
    left = workers(gang, 1, 0)
    children = Path(f"/proc/{launcher.process.pid}/task/{launcher.process.pid}/children")
    (server,) = map(int, children.read_text(encoding="ascii").split())
    os.kill(server, signal.SIGKILL)
    assert "fork server" in launcher.wait_state("Failed", 1)["message"]
    gang.assign(2)
    gang.first_steps(2, 1)
    assert not left & set(gang.processes())
