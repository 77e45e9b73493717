"""WebDataset shards: tar files in which the members of a sample lie together and share their name
up to the first dot.

The shards are indexed once, at the start: where each image lies, and its class. From then on every
sample is one positioned read, in any order, by any process.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import Remote, is_url, place

from .base import Splits
from .encoded import both_splits
from .imagelist import listed_names
from .shardindex import Found, Index, remembered
from .shardnames import find_shards
from .tarindex import Member, ReadAt, Window, members

IMAGES = ("jpg", "jpeg", "png", "ppm", "webp", "bmp")
LABEL, DESCRIPTION = "cls", "json"
WINDOW = 4096
"""Bytes read at once while indexing: the end of one sample, its label and the header of the next.
"""
REMOTE_WINDOW = 1 << 22
"""The same in a store, where a request costs as much as a megabyte."""
THREADS = 8
"""Shards indexed side by side, which pays where each read waits for a network."""
MOST_OPEN = 128
"""Shards that one thread keeps open."""


class Shards:
    """Samples in shards, 20 bytes of memory for each."""

    def __init__(self, paths: list[str], index: Index) -> None:
        self._paths, self._open = paths, _Descriptors(paths)
        self._ends, self._offsets, self._sizes, self._labels = index

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def classes(self) -> int:
        """One more than the largest class number."""
        return int(self._labels.max()) + 1

    def name(self, index: int) -> str:
        """The shard, and where in it the image begins."""
        return f"{self._paths[self._shard(index)]} at offset {self._offsets[index]}"

    def label(self, index: int) -> int:
        """The class that was read with the index."""
        return int(self._labels[index])

    def read(self, index: int) -> bytes:
        """The image; DataError when its shard became shorter, InputMissing when it is gone."""
        shard, size = self._shard(index), int(self._sizes[index])
        try:
            data = self._bytes(shard, int(self._offsets[index]), size)
        except FileNotFoundError:
            raise InputMissing(
                f"data.path: {self._paths[shard]} was there at the start and is gone"
            ) from None
        if len(data) != size:
            raise DataError(
                f"data.path: {self.name(index)}: {len(data)} of {size} bytes; the shard was cut since"
            )
        return data

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        path = self._paths[shard]
        return (
            Remote(path).read_range(offset, size)
            if is_url(path)
            else os.pread(self._open(shard), size, offset)
        )

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, "right"))


class _Descriptors:
    """Shards open for reading. Each thread has its own; a fork shares them, which positioned reads
    do not mind.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths, self._local = paths, threading.local()

    def __call__(self, shard: int) -> int:
        known: dict[int, _Descriptor] | None = getattr(self._local, "known", None)
        if known is None:
            known = self._local.known = {}
        if shard not in known:
            if len(known) >= MOST_OPEN:
                del known[next(iter(known))]
            known[shard] = _Descriptor(self._paths[shard])
        return known[shard].number


