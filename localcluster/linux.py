"""The few system calls that Python 3.11 does not offer, and questions to /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
# Resolved now, because it is called between fork and exec, where loading a library could deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill the calling process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def enter_network_namespace(pid: int) -> None:
    """Move the calling thread, and no other, into the network namespace of a process."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), f"/proc/{pid}/ns/net")
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class ProcessIdentity:
    """A process and the time it started: together they are not used twice."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Of a running process; raises ProcessLookupError if there is none."""
        fields = _stat_fields(pid)
        if fields is None:
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]))

    def is_alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        fields = _stat_fields(self.pid)
        return (
            fields is not None
            and int(fields[19]) == self.start_time
            and fields[0] not in {"Z", "X"}
        )

    def open(self) -> int | None:
        """A pidfd, which becomes readable when the process ends; None if it has ended already."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.is_alive():
            return descriptor
        os.close(descriptor)
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        descriptor = self.open()
        if descriptor is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the process, child or not; answers whether it has ended."""
        descriptor = self.open()
        if descriptor is None:
            return True
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def only_child(pid: int) -> int | None:
    """The child of a process that has at most one."""
    try:
        children = Path("/proc", str(pid), "task", str(pid), "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


def mounts_under(root: Path) -> list[str]:
    """Mount points in or below a folder, in the caller's mount namespace."""
    prefix = str(root)
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == prefix or point.startswith(f"{prefix}/")]
