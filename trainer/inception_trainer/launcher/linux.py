"""What the launcher asks of the Linux kernel: subreaper, process tree, memory cgroup."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CGROUP = Path("/sys/fs/cgroup")
_TRACKER = b"resource_tracker import main"


@dataclass(frozen=True)
class _Process:
    """A line of the process table."""

    pid: int
    parent: int
    session: int
    ended: bool
    """Nobody has collected it yet."""


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process."""
    # For PID 1 that is so anyway; with a shared process namespace, or in tests, it is not PID 1.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    # It is the thread that forked which counts as the parent, and a fork does not inherit it: each
    # process of the chain launcher, fork server, agent, rank asks for itself.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(root: int, spare: Iterable[int] = ()) -> set[int]:
    """List the living descendants of ``root`` except the spared ones, whose children are listed."""
    # By the process tree, not by process group: programs of others make sessions of their own, and
    # what they leave behind becomes a child of the subreaper.
    children: dict[int, list[int]] = {}
    left_out = set(spare)
    for process in _processes():
        children.setdefault(process.parent, []).append(process.pid)
        if process.ended:
            left_out.add(process.pid)
    below: set[int] = set()
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            below.add(pid)
            queue.append(pid)
    return below - left_out


def orphans(leader: int) -> set[int]:
    """List the living processes of a session whose parents have ended: its leader, which is left
    out too, is no ancestor of theirs any more.
    """
    # In this order: what a member forks meanwhile is in the second list alone.
    members = {
        process.pid for process in _processes() if process.session == leader and not process.ended
    }
    return members - descendants(leader) - {leader}


def trackers(pids: Iterable[int]) -> set[int]:
    """Pick the resource trackers of Python's multiprocessing, and of joblib.

    Each outlives the processes that have started it, removes the shared memory that they have left
    behind, and ends: killed with them, it would leave that to fill /dev/shm, or to be in the way of
    the next attempt, which makes it by the same name.
    """
    return {pid for pid in pids if _TRACKER in _command(pid)}


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
    # The first two are of cgroup v2, where memory.events counts nested groups too; the last of v1.
    for name in ("memory.events", "memory.events.local", "memory/memory.oom_control"):
        count = _counter(root / name, "oom_kill")
        if count is not None:
            return count
    return 0


def left_in_cgroup(cgroup: Path = _CGROUP) -> int | None:
    """Bytes below the memory limit of this container, files that the kernel can drop not counted;
    None without a limit.
    """
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        figures = dict(
            line.split() for line in (cgroup / "memory.stat").read_text("ascii").splitlines()
        )
        return limit - used + int(figures.get("inactive_file", 0))
    except (OSError, ValueError):
        # "max", or no second version of control groups.
        return None


def _counter(path: Path, key: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return None


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _processes() -> Iterable[_Process]:
    """Read the process table."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            # The name in brackets may hold anything, so what follows is counted from its last
            # bracket: state, parent, process group, session.
            fields = stat[stat.rindex(")") + 2 :].split()
            yield _Process(int(entry.name), int(fields[1]), int(fields[3]), fields[0] in "ZX")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
