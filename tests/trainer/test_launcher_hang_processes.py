"""Launchers as real processes whose ranks hang: found, shown, named and ended."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers import Gang, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    with Gang(tmp_path, **{"INCEPTION_PROGRESS_DEADLINE_SECONDS": "6", **request.param}) as gang:
        yield gang
    assert wait_for("an empty process table", lambda: not gang.processes())


def of(size: int = 1, **options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "gang", [{"size": size, **options}], indirect=True, ids=[f"{size} launchers"]
    )


def heading(attempt: int, rank: int) -> str:
    return f"inception-launcher: stacks of attempt {attempt}, rank {rank}, process "


@of(2)
def test_a_rank_that_sleeps_is_told_from_those_that_wait_for_it(gang: Gang) -> None:
    first, second = gang.launchers
    gang.assign(1, nproc=2)
    for launcher in gang.launchers:
        launcher.wait_state("Running", 1)
    gang.first_steps(1, 4)
    gang.do(1, 2, "sleep")
    cause, consequence = second.wait_state("Failed", 1), first.wait_state("Failed", 1)

    assert (cause["reason"], cause["exitCode"], cause["rank"]) == ("Hang", 70, 2)
    head, *stack = cause["message"].splitlines()
    assert head.startswith("no step for ")
    assert "rank 2 hangs after step " in head
    assert " in sleep_for_ever (" in head
    assert any(line.startswith("  act (") for line in stack)
    assert (consequence["reason"], consequence["exitCode"]) == ("Hang", 70)
    assert "waits for its peers" in consequence["message"]
    assert cause["time"] < consequence["time"], "the one that others wait for began to hang first"
    for launcher, ranks in ((first, (0, 1)), (second, (2, 3))):
        assert all(heading(1, rank) in launcher.read_log() for rank in ranks)
    assert "all_reduce" in first.read_log()
    assert "in sleep_for_ever" in second.read_log()

    gang.assign(2, nproc=2)
    gang.first_steps(2, 4)


@of(1)
def test_a_stopped_rank_is_found_and_removed(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    pids = gang.first_steps(1, 2)
    os.kill(pids[1], signal.SIGSTOP)
    assert launcher.wait_exit() == 70
    word = launcher.last_word()
    assert (word["reason"], word["exitCode"], word["rank"]) == ("Hang", 70, 1)
    assert "rank 1 is stopped by a signal after step " in word["message"]
    log = launcher.read_log()
    assert f"{heading(1, 1)}{pids[1]} in state T" in log
    assert heading(1, 0) in log
    assert "in all_reduce" in log


@of(1, INCEPTION_PROGRESS_DEADLINE_SECONDS="", INCEPTION_HANG_FLOOR_SECONDS="2")
def test_a_stopped_rank_is_found_although_nobody_has_named_a_deadline(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    launcher.wait_state("Running", 1)
    pids = gang.first_steps(1, 2)
    wait_for("steps from which to learn", lambda: (launcher.status()["step"] or 0) > 50)
    os.kill(pids[1], signal.SIGSTOP)
    report = launcher.wait_state("Failed", 1)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Hang", 70, 1)
    assert "rank 1 is stopped by a signal after step " in report["message"]
    gang.assign(2, nproc=2)
    gang.first_steps(2, 2)


DEADLOCK = """
import os, pathlib, threading
def tell(step):
    path = pathlib.Path(os.environ["INCEPTION_PROGRESS_FILE"])
    path.with_suffix(".draft").write_text('{"step": %d}' % step)
    path.with_suffix(".draft").replace(path)
def grab(one, two):
    with one:
        ready.wait()
        with two:
            pass
tell(7)
a, b, ready = threading.Lock(), threading.Lock(), threading.Barrier(2)
threading.Thread(target=grab, args=(a, b)).start()
grab(b, a)
"""


@pytest.fixture
def deadlock(tmp_path: Path) -> str:
    script = tmp_path / "deadlock.py"
    script.write_text(DEADLOCK, encoding="utf-8")
    return str(script)


def test_a_deadlock_in_a_program_of_the_user(tmp_path: Path, deadlock: str) -> None:
    with Gang(
        tmp_path, program=[sys.executable, deadlock], INCEPTION_PROGRESS_DEADLINE_SECONDS="2"
    ) as gang:
        gang.assign(1)
        assert gang.launchers[0].wait_exit() == 70
        word, log = gang.launchers[0].last_word(), gang.launchers[0].read_log()
    assert word["reason"] == "Hang"
    assert "rank 0 hangs after step 7 in grab (" in word["message"]
    assert "launcher" not in word["message"], "only the program's own frames"
    assert log.count("in grab") >= 2, "both threads are shown"


@of(1, TINY_EVALUATION_SECONDS="9")
def test_a_long_evaluation_is_no_hang(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    gang.first_steps(1, 1)
    gang.do(1, 0, "evaluate")
    (gang.folder / "finish").touch()
    assert launcher.wait_exit() == 0
