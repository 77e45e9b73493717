"""Keeps encoded samples near that were read once (``data.cache``): in memory or on a disk of this
machine, up to a size.

Nothing is ever thrown out for something else. Every epoch reads every sample once, in another
order: what was read last is no more likely to be read next, and a cache that follows that order
would throw out everything before it is asked for again.

What is kept are the bytes as they are stored, not pixels: a decoded picture takes ten times the
room, and JPEG files are decoded smaller by the crop that is drawn for them.

Memory and file are shared by all processes that are forked from the one that made them. In a pod
that is the launcher's fork server (:func:`reserve`): its ranks, their loader workers and the ranks
of the attempts that follow have one cache together, which matters since every epoch gives a rank
other samples. A rank that is started otherwise has its own. Neither has a name, so they are gone
with the last of these processes, whatever ends it, and nothing has to be swept up.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.data import CacheConfig
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from .base import Samples
from .cache_fill import Filler

MEBIBYTE = 2**20
UNIT = 64
"""Samples begin at multiples of so many bytes, so that one word holds where a sample lies."""
SIZE_BITS = 26
AREA_BIT = 1 << SIZE_BITS
LARGEST = AREA_BIT - 1
"""Bytes of the largest sample that is kept, 64 MiB."""
LEAST_LEFT = 256 * MEBIBYTE
"""What a cache in memory must leave of the container's, as the operator has it."""
CGROUP = Path("/sys/fs/cgroup")
ENTRY = np.dtype([("start", np.int64), ("digest", np.uint64, 2)])
"""Of the directory of tables: where the table of a split begins, and which split it is."""


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
        with locked(self._descriptor):
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

    def _close(self, reason: str) -> None:
        """Take nothing more: a cache is never worth a failed training."""
        with locked(self._descriptor):
            is_first, self._used[0] = self.used < self._limit, self._limit
        if is_first:
            logger.warning("data.cache: no more is kept in %s: %s", self._what, reason)


_threads = threading.Lock()


