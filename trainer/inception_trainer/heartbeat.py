"""Signs of life for the launcher's hang monitor: one line per rank in shared memory, written
without a system call.

``<steps done> <signs of life> step|long``. Any change is a sign of life; the counts are equal on
all ranks at the same place of the program, so the rank with the fewest is the one that the others
wait for. ``long`` says that what comes next may take much longer than a step.

Once the times of steps are known, four sums over this process follow: how many steps were timed,
and the seconds that they took, that the rank took until its gradients were ready, and that it then
waited for the others. They tell which rank is slow.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LINE_BYTES = 128
"""More than six numbers of twenty digits take."""


class Heartbeat:
    """Writes the line of this rank; without a path every call does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._line = None if path is None else _shared_line(path)
        self._step = 0
        self._count = 0
        self._timed_steps = 0
        self._seconds = [0.0, 0.0, 0.0]
        """Of all timed steps: whole, until the gradients were ready, waiting for the others."""
        self._is_first_step = True
        self._is_paused = False

    def step(self, step: int) -> None:
        """An optimizer step is done."""
        # After the first one rank 0 starts what shows the training, while the others wait in the
        # second.
        self._write("long" if self._is_first_step else "step", step)
        self._is_paused = self._is_first_step
        self._is_first_step = False

    def beat(self) -> None:
        """Something smaller than a step is done: a batch has come, or a part of an evaluation."""
        # The first batch after a pause is still to be computed, which too takes longer than the
        # ones after it.
        self._write("long" if self._is_first_step or self._is_paused else "step")
        self._is_paused = False

    def pause(self) -> None:
        """What comes next may take long: the start of an epoch, an evaluation, a save, the end."""
        self._is_paused = True
        self._write("long")

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of them a sign of life when it has come."""
        for item in items:
            self.beat()
            yield item

    def add_times(self, step: float, own: float, wait: float) -> None:
        """What a step took, what of it this rank took until its gradients were ready, and how long
        it then waited for the others: told with the next sign of life.
        """
        self._timed_steps += 1
        for index, seconds in enumerate((step, own, wait)):
            self._seconds[index] += seconds

    def _write(self, pace: str, step: int | None = None) -> None:
        self._count += 1
        if step is not None:
            self._step = step
        if self._line is not None:
            self._line[:] = _line(self._step, self._count, pace, self._times())

    def _times(self) -> str:
        if not self._timed_steps:
            return ""
        whole, own, wait = self._seconds
        return f" {self._timed_steps} {whole:.6f} {own:.6f} {wait:.6f}"


def _line(step: int, count: int, pace: str, times: str = "") -> bytes:
    # Always as long: the line is overwritten in place while the launcher may read it.
    return f"{step} {count} {pace}{times}".ljust(LINE_BYTES - 1).encode() + b"\n"


def _shared_line(path: Path) -> mmap.mmap:
    # Not a write per beat: on a disk that is busy with a checkpoint it could hold up the step.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # Written, not only made longer: memory that is full is an error here instead of a bus error
        # later.
        os.write(descriptor, _line(0, 0, "long"))
        return mmap.mmap(descriptor, LINE_BYTES)
    finally:
        os.close(descriptor)
