"""Stacks of ranks that somebody asks for: `kubectl inception debug` does, in the pod."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inception_trainer.launcher import install, rank, show_stacks, stacks
from launchers import ROOT, wait_for

RANK = """
import os, pathlib, sys, time
from inception_trainer.launcher import rank, stacks
folder, local = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "answers":
    stacks.offer(folder, local)
rank.pid_path(folder, local).write_text(str(os.getpid()))
def computes():
    time.sleep(600)
computes()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the second attempt of a launcher; its first one has left some too."""
    for name in ("attempt-1-x", "attempt-2-y"):
        (tmp_path / "inception-z" / name).mkdir(parents=True)
    os.utime(tmp_path / "inception-z" / "attempt-1-x", (1, 1))
    (tmp_path / "inception-z" / "attempt-1-x" / "pid-0").write_text("1")
    return tmp_path / "inception-z" / "attempt-2-y"


@pytest.fixture
def ranks(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two ranks; the second one shows nothing, and the signal would end it."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder), str(local), word],
            env={"PYTHONPATH": str(ROOT / "trainer")},
        )
        for local, word in enumerate(("answers", "silent"))
    ]
    wait_for("ranks", lambda: len(rank.processes(folder)) == 2)
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_all_ranks_of_the_newest_attempt_show_where_they_are_and_go_on(
    tmp_path: Path, folder: Path, ranks: list[subprocess.Popen[bytes]]
) -> None:
    install.install(tmp_path / "launcher")
    code = "from inception_launcher.show_stacks import main; import sys; main(sys.argv[1:])"
    shown = subprocess.run(
        [sys.executable, "-c", code, "4"],
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path / "launcher")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, second = ranks
    assert f"rank 4, process {first.pid} in state S:\nCurrent thread" in shown
    assert " in computes\n" in shown
    assert f"rank 5, process {second.pid} in state S:\n(it cannot show its stacks)" in shown
    assert [process.poll() for process in ranks] == [None, None]
    # The hang monitor would take an old answer for a new one.
    assert stacks.read(folder, 0) == ""
    assert "in computes" in show_stacks.collect(folder, {0: first.pid})[0]


def test_a_pod_without_ranks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(show_stacks, "_SHARED_MEMORY", tmp_path / "none")
    assert show_stacks.main([]) == 1
    assert "no ranks run" in capsys.readouterr().err


def test_a_rank_that_is_gone_is_shown_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    rank.pid_path(folder, 0).write_text(str(process.pid))
    show_stacks.show(folder, 0)
    assert f"process {process.pid} in state gone:\n(it cannot" in capsys.readouterr().out
