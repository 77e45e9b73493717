"""Stacks that ranks show, and what is made of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from inception_trainer.launcher import hang_monitor, rank, stacks, wire
from inception_trainer.launcher.assignment import Assignment
from inception_trainer.launcher.hang_detector import GivenDeadline
from inception_trainer.launcher.hang_monitor import LINGER_SECONDS, SHOW_SECONDS, HangMonitor
from launchers import ROOT, wait_for

DUMP = """\
Thread 0x00007f01 (most recent call first):
  File "/lib/threading.py", line 331 in wait
  File "/lib/queue.py", line 180 in get

Current thread 0x00007f00 (most recent call first):
  File "/x/site-packages/torch/distributed/distributed_c10d.py", line 2501 in all_reduce
  File "/code/my program.py", line 12 in <module>
  File "<frozen runpy>", line 88 in _run_code
  File "/x/site-packages/inception_trainer/launcher/rank.py", line 150 in call
  File "/x/multiprocessing/process.py", line 108 in run
"""


def test_main_thread_is_the_one_that_took_the_signal() -> None:
    assert [frame.name for frame in stacks.main_stack(DUMP)] == [
        "all_reduce",
        "<module>",
        "_run_code",
        "call",
        "run",
    ]
    nameless = DUMP.replace("Current thread", "Thread")
    assert stacks.main_stack(nameless)[0].name == "all_reduce", "the last one is the oldest"
    assert stacks.main_stack("") == ()


def test_only_the_programs_own_frames_are_told() -> None:
    program = stacks.of_program(DUMP)
    assert [str(frame) for frame in program][1:] == ["<module> (/code/my program.py:12)"]
    assert stacks.waits_for_peers(program)
    assert not stacks.waits_for_peers(program[1:])
    assert not stacks.waits_for_peers(())


VICTIM = """
import pathlib, sys, threading, time
from inception_trainer.launcher import rank, stacks
folder = pathlib.Path(sys.argv[1])
stacks.offer(folder, 0)
if sys.argv[2] == "beats":
    rank.heartbeat_path(folder, 0).write_text("57 80 step")
def stuck_here():
    time.sleep(600)
