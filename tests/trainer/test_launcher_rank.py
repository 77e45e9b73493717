"""What a rank makes of a program: the forms it may have, and how its end is told."""

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from inception_trainer.launcher import rank


class CodedError(Exception):
    exit_code = 66


@pytest.fixture(autouse=True)
def _own_process_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)


def module(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> list[list[str]]:
    calls: list[list[str]] = []

    def train() -> None:
        calls.append(sys.argv)
        if error is not None:
            raise error

    made = types.ModuleType("made_program")
    vars(made)["train"] = train
    monkeypatch.setitem(sys.modules, "made_program", made)
    return calls


def test_function(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = module(monkeypatch)
    assert rank.run(["made_program:train", "--fast"]) == (0, "", "")
    assert calls == [["made_program:train", "--fast"]]


SCRIPT = (
    "import sys, pathlib; assert __name__ == '__main__'; "
    "pathlib.Path(sys.argv[1]).touch(); sys.exit({code})"
)


@pytest.mark.parametrize(
    "python", [[], ["python"], ["/usr/bin/python3", "-u"], ["python3.11"]], ids=str
)
def test_script(tmp_path: Path, python: list[str]) -> None:
    script, mark = tmp_path / "script.py", tmp_path / "mark"
    script.write_text(SCRIPT.format(code=7), encoding="utf-8")
    assert rank.run([*python, str(script), str(mark)]) == (7, "", "")
    assert mark.exists()
    assert sys.path[0] == str(tmp_path)


def test_module(tmp_path: Path) -> None:
    (tmp_path / "some_module.py").write_text(SCRIPT.format(code=""), encoding="utf-8")
    assert rank.run(["python", "-m", "some_module", str(tmp_path / "mark")]) == (0, "", "")
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("shell", "code"),
    [("exit 0", 0), ("exit 66", 66), ("kill -9 $$", 137)],
    ids=["success", "a code", "a signal"],
)
def test_command(shell: str, code: int) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert rank.run(["sh", "-c", shell])[0] == code
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        pytest.param("/no/such/script.py", 127, "/no/such/script.py: no such script", id="script"),
        pytest.param(
            "no_such_module:train",
            127,
            "no_such_module:train: No module named 'no_such_module'",
            id="no module",
        ),
        pytest.param("os:no_such", 127, "os:no_such: no such function", id="function"),
        pytest.param("no-such-command", 127, "no-such-command: not found", id="command"),
        pytest.param("/dev/null", 126, "/dev/null: not executable", id="not executable"),
    ],
)
def test_cannot_run(program: str, code: int, message: str) -> None:
    assert rank.run([program]) == (code, "CannotRunError", message)


def test_a_missing_import_of_the_program_is_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "imports_more.py").write_text("import no_such_module", encoding="utf-8")
    code, error, _ = rank.run(["imports_more:train"])
    assert (code, error) == (1, "ModuleNotFoundError")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        pytest.param(
            ValueError("bad luck"), (1, "ValueError", "ValueError: bad luck"), id="exception"
        ),
        pytest.param(CodedError("no data"), (66, "CodedError", "no data"), id="with a code"),
        pytest.param(SystemExit(), (0, "", ""), id="exit"),
        pytest.param(SystemExit(0), (0, "", ""), id="exit 0"),
        pytest.param(SystemExit(75), (75, "", ""), id="exit 75"),
        pytest.param(SystemExit(-1), (255, "", ""), id="exit -1"),
        pytest.param(SystemExit("words"), (1, "SystemExit", "words"), id="exit with words"),
        pytest.param(
            KeyboardInterrupt(), (1, "KeyboardInterrupt", "KeyboardInterrupt:"), id="interrupt"
        ),
    ],
)
def test_ends(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: tuple[int, str, str]
) -> None:
    module(monkeypatch, raised)
    assert rank.run(["made_program:train"]) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(
            {"message": {"message": "torch.distributed.DistBackendError: lost"}},
            ("DistBackendError", "torch.distributed.DistBackendError: lost"),
            id="as torch writes it",
        ),
        pytest.param({"message": "just words"}, ("", "just words"), id="words"),
        pytest.param({"else": 1}, ("", ""), id="foreign"),
        pytest.param([], ("", ""), id="list"),
    ],
)
def test_error_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, expected: tuple[str, str]
) -> None:
    path = tmp_path / "error.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    assert rank.recorded_error() == expected


def test_an_error_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    for torn in ("{torn", "[" * 60_000, "\x00"):
        path.write_text(torn, encoding="utf-8")
        assert rank.recorded_error() == ("", "")


def test_no_error_file() -> None:
    assert rank.recorded_error() == ("", "")


def test_notes_and_process_numbers(tmp_path: Path) -> None:
    assert rank.read_note(tmp_path, 0) is None
    for torn in ("{torn", "[" * 60_000):
        rank.note_path(tmp_path, 0).write_text(torn, encoding="utf-8")
        assert rank.read_note(tmp_path, 0) is None
    rank.note_path(tmp_path, 0).write_text('{"exitCode": 7}', encoding="utf-8")
    assert rank.read_note(tmp_path, 0) == {"exitCode": 7}
    rank.pid_path(tmp_path, 0).write_text(str(os.getpid()), encoding="ascii")
    rank.pid_path(tmp_path, 1).write_text("", encoding="ascii")
    assert rank.processes(tmp_path) == {0: os.getpid()}


@pytest.mark.parametrize("end", ["sys.exit(5)", "raise ValueError('of the helper')"])
def test_what_a_program_forks_ends_without_a_word_for_the_rank(tmp_path: Path, end: str) -> None:
    script, mark = tmp_path / "script.py", tmp_path / "mark"
    script.write_text(
        "import os, sys, threading\n"
        "if os.fork() == 0:\n"
        f"    threading.Timer(0.1, open, ({str(mark)!r}, 'w')).start()\n"
        f"    {end}\n"
        "status = os.waitstatus_to_exitcode(os.wait()[1])\n"
        f"assert not os.path.exists({str(rank.note_path(tmp_path, 0))!r})\n"
        "sys.exit(60 + status)\n",
        encoding="utf-8",
    )
    start = f"from {rank.__name__} import main; print(main({str(tmp_path)!r}, ({str(script)!r},)))"
    environment = {
        **os.environ,
        "LOCAL_RANK": "0",
        "INCEPTION_STOP_FILE": str(tmp_path / "stop"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", start], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (65 if "exit" in end else 61, "")
    note = rank.read_note(tmp_path, 0)
    assert note is not None
    assert note["exitCode"] == ended.returncode
    assert mark.exists()
