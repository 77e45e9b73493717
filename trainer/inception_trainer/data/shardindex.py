"""The index of a split's shards (where each image lies, and its class), cached in the temporary
folder.

Indexing ImageNet takes half a minute, and every rank of every attempt on a node needs the same
index. The cached copy is only a shortcut: its name is a hash of which shards, of which length and
age, it is about, and without it the shards are read again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from inception_trainer.stores import Remote, is_url

VERSION = 2
"""Of the file; part of its name, so that another version is never read."""
THREADS = 8
"""Shards whose length and age are asked for side by side."""


class ShardIndex(NamedTuple):
    """The samples of one shard in their order: bytes from the start, bytes, class numbers."""

    offsets: array[int]
    sizes: array[int]
    labels: array[int]
    hidden: int = 0
    """Members that are left out because of their names."""


class Index(NamedTuple):
    """The samples of all shards; ``ends`` says with which sample each shard ends, ``hidden`` how
    many members of each are left out.
    """

    ends: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int32]
    hidden: NDArray[np.int64]

    @classmethod
    def of(cls, shards: list[ShardIndex]) -> Index:
        """The samples of the shards, one shard after the other."""
        ends = np.cumsum([len(shard.labels) for shard in shards], dtype=np.int64)
        offsets = np.concatenate([np.array(shard.offsets, np.int64) for shard in shards])
        sizes = np.concatenate([np.array(shard.sizes, np.int64) for shard in shards])
        labels = np.concatenate([np.array(shard.labels, np.int32) for shard in shards])
        hidden = np.array([shard.hidden for shard in shards], np.int64)
        return cls(ends, offsets, sizes, labels, hidden)


def cached_index(paths: list[str], label_key: str | None, make: Callable[[], Index]) -> Index:
    """The index of these shards as another process has cached it, else a new one, cached for the
    next.
    """
    copy = folder() / f"inception-shards-{os.getuid()}-{_identity(paths, label_key)}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), copy.open("rb") as file:
        # Anybody may write into the temporary folder: only a file of this user is believed.
        if os.fstat(file.fileno()).st_uid == os.getuid():
            with np.load(file, allow_pickle=False) as arrays:
                return Index(*(arrays[name] for name in Index._fields))
    index = make()
    with suppress(OSError):
        _write_whole(copy, index)
    return index


def folder() -> Path:
    """Where copies are cached: it lasts as long as the pod."""
    return Path(tempfile.gettempdir())


def _identity(paths: list[str], label_key: str | None) -> str:
    with ThreadPoolExecutor(THREADS, "shard-facts") as pool:
        facts = list(pool.map(_facts, paths))
    return hashlib.sha256(repr((VERSION, label_key, facts)).encode()).hexdigest()[:32]


def _facts(path: str) -> tuple[object, ...]:
    if is_url(path):
        return path, Remote(path).version()
    status = Path(path).stat()
    # The inode too: files that are unpacked again may keep their time and size.
    return path, status.st_size, status.st_mtime_ns, status.st_ino


def _write_whole(copy: Path, index: Index) -> None:
    # Ranks of a pod write at the same time: each a draft of its own, and the last one stays.
    descriptor, draft = tempfile.mkstemp(dir=copy.parent, prefix="inception-shards-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **index._asdict())
        Path(draft).replace(copy)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