threading.Thread(target=stuck_here, daemon=True).start()
rank.pid_path(folder, 0).write_text(str(__import__("os").getpid()))
stuck_here()
"""


@pytest.fixture(params=["beats"])
def victim(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", VICTIM, str(tmp_path), request.param]
    with subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "trainer")}) as process:
        wait_for("the victim", lambda: rank.processes(tmp_path))
        yield process
        process.kill()


def new_monitor(
    folder: Path, deadline: float = 8, program: tuple[str, ...] = ("x",)
) -> HangMonitor:
    request = wire.Request(Assignment(3, 1, 2, 1, "10.0.0.1", 29503), str(folder), program)
    return HangMonitor(request, GivenDeadline(deadline))


@pytest.mark.parametrize(
    ("program", "process", "beats", "has_begun"),
    [
        pytest.param((), False, "", False, id="no rank"),
        pytest.param((), True, "", False, id="imports"),
        pytest.param((), True, "0 0 long", False, id="waits for its peers"),
        pytest.param((), True, "0 1 long", True, id="first batch"),
        pytest.param(("x",), False, "", False, id="foreign, no rank"),
        pytest.param(("x",), True, "", True, id="foreign, started"),
    ],
)
def test_when_a_rank_has_begun(
    tmp_path: Path, program: tuple[str, ...], process: bool, beats: str, has_begun: bool
) -> None:
    request = wire.Request(Assignment(3, 1, 2, 1, "10.0.0.1", 29503), str(tmp_path), program)
    if process:
        rank.pid_path(tmp_path, 0).write_text("4711")
    if beats:
        rank.heartbeat_path(tmp_path, 0).write_text(beats)
    assert hang_monitor.begun(request) is has_begun


def turn_until(monitor: HangMonitor, start: float, end: float) -> None:
    """Turn every second of a made-up clock."""
    for now in range(int(start), int(end) + 1):
        assert monitor.turn(now) is None


def show(monitor: HangMonitor, now: float) -> None:
    """Turn without letting the clock run until the stacks have been printed."""

    def shown() -> bool:
        assert monitor.turn(now) is None
        return not monitor.showing

    wait_for("stacks", shown)


def test_a_silent_rank_shows_its_stacks_before_the_verdict(
    tmp_path: Path, victim: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 7)
    assert monitor.verdict is None
    assert monitor.turn(8) is None
    assert monitor.showing, "nothing may be killed now"
    show(monitor, 8)
    printed = capsys.readouterr().err
    assert (
        f"stacks of attempt 3, rank 1, process {victim.pid} in state S: no sign of life for 8 s"
        in printed
    )
    assert printed.count("in stuck_here") == 2, "all threads"
    assert monitor.turn(8 + LINGER_SECONDS - 0.1) is None, (
        "peers of other nodes show theirs meanwhile"
    )
    outcome = monitor.turn(8 + LINGER_SECONDS)
    assert outcome is not None
    assert outcome == monitor.verdict
    (failure,) = outcome.failures
    assert (failure.exit_code, failure.rank, outcome.attempt) == (70, 1, 3)
    assert failure.message.startswith("no step for 8 s: rank 1 hangs after step 57 in stuck_here (")
    assert monitor.turn(1000) is None, "said once"


@pytest.mark.parametrize(("waits", "time"), [(False, 992), (True, 1003)], ids=["hangs", "waits"])
def test_a_hang_is_dated_to_its_beginning_and_waiting_to_the_moment_of_the_report(
    tmp_path: Path,
    victim: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    waits: bool,
    time: float,
) -> None:
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 7)
    monitor.turn(8)
    monkeypatch.setattr(stacks, "waits_for_peers", lambda _: waits)
    monkeypatch.setattr(hang_monitor, "time", SimpleNamespace(time=lambda: 1000.0))
    monkeypatch.setattr(stacks, "read", lambda *_: DUMP)
    monitor.turn(8)
    monitor.turn(8)
    assert monitor.verdict is not None
    monkeypatch.setattr(hang_monitor, "time", SimpleNamespace(time=lambda: 1003.0))
    outcome = monitor.turn(8 + LINGER_SECONDS)
    assert outcome is not None
    assert outcome.failures[0].time == time


def test_a_rank_that_is_killed_while_it_seems_to_hang_shows_its_stacks(
    tmp_path: Path, victim: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 4)
    monitor.before_kill(5)
    assert monitor.showing
    show(monitor, 5)
    assert "in stuck_here" in capsys.readouterr().err
    assert monitor.verdict is None, "it is no hang yet"


def test_a_rank_that_saves_and_stops_has_another_limit(
    tmp_path: Path, victim: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = new_monitor(tmp_path)
    monitor.let_stop()
    turn_until(monitor, 0, 100)
    assert not monitor.showing
    monitor.before_kill(101)
    show(monitor, 101)
    assert "in stuck_here" in capsys.readouterr().err, "the limit is over, and this is why"


def test_a_rank_that_steps_is_killed_without_ceremony(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 2)
    monitor.before_kill(3)
    assert not monitor.showing


def test_a_stopped_rank_cannot_show_its_stacks(
    tmp_path: Path, victim: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 7)
    victim.send_signal(stacks.signal.SIGSTOP)
    wait_for("the stop", lambda: stacks.state_of(victim.pid) == "T")
    monitor.turn(8)
    show(monitor, 8)
    assert "(it cannot show its stacks)" in capsys.readouterr().err
    assert monitor.verdict is not None
    assert (
        monitor.verdict.failures[0].message
        == "no step for 8 s: rank 1 is stopped by a signal after step 57"
    )


@pytest.mark.parametrize("victim", ["silent"], indirect=True)
def test_a_foreign_program_that_reports_nothing_is_left_alone(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    turn_until(new_monitor(tmp_path), 0, 200)


@pytest.mark.parametrize("victim", ["silent"], indirect=True)
def test_the_bundled_trainer_must_begin(
    tmp_path: Path, victim: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = new_monitor(tmp_path, program=())
    turn_until(monitor, 0, 80)
    show(monitor, 80)
    assert monitor.verdict is not None
    assert "rank 1 hangs before its first step in stuck_here" in monitor.verdict.failures[0].message


def test_a_rank_that_shows_nothing_is_not_waited_for_long(
    tmp_path: Path, victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "ask", lambda _pid: None)
    monitor = new_monitor(tmp_path)
    turn_until(monitor, 0, 8)
    assert monitor.turn(8 + SHOW_SECONDS - 0.1) is None
    assert monitor.showing
    monitor.turn(8 + SHOW_SECONDS)
    assert not monitor.showing
    assert monitor.verdict is not None
    assert "shows no stack" in monitor.verdict.failures[0].message


def test_a_rank_that_has_ended_is_not_watched(
    tmp_path: Path, victim: subprocess.Popen[bytes]
) -> None:
    rank.note_path(tmp_path, 0).write_text('{"exitCode": 0}', encoding="utf-8")
    turn_until(new_monitor(tmp_path), 0, 100)
