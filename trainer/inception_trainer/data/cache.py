"""Keeps encoded samples near that were read once (``data.cache``): in memory or on a disk of this
machine, up to a size.

Nothing is ever thrown out for something else. Every epoch reads every sample once, in another
order: what was read last is no more likely to be read next, and a cache that follows that order
would throw out everything before it is asked for again.

The memory and the file belong to one rank and are shared by its loader workers, which are forked
from it. They have no name, so they are gone with the last of these processes, whatever ends it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.data import CacheConfig
from inception_trainer.log import logger

from .base import Samples

MEBIBYTE = 2**20
UNIT = 64
"""Samples begin at multiples of so many bytes, so that one word holds where a sample lies."""
SIZE_BITS = 26
AREA_BIT = 1 << SIZE_BITS
LARGEST = AREA_BIT - 1
"""Bytes of the largest sample that is kept, 64 MiB."""


class Area:
    """A file without a name that grows up to ``limit`` bytes; several processes append to it."""

    def __init__(self, descriptor: int, limit: int, what: str) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._what = what
        # Shared with the processes that are forked from this one.
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)

    @classmethod
    def in_memory(cls, limit: int) -> Area:
        """In memory, which counts as that of the pod."""
        return cls(os.memfd_create("inception-cache"), limit, "memory")

    @classmethod
    def on_disk(cls, limit: int) -> Area:
        """In the folder for temporary files."""
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()), limit, tempfile.gettempdir())

    def __del__(self) -> None:
        os.close(self._descriptor)

    @property
    def used(self) -> int:
        """Bytes that are taken, gaps included."""
        return int(self._used[0])

    def append(self, data: bytes) -> int | None:
        """The unit at which ``data`` lies now; None where there is no room."""
        with self._locked():
            start = self.used
            stop = start + -(-len(data) // UNIT) * UNIT
            if stop > self._limit:
                return None
            self._used[0] = stop
        try:
            done = os.pwrite(self._descriptor, data, start)
        except OSError as error:
            self._close(error.strerror or "cannot be written")
            return None
        if done < len(data):
            self._close("no room is left")
            return None
        return start // UNIT

    def read(self, unit: int, size: int) -> bytes:
        """Bytes that were appended."""
        return os.pread(self._descriptor, size, unit * UNIT)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock of the process, not of the file: it goes when the process is killed.
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _close(self, reason: str) -> None:
        """Take nothing more: a cache is never worth a failed training."""
        with self._locked():
            is_first, self._used[0] = self.used < self._limit, self._limit
        if is_first:
            logger.warning("data.cache: no more is kept in %s: %s", self._what, reason)


def areas(config: CacheConfig) -> list[Area]:
    """Memory first, then the disk; empty where nothing is to be kept."""
    found = []
    if config.memory_mebibytes is not None:
        found.append(Area.in_memory(config.memory_mebibytes * MEBIBYTE))
    if config.disk_mebibytes is not None:
        found.append(Area.on_disk(config.disk_mebibytes * MEBIBYTE))
    return found


class CachedSamples(Samples):
    """``samples``, each read once as long as there is room."""

    def __init__(self, samples: Samples, areas: Sequence[Area]) -> None:
        """At most two ``areas``, the first of which is filled first."""
        self._samples = samples
        self._areas = areas
        # Where each sample lies, 0 for nowhere: unit + 1, area and size in one word, because only
        # a single word is written at once.
        self._words = np.frombuffer(mmap.mmap(-1, 8 * max(1, len(samples))), np.uint64)

    @override
    def __len__(self) -> int:
        return len(self._samples)

    @override
    def name(self, index: int) -> str:
        return self._samples.name(index)

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._samples.classes

    @override
    def label(self, index: int) -> int:
        return self._samples.label(index)

    @override
    def identities(self) -> NDArray[np.uint64]:
        return self._samples.identities()

    @override
    def fingerprinted(self) -> Iterator[bytes]:
        return self._samples.fingerprinted()

    @override
    def size(self, index: int) -> int:
        return self._samples.size(index)

    @override
    def read(self, index: int) -> bytes:
        word = int(self._words[index])
        if word:
            area = self._areas[int(bool(word & AREA_BIT))]
            data = area.read((word >> (SIZE_BITS + 1)) - 1, word & LARGEST)
            # A disk may lose what it was given.
            if len(data) == word & LARGEST:
                return data
        data = self._samples.read(index)
        self._keep(index, data)
        return data

    def _keep(self, index: int, data: bytes) -> None:
        if len(data) > LARGEST:
            return
        for number, area in enumerate(self._areas):
            unit = area.append(data)
            if unit is not None:
                word = (unit + 1) << (SIZE_BITS + 1) | number << SIZE_BITS | len(data)
                self._words[index] = word
                return


def cached(samples: Samples, areas: Sequence[Area]) -> Samples:
    """``samples`` through the cache, or as they are where there is none."""
    return CachedSamples(samples, areas) if areas else samples
