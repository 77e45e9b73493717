"""Stacks of the ranks: how a rank is made to show them, and how they are read.

Python's faulthandler writes them from within a signal handler in C, so a rank shows its stacks also
while it is stuck in C code or holds the interpreter's lock.
"""

import contextlib
import faulthandler
import itertools
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SIGNAL = signal.SIGRTMIN + 9
"""Asks a rank for its stacks; programs and libraries use the lower numbers."""
MOST_BYTES = 1 << 18
"""More than a hundred threads, which is what faulthandler shows at most."""
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)
LAUNCHERS = f"/{Path(__file__).parent.name}/rank.py"
"""Where the frames of the program end, whatever the launcher's folder is called."""
_WAITING_PLACES = (
    "/torch/distributed/",
    "/torch/autograd/",
    "/torch/nn/parallel/",
    "/inception_trainer/comm.py",
)
# faulthandler keeps only the descriptor, which would be closed along with the file object.
_open: list[IO[bytes]] = []


@dataclass(frozen=True)
class Frame:
    """One frame of a stack."""

    file: str
    line: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.file}:{self.line})"


def path(folder: Path, local_rank: int) -> Path:
    """Name the file into which a rank writes its stacks."""
    return folder / f"stacks-{local_rank}"


def offer(folder: Path, local_rank: int) -> None:
    """Make this process write its stacks when it is asked to, and to stderr when it crashes."""
    with contextlib.suppress(OSError, ValueError):
        file = path(folder, local_rank).open("ab")
        _open.append(file)
        faulthandler.register(SIGNAL, file=file, all_threads=True, chain=False)
        faulthandler.enable(all_threads=False)


def ask(pid: int) -> None:
    """Ask a rank for its stacks; it writes them in its own time."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, SIGNAL)


def read(folder: Path, local_rank: int) -> str:
    """Read what a rank has written so far."""
    try:
        with path(folder, local_rank).open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def main_stack(text: str) -> tuple[Frame, ...]:
    """Give the stack of the main thread, innermost frame first: the thread that took the signal,
    else the oldest.
    """
    threads = re.split(r"^(?=(?:Current thread|Thread) 0x)", text, flags=re.MULTILINE)
    # The kernel gives a signal for the process to its main thread where that does not block it.
    # faulthandler shows the newest thread first.
    current = [thread for thread in threads if thread.startswith("Current thread")]
    frames = _FRAME.finditer((current or threads)[-1])
    return tuple(Frame(frame["file"], frame["line"], frame["name"]) for frame in frames)


def of_program(text: str) -> tuple[Frame, ...]:
    """Give the main thread's frames that belong to the program, without those of the launcher
    around it.
    """
    stack = main_stack(text)
    inner = itertools.takewhile(lambda frame: not frame.file.endswith(LAUNCHERS), stack)
    return tuple(frame for frame in inner if frame.file != "<frozen runpy>") or stack


def waits_for_peers(stack: tuple[Frame, ...]) -> bool:
    """Tell whether a rank stands in a collective, or in the backward pass, where DDP's are."""
    return bool(stack) and any(part in stack[0].file for part in _WAITING_PLACES)


def state_of(pid: int) -> str:
    """Give the kernel's letter for what a process does; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name of the process, in brackets, may hold blanks and brackets itself.
    return stat.rpartition(") ")[2][:1]
