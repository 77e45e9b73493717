"""What the launcher needs from Linux: subreaper, process tree, memory cgroup."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CGROUP = Path("/sys/fs/cgroup")


def become_subreaper() -> None:
    """Make orphaned descendants ours, also where we are not PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(root: int, spare: Iterable[int] = ()) -> set[int]:
    """List the living descendants of ``root``; the spared ones are not listed, their children are."""
    children: dict[int, list[int]] = {}
    zombies = set(spare)
    for pid, parent, zombie in _processes():
        children.setdefault(parent, []).append(pid)
        if zombie:
            zombies.add(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            found.add(pid)
            queue.append(pid)
    return found - zombies


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL, which stopped processes obey too."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_group(group: int) -> None:
    """Send SIGKILL to a whole process group at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def reap() -> dict[int, int]:
    """Collect every child that has ended: its exit code by its number (negative: a signal)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def oom_kills(root: Path = _CGROUP) -> int:
    """Read how often the memory cgroup's OOM killer struck; 0 where the cgroup cannot be read."""
    return next(
        (count for path in _oom_files(root) if (count := _counter(path, "oom_kill")) is not None), 0
    )


def _oom_files(root: Path) -> list[Path]:
    return [
        root / "memory.events",
        root / "memory.events.local",
        root / "memory" / "memory.oom_control",
    ]


def _counter(path: Path, key: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return None


def _processes() -> Iterable[tuple[int, int, bool]]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            # The name in brackets may hold anything, so what follows is counted from its last
            # bracket.
            fields = stat[stat.rindex(")") + 2 :].split()
            yield int(entry.name), int(fields[1]), fields[0] in "ZX"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
