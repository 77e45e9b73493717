"""Batch norm statistics of one rank in the pod's shared memory, after every step.

Each rank has its own, and no other rank knows them: when its process is killed, this file alone
says what they were, and how far it had come. There are slots for the last two moments, and two for
those that the whole copies need: a slot is cleared before it is written and gets its number last.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SLOT = struct.Struct("<16sQQQQQQQ")
MAGIC = b"INCEPTION-RANK-1"
SLOT_START = 128
LIVE = (0, 1)
PINNED = (2, 3)


@dataclass(frozen=True)
class RankStatistics:
    """What a rank had at a step boundary."""

    attempt: int
    step: int
    rank: int
    """Of all ranks of that attempt."""
    world_size: int
    number: int
    """Later moments have greater ones."""
    values: Tensor
    """All floating-point statistics in one vector; int counters follow from a whole copy."""
    is_live: bool
    """Whether it is of the last two moments, and not kept for a whole copy."""


class _Slot:
    """A moment's statistics, as tensors that lie in the file."""

    def __init__(self, memory: mmap.mmap, start: int, like: Sequence[Tensor]) -> None:
        self._memory = memory
        self._start = start
        self.tensors: list[Tensor] = []
        offset = start + SLOT_START
        for tensor in like:
            view = torch.frombuffer(
                memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset
            ).view(tensor.shape)
            self.tensors.append(view)
            offset += tensor.numel() * tensor.element_size()

    def clear(self) -> None:
        self._memory[self._start : self._start + len(MAGIC)] = bytes(len(MAGIC))

    def finish(self, *numbers: int) -> None:
        packed = SLOT.pack(MAGIC, *numbers)
        begin = self._start + len(MAGIC)
        self._memory[begin : self._start + SLOT.size] = packed[len(MAGIC) :]
        self._memory[self._start : begin] = MAGIC

    def numbers(self) -> tuple[int, ...]:
        return SLOT.unpack(self._memory[self._start : self._start + SLOT.size])[1:]


class StatisticsFile:
    """Writes the file of this rank. ``like`` are the statistics of its networks, or tensors of
    their shapes: the counters first, because integers must be aligned, then the floats.

    What an earlier attempt left in ``path`` stays until :meth:`publish`.
    """

    def __init__(
        self,
        path: Path,
        attempt: int,
        rank: int,
        world_size: int,
        like: Sequence[Tensor],
    ) -> None:
        counter_bytes = sum(
            tensor.numel() * tensor.element_size()
            for tensor in like
            if not tensor.is_floating_point()
        )
        values = sum(tensor.numel() for tensor in like if tensor.is_floating_point())
        self._identity = (attempt, rank, world_size, counter_bytes, values)
        slot = SLOT_START + counter_bytes + 4 * values
        slot = -(-slot // SLOT_START) * SLOT_START
        self._path = path
        memory = _mapped(self._draft, slot * (len(LIVE) + len(PINNED)))
        self._slots = [_Slot(memory, slot * at, like) for at in (*LIVE, *PINNED)]
        self._number = 0
        self._live = LIVE[0]
        self._pinned = PINNED[0]

    @property
    def _draft(self) -> Path:
        return self._path.with_name(f"draft-{self._path.name}")

    def publish(self) -> None:
        """Take the place of the file of an earlier attempt; once a first moment is in this one."""
        self._draft.replace(self._path)

    def begin(self) -> list[Tensor]:
        """Where to copy the statistics of the next moment to: counters, then floats."""
        slot = self._slots[self._next_live()]
        slot.clear()
        return slot.tensors

    def finish(self, step: int) -> None:
        """What was copied since :meth:`begin` is that after ``step`` steps."""
        self._live = self._next_live()
        self._number += 1
        self._finish(self._live, step)

    def newest(self) -> list[Tensor]:
        """The statistics of the last moment: counters, then floats."""
        return self._slots[self._live].tensors

    def pin(self, step: int) -> None:
        """Keep those of the last moment until two more are kept."""
        self._pinned = PINNED[1] if self._pinned == PINNED[0] else PINNED[0]
        slot = self._slots[self._pinned]
        slot.clear()
        for view, value in zip(slot.tensors, self.newest(), strict=True):
            view.copy_(value)
        self._finish(self._pinned, step)

    def _next_live(self) -> int:
        return LIVE[1] if self._live == LIVE[0] else LIVE[0]

    def _finish(self, slot: int, step: int) -> None:
        attempt, rank, world_size, counter_bytes, values = self._identity
        numbers = (self._number, attempt, step, rank, world_size, counter_bytes, values)
        self._slots[slot].finish(*numbers)


def read_statistics(path: Path) -> list[RankStatistics]:
    """What a rank of an earlier attempt has left, in memory of its own; empty where nothing is."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    found = []
    start = 0
    slots = len(LIVE) + len(PINNED)
    size = len(content) // slots
    for at in range(slots):
        start = at * size
        if size < SLOT_START or content[start : start + len(MAGIC)] != MAGIC:
            continue
        number, attempt, step, rank, world, counter_bytes, values = SLOT.unpack_from(
            content, start
        )[1:]
        begin = SLOT_START + counter_bytes
        if begin + 4 * values > size:
            continue
        floats = torch.zeros(0)
        if values:
            floats = torch.frombuffer(
                bytearray(content[start + begin : start + begin + 4 * values]), dtype=torch.float32
            )
        found.append(RankStatistics(attempt, step, rank, world, number, floats, at in LIVE))
    return found


def _mapped(path: Path, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        # Memory that is full is an error here instead of a bus error later.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