class _Descriptor:
    """An open file that closes when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def open_shards(config: DataConfig, seed: int) -> Splits:
    """Both splits; raises InputMissing with what was looked for and found, DataError naming shard
    and offset.
    """
    root = place(config.path or "")
    train, val = find_shards(root, config)
    first, second = (Shards(paths, _indexed(paths, config.label_key)) for paths in (train, val))
    for paths, shards in ((train, first), (val, second)):
        if not len(shards):
            raise DataError(
                f"data.path: {paths[0]} and the {len(paths) - 1} shards with it hold no samples"
            )
    names = listed_names(root, max(first.classes, second.classes))
    return both_splits(first, second, names, config, seed)


def _indexed(paths: list[str], label_key: str | None) -> Index:
    def make() -> Index:
        with ThreadPoolExecutor(min(THREADS, len(paths)), "shard-index") as pool:
            return Index.of(list(pool.map(lambda path: _index_file(path, label_key), paths)))

    return remembered(paths, label_key, make)


def _index_file(path: str, label_key: str | None) -> Found:
    if is_url(path):
        return _index_object(Remote(path), label_key)
    file = _Descriptor(path)
    length = os.fstat(file.number).st_size
    return search(
        lambda offset, count: os.pread(file.number, count, offset), length, path, label_key
    )


def _index_object(shard: Remote, label_key: str | None) -> Found:
    length = shard.size()

    def read(offset: int, count: int) -> bytes:
        # Stores refuse to read behind the end.
        count = min(count, length - offset)
        return shard.read_range(offset, count) if count > 0 else b""

    return search(read, length, str(shard), label_key, REMOTE_WINDOW)


def search(
    read: ReadAt, length: int, shard: str, label_key: str | None, window: int = WINDOW
) -> Found:
    """Where the images of one shard lie and what they show: by member ``cls``, or by a key of
    member ``json``.
    """
    through = Window(read, window)
    found = Found(array("q"), array("q"), array("i"))
    for sample in _samples(
        through, members(through, length, shard), shard, DESCRIPTION if label_key else LABEL
    ):
        image = sample.image()
        found.labels.append(sample.label(label_key))
        found.offsets.append(image.offset)
        found.sizes.append(image.size)
    return found


@dataclass
class _Sample:
    """Members that follow one another and share their key, by their extensions in small letters."""

    shard: str
    key: str
    parts: dict[str, Member] = field(default_factory=dict)
    text: bytes | None = None
    """What the member with the label holds."""

    def image(self) -> Member:
        images = [extension for extension in self.parts if extension in IMAGES]
        if len(images) == 1:
            return self.parts[images[0]]
        if images:
            raise self.wrong(f"has {len(images)} images: {', '.join(images)}; write one per sample")
        raise self.wrong(
            f"has no image ({', '.join(IMAGES)}) but {', '.join(self.parts)}; the members of a sample must follow one "
            "another in the shard"
        )

    def label(self, label_key: str | None) -> int:
        if self.text is None:
            raise self.wrong(self._without_label(label_key))
        value = self.text if label_key is None else _value(self.text, label_key)
        number = _number(value)
        if number is None:
            where = (
                LABEL if label_key is None else f"{DESCRIPTION}, key {label_key!r} (data.labelKey),"
            )
            raise self.wrong(
                f"has in {where} no class number but {value!r:.60}; write a whole number from 0 on"
            )
        return number

    def wrong(self, what: str) -> DataError:
        first = min(part.offset for part in self.parts.values())
        return DataError(f"data.path: sample {self.key!r} of {self.shard} (offset {first}) {what}")

    def _without_label(self, label_key: str | None) -> str:
        wanted, remedy = LABEL, "write its class number into a member of that name"
        if label_key is not None:
            wanted = DESCRIPTION
            remedy = f"leave out data.labelKey to take {LABEL}" if LABEL in self.parts else remedy
        elif DESCRIPTION in self.parts:
            remedy = (
                f"set data.labelKey to the key of its {DESCRIPTION} that holds the class number"
            )
        return f"has no {wanted} but {', '.join(self.parts)}; {remedy}"


def _samples(read: ReadAt, found: Iterable[Member], shard: str, labels: str) -> Iterator[_Sample]:
    sample: _Sample | None = None
    for member in found:
        key, extension = _split(member.name)
        if not extension:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(shard, key)
        if extension in sample.parts:
            raise sample.wrong(
                f"has two members {extension}; samples need different names up to the first dot"
            )
        sample.parts[extension] = member
        if extension == labels:
            # Now, while its neighbourhood has just been read.
            sample.text = read(member.offset, member.size)
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    """``a/b.seg.png`` to ``a/b`` and ``seg.png``; no extension for what belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    about_the_shard = stem.startswith("__") and stem.endswith("__")
    return f"{folder}{slash}{stem}", "" if about_the_shard or not stem else extension.lower()


def _value(text: bytes, label_key: str) -> object:
    try:
        return json.loads(text)[label_key]
    except (ValueError, KeyError, TypeError):
        return None


def _number(value: object) -> int | None:
    """A class number, as it is or as text."""
    if isinstance(value, bytes | str):
        try:
            value = int(value)
        except ValueError:
            return None
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
        else None
    )
