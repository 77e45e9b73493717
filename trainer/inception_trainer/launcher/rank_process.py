"""The process of one rank, whose end is noticed at once whatever it leaves behind.

multiprocessing takes a pipe for a process's sentinel, and the process for ended when nobody holds
the pipe's other end any more. Loader workers are forked from the rank and hold it too; those of a
killed rank live on until their own watchdog finds out, five seconds later.
"""

import contextlib
import os
import threading
from multiprocessing.context import ForkProcess
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess


class RankProcess(ForkProcess):
    """A forked process whose sentinel is the process itself."""

    @staticmethod
    def _Popen(process: BaseProcess) -> Popen:  # noqa: N802
        return _Popen(process)


class _Popen(Popen):
    def __init__(self, process: BaseProcess) -> None:
        # In the forked process this call never returns.
        super().__init__(process)
        # Both torch elastic and a join with a time-out wait for this descriptor.
        self.sentinel = end_of(self.pid)


def end_of(pid: int) -> int:
    """Give a descriptor that is readable as soon as a child has ended, and from then on."""
    # AttributeError: a Python that was built on an old system, conda's for one. OSError: a kernel
    # before 5.3, or a sandbox that does not let the call through.
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    reader, writer = os.pipe()
    threading.Thread(target=_write_at_end, args=(pid, writer), daemon=True).start()
    return reader


def _write_at_end(pid: int, writer: int) -> None:
    # Its owner may be faster, or not: the child is left to be collected.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    # A byte, not the end of the pipe: ranks that are forked later hold the other end too.
    os.write(writer, b"\0")
