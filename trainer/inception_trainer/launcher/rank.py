"""What one rank runs: the program, wrapped so that its end is told in the contract's words."""

import contextlib
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import boot, stacks, stderr
from .exitcodes import ExitCode, contract_code, is_peer_loss
from .linux import die_with_parent

BUNDLED = "inception_trainer.entry:train"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MESSAGE_CHARACTERS = 2000


class CannotRunError(Exception):
    """The program cannot be started."""

    def __init__(self, message: str, exit_code: int = ExitCode.NOT_FOUND) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)


def note_path(folder: Path, local_rank: int) -> Path:
    """Name the file in which a rank says how it ended."""
    return folder / f"rank-{local_rank}.json"


def pid_path(folder: Path, local_rank: int) -> Path:
    """Name the file in which a rank leaves its process number."""
    return folder / f"pid-{local_rank}"


def heartbeat_path(folder: Path, local_rank: int) -> Path:
    """Name the file in which a rank leaves signs of life."""
    return folder / f"heartbeat-{local_rank}"


def processes(folder: Path) -> dict[int, int]:
    """Give the process numbers of the ranks that have started, by local rank."""
    texts = {path: path.read_text(encoding="ascii") for path in folder.glob("pid-*")}
    return {
        int(path.name.removeprefix("pid-")): int(text)
        for path, text in texts.items()
        if text.isdigit()
    }


def read_note(folder: Path, local_rank: int) -> dict[str, Any] | None:
    """Read how a rank ended, if it could still say it."""
    try:
        note = json.loads(note_path(folder, local_rank).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def main(folder: str, program: tuple[str, ...]) -> int:
    """Run the program as this rank; returns 0 or 75, every other end leaves the process at once."""
    local = int(os.environ["LOCAL_RANK"])
    stderr.join(Path(folder), local)
    prepare(bool(program))
    stacks.offer(Path(folder), local)
    os.environ["INCEPTION_HEARTBEAT_FILE"] = str(heartbeat_path(Path(folder), local))
    pid_path(Path(folder), local).write_text(str(os.getpid()), encoding="ascii")
    if program and Path(os.environ["INCEPTION_STOP_FILE"]).exists():
        # SIGTERM was sent before this rank could be known.
        return ExitCode.STOPPED
    code, error, message = run(program or (BUNDLED,))
    if code not in (ExitCode.DONE, ExitCode.STOPPED) and not message:
        error, message = recorded()
    note = {
        "exitCode": code,
        "error": error,
        "message": message[:_MESSAGE_CHARACTERS],
        "time": time.time(),
    }
    note["peerLost"] = int(os.environ.get("WORLD_SIZE", "1")) > 1 and is_peer_loss(error, message)
    _write(note_path(Path(folder), local), note)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code not in (ExitCode.DONE, ExitCode.STOPPED):
        # A normal exit would wait for threads and children that may be stuck in a collective.
        os._exit(code)
    return code


def prepare(foreign: bool) -> None:
    """Undo in this rank what the fork server and the agent set up for themselves."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    if (numpy := sys.modules.get("numpy")) is not None:
        # Forked ranks would share the state that numpy drew when the fork server imported it.
        numpy.random.seed()
    _limit_threads()
    if foreign:
        if sys.path[:1] == [boot.FOLDER]:
            del sys.path[0]
        _load_device_plugins()


def run(program: Sequence[str]) -> tuple[int, str, str]:
    """Run a program to its end: exit code, exception type, message."""
    try:
        call(program)
    except SystemExit as end:
        return _exit_status(end.code)
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        if isinstance(code, int):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return code, type(error).__name__, str(error)
        traceback.print_exc()
        head = f"{type(error).__name__}: {error}".strip()
        return ExitCode.ERROR, type(error).__name__, head
    return ExitCode.DONE, "", ""


def recorded() -> tuple[str, str]:
    """Read exception type and message from torch elastic's error file, where a program may have
    left them.
    """
    try:
        content = json.loads(
            Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).read_text(encoding="utf-8")
        )
        message = content["message"]
        text = str(message["message"] if isinstance(message, dict) else message)
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
    found = re.match(r"(?:[\w.]+\.)?(\w+): ", text)
    return found[1] if found else "", text


def call(program: Sequence[str]) -> None:
    """Call a program given as ``module:function``, ``-m module``, a Python script or any command."""
    name, *arguments = _without_python(program)
    if _FUNCTION.fullmatch(name):
        sys.argv = [name, *arguments]
        _search_first(Path.cwd())
        _function(name)()
    elif name == "-m" and arguments:
        sys.argv = arguments
        _search_first(Path.cwd())
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif name.endswith(".py"):
        sys.argv = [name, *arguments]
        if not Path(name).is_file():
            raise CannotRunError(f"{name}: no such script")
        _search_first(Path(name).resolve().parent)
        runpy.run_path(name, run_name="__main__")
    else:
        _execute(name, arguments)


def _search_first(folder: Path) -> None:
    """Do what the interpreter does before it runs a script or a module."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(folder))


def _without_python(program: Sequence[str]) -> Sequence[str]:
    """Drop ``python [-u]`` in front of a script: this process is a warm one already."""
    if not re.fullmatch(r"(.*/)?python(3(\.\d+)?)?", program[0]):
        return program
    rest = [*program[1:]]
    if rest[:1] == ["-u"]:
        del rest[0]
    return rest if rest and (rest[0] == "-m" or rest[0].endswith(".py")) else program


def _function(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise CannotRunError(f"{name}: {error}") from error
        raise
    if not hasattr(module, attribute):
        raise CannotRunError(f"{name}: no such function")
    return getattr(module, attribute)


def _execute(name: str, arguments: list[str]) -> None:
    path = shutil.which(name)
    if path is None:
        code = ExitCode.NOT_EXECUTABLE if Path(name).exists() else ExitCode.NOT_FOUND
        raise CannotRunError(
            f"{name}: {'not executable' if Path(name).exists() else 'not found'}", code
        )
    # Not exec: torch elastic waits for this process to hand back a value.
    process = subprocess.Popen([path, *arguments])
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    raise SystemExit(contract_code(process.wait()))


def _exit_status(code: object) -> tuple[int, str, str]:
    """Read what ``sys.exit`` was given, as the interpreter does."""
    if code is None:
        return ExitCode.DONE, "", ""
    if isinstance(code, int):
        return code & 0xFF, "", ""
    print(code, file=sys.stderr)
    return ExitCode.ERROR, "SystemExit", str(code)


def _limit_threads() -> None:
    """Share the CPUs between the local ranks: OpenMP has read its variable long before, in the fork
    server.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    share = len(os.sched_getaffinity(0)) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    text = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(text) if text.isdigit() and int(text) > 0 else max(1, share))


def _load_device_plugins() -> None:
    """Do for a foreign program what ``import torch`` does: load the vendors' plug-ins, skipped in
    the fork server.
    """
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        return
    load = getattr(sys.modules.get("torch"), "_import_device_backends", None)
    if load is not None:
        load()


def _write(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(path)