def _unlock_after_fork() -> None:
    # A thread that held it is not in the child, and could not release it there.
    global _threads  # noqa: PLW0603 - the one way to a lock that nobody holds
    _threads = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Be the only thread of the only process that changes what belongs to a file."""
    with _threads:
        # A lock of the process, not of the file: it goes when the process is killed.
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)


class Room:
    """At most two areas, the first of which is filled first, and the tables that say where in them
    the samples lie.
    """

    def __init__(self, areas: Sequence[Area]) -> None:
        self.areas = areas
        self._descriptor = os.memfd_create("inception-cache-tables")
        os.ftruncate(self._descriptor, mmap.PAGESIZE)
        memory = mmap.mmap(self._descriptor, mmap.PAGESIZE)
        self._directory = np.frombuffer(memory, ENTRY, mmap.PAGESIZE // ENTRY.itemsize)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def locked(self) -> AbstractContextManager[None]:
        """Be the only thread of the only process that changes tables."""
        return locked(self._descriptor)

    def table(self, samples: Samples, kind: bytes, count: int) -> NDArray[np.uint64]:
        """So many words, 0 where nothing was written yet; the same ones for the same samples and
        the same use in every process.
        """
        digest = _digest(samples, kind, count)
        # Nothing cannot be mapped.
        size = max(1, count) * 8
        with self.locked():
            start = self._start(digest, size)
        if start is None:
            return np.frombuffer(mmap.mmap(-1, size), np.uint64)
        return np.frombuffer(mmap.mmap(self._descriptor, size, offset=start), np.uint64)

    def _start(self, digest: NDArray[np.uint64], size: int) -> int | None:
        """Where the table lies; None where there are so many that no other one can be told of."""
        for entry in self._directory:
            if (entry["digest"] == digest).all():
                return int(entry["start"])
            if not entry["digest"].any():
                # Tables begin at pages.
                start = -(-os.fstat(self._descriptor).st_size // mmap.PAGESIZE) * mmap.PAGESIZE
                os.ftruncate(self._descriptor, start + size)
                # The digest last: without it, as when this process is killed, nobody looks.
                entry["start"] = start
                entry["digest"] = digest
                return start
        return None


def _digest(samples: Samples, kind: bytes, count: int) -> NDArray[np.uint64]:
    """Of what the samples are called and of the use of a table: 128 bits."""
    digest = hashlib.blake2b(kind + count.to_bytes(8, "little"), digest_size=16)
    for part in samples.fingerprinted():
        digest.update(part)
    return np.frombuffer(digest.digest(), np.uint64)


_reserved: dict[CacheConfig, Room] = {}
"""What this process or the one that it was forked from has made for all that are forked from it."""


def reserve(config: CacheConfig) -> None:
    """Make the cache that all processes share that are forked from this one."""
    if _is_wanted(config):
        _reserved[config] = Room(_areas(config))


def room(config: CacheConfig) -> Room | None:
    """The cache that was reserved, else one of this rank; None where nothing is to be kept.

    Raises ConfigError where there can never be so much room.
    """
    if not _is_wanted(config):
        return None
    check(config)
    shared = _reserved.get(config)
    found = shared or Room(_areas(config))
    whose = "of the ranks of this pod" if shared else "of this rank alone"
    used = sum(area.used for area in found.areas) // MEBIBYTE
    logger.info("data.cache: %s, with %d MiB from attempts before", whose, used)
    return found


def _is_wanted(config: CacheConfig) -> bool:
    return config.memory_mebibytes is not None or config.disk_mebibytes is not None


def _areas(config: CacheConfig) -> list[Area]:
    """Memory first, then the disk."""
    found = []
    if config.memory_mebibytes is not None:
        found.append(Area.in_memory(config.memory_mebibytes * MEBIBYTE))
    if config.disk_mebibytes is not None:
        found.append(Area.on_disk(config.disk_mebibytes * MEBIBYTE))
    return found


def check(config: CacheConfig, cgroup: Path = CGROUP) -> None:
    """Raise ConfigError where memory or disk are smaller than the cache.

    Sizes are compared, not what is free just now: an attempt is refused always or never.
    """
    if config.memory_mebibytes is not None:
        most = _memory(cgroup)
        if config.memory_mebibytes * MEBIBYTE + LEAST_LEFT > most:
            raise ConfigError(
                f"data.cache.memoryMebibytes: {config.memory_mebibytes} MiB do not fit into the "
                f"{most // MEBIBYTE} MiB that this container may take, of which the training needs "
                f"{LEAST_LEFT // MEBIBYTE} MiB or more; lower it, or raise the memory limit"
            )
    if config.disk_mebibytes is not None:
        folder = tempfile.gettempdir()
        status = os.statvfs(folder)
        most = status.f_blocks * status.f_frsize
        if config.disk_mebibytes * MEBIBYTE > most:
            raise ConfigError(
                f"data.cache.diskMebibytes: {config.disk_mebibytes} MiB do not fit into {folder}, "
                f"which has {most // MEBIBYTE} MiB; lower it, or let TMPDIR name a larger folder"
            )


def _memory(cgroup: Path) -> int:
    """Bytes that this container may take."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # "max", or no second version of control groups.
    with suppress(OSError, ValueError):
        most = min(most, int((cgroup / "memory.max").read_text(encoding="ascii")))
    return most


class CachedSamples(Samples):
    """``samples``, each read once as long as there is room."""

    def __init__(self, samples: Samples, room: Room, fill: str = "OnRead") -> None:
        """``fill`` as ``data.cache.fill`` has it."""
        self._samples = samples
        # In the object that owns their files, which must last as long as this one.
        self._room = room
        # Where each sample lies, 0 for nowhere: unit + 1, area and size in one word, because only
        # a single word is written at once, after the sample itself.
        self._words = room.table(samples, b"samples", len(samples))
        self.filler: Filler | None = None
        """What fetches whole shards ahead."""
        if fill == "Shards" and samples.stretches():
            owners = room.table(samples, b"stretches", samples.stretches())
            self.filler = Filler(samples, self._keep, owners, room.locked)

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
        if self.filler is not None:
            self.filler.begin()
        word = int(self._words[index])
        if word:
            area = self._room.areas[int(bool(word & AREA_BIT))]
            # A disk may lose what it was given, or be unable to read it; the data is still there.
            with suppress(OSError):
                data = area.read((word >> (SIZE_BITS + 1)) - 1, word & LARGEST)
                if len(data) == word & LARGEST:
                    return data
        data = self._samples.read(index)
        self._keep(index, data)
        return data

    def _keep(self, index: int, data: bytes) -> bool:
        """Keep a sample, unless somebody has; False where there is no room for it."""
        if self._words[index] or len(data) > LARGEST:
            return True
        for number, area in enumerate(self._room.areas):
            unit = area.append(data)
            if unit is not None:
                word = (unit + 1) << (SIZE_BITS + 1) | number << SIZE_BITS | len(data)
                self._words[index] = word
                return True
        return False


def cached(samples: Samples, room: Room | None, fill: str = "OnRead") -> Samples:
    """``samples`` through the cache, or as they are where there is none."""
    return samples if room is None else CachedSamples(samples, room, fill)
