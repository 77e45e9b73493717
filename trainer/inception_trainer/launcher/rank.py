"""What one rank runs: the program, wrapped so that its end is told in the contract's words.

Torch elastic calls ``main`` in a process that was forked from the agent. What a rank leaves for the
launcher are files in the attempt's folder: process number, heartbeats, stacks, and a note of how it
ended.
"""

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
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import json_text, stacks, stderr
from .exitcodes import ExitCode, contract_code, is_peer_loss
from .linux import die_with_parent

BUNDLED = "inception_trainer.entry:train"
PACKAGE_FOLDER = str(Path(__file__).resolve().parents[len(__spec__.name.split(".")) - 1])
"""Where the launcher's top-level package lies: on the path of our own processes, but not on that of
programs of others, which might find modules of ours in the place of their own.
"""
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MESSAGE_CHARACTERS = 2000
_last_error: list[BaseException] = []
"""What ended the program. Kept until the process leaves: its frames hold loader iterators and
process groups, whose destructors wait for workers and peers, a loader's five seconds for each.
"""


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
    started: dict[int, int] = {}
    for path in folder.glob("pid-*"):
        # Empty while the rank is just writing it.
        text = path.read_text(encoding="ascii")
        if text.isdigit():
            started[int(path.name.removeprefix("pid-"))] = int(text)
    return started


def read_note(folder: Path, local_rank: int) -> dict[str, Any] | None:
    """Read how a rank ended, if it could still say it."""
    path = note_path(folder, local_rank)
    try:
        note = json_text.decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def main(folder: str, program: tuple[str, ...]) -> int:
    """Run the program as this rank; returns 0 or 75, every other end leaves the process at once."""
    files = Path(folder)
    local = int(os.environ["LOCAL_RANK"])
    stderr.join(files, local)
    prepare(foreign=bool(program))
    stacks.offer(files, local)
    os.environ["INCEPTION_HEARTBEAT_FILE"] = str(heartbeat_path(files, local))
    # Last: who knows the process number may send signals, which have their handlers by now.
    pid_path(files, local).write_text(str(os.getpid()), encoding="ascii")
    if program and Path(os.environ["INCEPTION_STOP_FILE"]).exists():
        # SIGTERM was sent before this rank could be known.
        return ExitCode.STOPPED
    rank_pid = os.getpid()
    code, error, message = run(program or (BUNDLED,))
    if os.getpid() != rank_pid:
        # A process that the program has forked ends, not the rank: it leaves no note, nor does it
        # come back to torch elastic, which would have it wait for the ranks. Its own threads may
        # finish, as at the end of any interpreter.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        _flush()
        os._exit(code)
    if code not in (ExitCode.DONE, ExitCode.STOPPED) and not message:
        error, message = recorded_error()
    has_peers = int(os.environ.get("WORLD_SIZE", "1")) > 1
    note = {
        "exitCode": code,
        "error": error,
        "message": message[:_MESSAGE_CHARACTERS],
        "time": time.time(),
        "peerLost": has_peers and is_peer_loss(error, message),
    }
    _write(note_path(files, local), note)
    _flush()
    if code not in (ExitCode.DONE, ExitCode.STOPPED):
        # A normal exit would wait for threads and children that may be stuck in a collective.
        os._exit(code)
    return code


def prepare(*, foreign: bool) -> None:
    """Undo in this rank what the fork server and the agent set up for themselves.

    A fork inherits signal handlers, random states, thread counts and the module path; a program
    expects those of a fresh interpreter.
    """
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Into a pipe Python writes whole blocks, and a rank that is killed would lose its last.
            stream.reconfigure(line_buffering=True)
    if (numpy := sys.modules.get("numpy")) is not None:
        # Forked ranks would share the state that numpy drew when the fork server imported it.
        numpy.random.seed()
    _limit_threads()
    if foreign:
        if sys.path[:1] == [PACKAGE_FOLDER]:
            del sys.path[0]
        _load_device_plugins()


def run(program: Sequence[str]) -> tuple[int, str, str]:
    """Run a program to its end: exit code, exception type, message."""
    try:
        call(program)
    except SystemExit as end:
        status = _exit_status(end.code)
        if status[0] not in (ExitCode.DONE, ExitCode.STOPPED):
            _last_error.append(end)
        return status
    except BaseException as error:
        _last_error.append(error)
        # The bundled trainer's own errors say what to do; a traceback would bury that.
        kind = type(error).__name__
        code = getattr(error, "exit_code", None)
        if isinstance(code, int):
            print(f"{kind}: {error}", file=sys.stderr)
            return code, kind, str(error)
        traceback.print_exc()
        return ExitCode.ERROR, kind, f"{kind}: {error}".strip()
    return ExitCode.DONE, "", ""


def recorded_error() -> tuple[str, str]:
    """Read exception type and message from torch elastic's error file, where a program may have
    left them (torch's decorator ``record`` does).
    """
    path = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    try:
        message = json_text.decode(path.read_bytes())["message"]
        text = str(message["message"] if isinstance(message, dict) else message)
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
    kind = re.match(r"(?:[\w.]+\.)?(\w+): ", text)
    return kind[1] if kind else "", text


def call(program: Sequence[str]) -> None:
    """Call a program: ``module:function``, ``-m module``, a Python script or any command."""
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
    # Python 3.10 has no -P and no PYTHONSAFEPATH.
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(folder))


def _without_python(program: Sequence[str]) -> Sequence[str]:
    """Drop ``python [-u]`` in front of a script: this process is an interpreter already, and one
    that has imported torch.
    """
    if not re.fullmatch(r"(.*/)?python(3(\.\d+)?)?", program[0]):
        return program
    rest = list(program[1:])
    if rest[:1] == ["-u"]:
        # prepare() has done what it asks for.
        del rest[0]
    if not rest:
        return program
    is_ours = rest[0] == "-m" or rest[0].endswith(".py")
    return rest if is_ours else program


def _function(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only if it is the module itself that is missing, not one that it imports: that would be a
        # failure of the program, with a traceback worth seeing.
        missing = f"{error.name}."
        if f"{module_name}.".startswith(missing):
            raise CannotRunError(f"{name}: {error}") from error
        raise
    if not hasattr(module, attribute):
        raise CannotRunError(f"{name}: no such function")
    return getattr(module, attribute)


def _execute(name: str, arguments: list[str]) -> None:
    path = shutil.which(name)
    if path is None:
        if Path(name).exists():
            raise CannotRunError(f"{name}: not executable", ExitCode.NOT_EXECUTABLE)
        raise CannotRunError(f"{name}: not found", ExitCode.NOT_FOUND)
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
    """Divide the CPUs between the local ranks, unless OMP_NUM_THREADS says otherwise."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    text = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(text) if text.isdigit() else 0
    if threads == 0:
        ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    # OpenMP read the variable and counted the CPUs when the fork server imported torch; how many
    # ranks would share them was not known then.
    torch.set_num_threads(threads)


def _load_device_plugins() -> None:
    """Do for a foreign program what ``import torch`` does: load the vendors' plug-ins."""
    # The fork server told torch not to: a device context that is opened before a fork is of no use
    # after it.
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        return
    load = getattr(sys.modules.get("torch"), "_import_device_backends", None)
    if load is not None:
        load()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _write(path: Path, content: dict[str, Any]) -> None:
    # By way of a rename, so that nobody reads half a note.
    draft = path.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(path)
