"""What ranks write to stderr: passed on unchanged, last lines kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inception_trainer.launcher.stderr import LINES, TAIL_BYTES, Tails, last_lines
from launchers import ROOT

CRASH = """\
step 7
terminate called after throwing an instance of 'c10::Error'
Fatal Python error: Aborted

Current thread 0x00007f00 (most recent call first):
  File "/code/program.py", line 12 in step
  File "/x/inception_trainer/launcher/rank.py", line 150 in call
  File "/x/multiprocessing/process.py", line 108 in run

Extension modules: numpy, torch (total: 2)
"""


@pytest.mark.parametrize(
    ("text", "last"),
    [
        pytest.param("", "", id="silence"),
        pytest.param("a\n\nb\n", "a\nb", id="empty lines"),
        pytest.param("10%\r50%\r100%\ndone\n", "100%\ndone", id="progress bar"),
        pytest.param("a\r\nb", "a\nb", id="line ends of Windows"),
    ],
)
def test_last_lines(text: str, last: str) -> None:
    assert last_lines(text) == last


def test_last_lines_are_few_and_short() -> None:
    lines = [f"line {number}" for number in range(100)]
    assert last_lines("\n".join(lines)).splitlines() == lines[-LINES:]
    wide = last_lines("\n".join("\u00fc" * 300 for _ in range(10)))
    assert len(wide.encode()) <= TAIL_BYTES
    assert len(wide.splitlines()) == 3
    assert len(last_lines("\u00fc" * 5000).encode()) <= TAIL_BYTES


def test_of_a_crash_the_inner_frames_are_kept() -> None:
    assert last_lines(CRASH).splitlines() == [line for line in CRASH.splitlines() if line][:5]


WRITER = """
import os, pathlib, subprocess, sys
from inception_trainer.launcher import stderr
stderr.join(pathlib.Path(sys.argv[1]), 1)
print("from python", file=sys.stderr, flush=True)
subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
os.write(2, b"no end of line \\xff")
"""


def write(folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", WRITER, str(folder)]
    return subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT / "trainer"), "PATH": os.defpath},
        stderr=-1,
        check=True,
    )


def test_everything_a_rank_starts_is_passed_on_and_remembered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tails = Tails(tmp_path, 2)
    assert write(tmp_path).stderr == b"", "it does not come by the old way"
    tails.drain()
    assert capfd.readouterr().err == "from python\nfrom a child\nno end of line \ufffd"
    assert tails.tail(1).splitlines() == ["from python", "from a child", "no end of line \ufffd"]
    assert (tails.tail(0), tails.tail(2)) == ("", "")
    tails.close()
    assert tails.sources == ()


def test_without_a_launcher_stderr_stays_as_it_is(tmp_path: Path) -> None:
    assert write(tmp_path).stderr.startswith(b"from python\n")


def test_a_file_system_without_pipes_costs_only_the_last_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tails = Tails(tmp_path / "missing", 1)
    assert "the last lines of local rank 0 will not be known" in caplog.text
    assert (tails.sources, tails.tail(0)) == ((), "")
    tails.close()
