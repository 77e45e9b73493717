"""The data kind WebDataset: tar files (shards) in which the members of a sample lie together and
share their name up to the first dot.

The shards are indexed once, at the start: where each image lies, and its class. From then on every
sample is one positioned read, in any order, by any process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.launcher import json_text
from inception_trainer.storage import read_data
from inception_trainer.stores import AnyPath, Remote, is_url, place

from .base import Samples, Splits
from .counter_rng import hashes
from .encoded import both_splits
from .files import LARGEST_FILE, check_size
from .held_out import hold_out
from .ignored import IMAGE_SUFFIXES, LITTER, Ignored, is_hidden
from .imagelist import listed_names
from .lists import MOST_CLASSES
from .shardindex import Index, ShardIndex, cached_index
from .shardnames import find_shards
from .tarindex import Member, ReadAt, Window, members

IMAGES = ("jpg", "jpeg", "png", "ppm", "webp", "bmp")
"""What the image of a sample is called as a rule. Where there is none of these it may be of any
other kind; beside one of these, other kinds are masks and the like.
"""
OTHER_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES if suffix[1:] not in IMAGES)
LABEL, DESCRIPTION = "cls", "json"
WINDOW = 4096
"""Bytes read at once while indexing: the end of one sample, its label and the header of the next.
"""
REMOTE_WINDOW = 1 << 22
"""The same in a store, where a request costs as much as a megabyte."""
THREADS = 8
"""Shards indexed side by side, which pays where each read waits for a network."""
PIECE = 1 << 24
"""Bytes of a shard that are read at once where it is fetched as a whole."""
MOST_SHOWN = 6
"""Members of a sample that a message names."""
MOST_OPEN = 128
"""Shards that one thread keeps open."""


class Shards(Samples):
    """Samples in shards, 20 bytes of memory for each."""

    def __init__(self, paths: list[str], index: Index, root: str = "") -> None:
        self._paths = paths
        self._root = root
        self._open = _Descriptors(paths)
        self._ends, self._offsets, self._sizes, self._labels, _ = index

    @override
    def __len__(self) -> int:
        return len(self._offsets)

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._labels

    @override
    def name(self, index: int) -> str:
        """The shard, and where in it the image begins."""
        return f"{self._paths[self._shard(index)]} at offset {self._offsets[index]}"

    @override
    def label(self, index: int) -> int:
        return int(self._labels[index])

    @override
    def identities(self) -> NDArray[np.uint64]:
        """From the shard's path below the root, and where the image lies in it."""
        result = np.empty(len(self), np.uint64)
        first = 0
        for path, end in zip(self._paths, self._ends.tolist(), strict=True):
            name = os.fsencode(path.removeprefix(self._root.rstrip("/") + "/"))
            digest = hashlib.blake2b(name, digest_size=8).digest()
            key = np.uint64(int.from_bytes(digest, "little"))
            result[first:end] = hashes(key, self._offsets[first:end])
            first = end
        return result

    @override
    def fingerprinted(self) -> Iterator[bytes]:
        root = self._root.rstrip("/")
        for path in self._paths:
            yield os.fsencode(f"{path.removeprefix(root)}\n")
        # The index knows places, sizes and classes of all samples. In one order of bytes.
        for column in (self._ends, self._offsets, self._sizes, self._labels):
            yield column.astype("<i8").tobytes()

    @override
    def size(self, index: int) -> int:
        return int(self._sizes[index])

    @override
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises DataError when its shard became shorter, InputMissing when it is gone.
        """
        shard = self._shard(index)
        size = int(self._sizes[index])
        check_size(size)
        try:
            data = self._bytes(shard, int(self._offsets[index]), size)
        except FileNotFoundError:
            raise InputMissing(
                f"data.path: {self._paths[shard]} was there at the start and is gone"
            ) from None
        if len(data) != size:
            raise DataError(
                f"data.path: {self.name(index)}: {len(data)} of {size} bytes; "
                "the shard was cut since"
            )
        return data

    @override
    def stretches(self) -> int:
        return len(self._paths)

    @override
    def read_stretch(self, number: int) -> Iterator[tuple[int, bytes]]:
        first = int(self._ends[number - 1]) if number else 0
        ends = self._offsets + self._sizes
        while first < self._ends[number]:
            start = int(self._offsets[first])
            # As many whole images as fit into a piece, one at least.
            fitting = int(np.searchsorted(ends[first : self._ends[number]], start + PIECE, "right"))
            last = first + max(1, fitting)
            data = self._piece(number, start, int(ends[last - 1]) - start)
            for index in range(first, last):
                at, size = int(self._offsets[index]) - start, int(self._sizes[index])
                # Of a shard that was cut meanwhile, reading the image itself tells.
                if at + size <= len(data):
                    yield index, data[at : at + size]
            first = last

    def _piece(self, shard: int, start: int, size: int) -> bytes:
        # One huge member is no image, and is left to whoever reads it as one.
        if size > max(PIECE, LARGEST_FILE):
            return b""
        return read_data(lambda: self._bytes(shard, start, size), self._paths[shard])

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        path = self._paths[shard]
        if is_url(path):
            return Remote(path).read_range(offset, size)
        try:
            # Positioned: the workers of a rank share the file's position after their fork.
            return os.pread(self._open(shard), size, offset)
        except OSError:
            # After ESTALE only another opening helps.
            self._open.forget(shard)
            raise

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, "right"))


class _Descriptors:
    """Shards open for reading. Each thread has its own; a fork shares them, which positioned reads
    do not mind.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        self._local = threading.local()

    def __call__(self, shard: int) -> int:
        opened: dict[int, _Descriptor] | None = getattr(self._local, "opened", None)
        if opened is None:
            opened = self._local.opened = {}
        if shard not in opened:
            # The oldest goes first: a job of 10,000 shards must not run out of descriptors.
            if len(opened) >= MOST_OPEN:
                del opened[next(iter(opened))]
            opened[shard] = _Descriptor(self._paths[shard])
        return opened[shard].number

    def forget(self, shard: int) -> None:
        """Let the next read of this thread open the shard again."""
        opened: dict[int, _Descriptor] = getattr(self._local, "opened", {})
        opened.pop(shard, None)


class _Descriptor:
    """An open file that closes when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def open_shards(config: DataConfig, seed: int) -> Splits:
    """Both splits.

    Raises InputMissing with what was looked for and found, DataError naming shard and offset.
    """
    root = place(config.path or "")
    ignored = Ignored()
    train_paths, val_paths = find_shards(root, config, ignored)
    train: Samples = _open(root, train_paths, config.label_key, ignored)
    val: Samples
    if config.held_out_share is None:
        val = _open(root, val_paths, config.label_key, ignored)
    else:
        train, val = hold_out(train, config.held_out_share)
    names = listed_names(root, 1 + max(int(split.classes.max()) for split in (train, val)))
    return both_splits(train, val, names, config, seed, ignored.lines())


def _open(root: AnyPath, paths: list[str], label_key: str | None, ignored: Ignored) -> Shards:
    index = _index(paths, label_key)
    for shard in np.flatnonzero(index.hidden).tolist():
        name = paths[shard].rpartition("/")[2]
        ignored.hide(f"members of {name}", int(index.hidden[shard]))
    shards = Shards(paths, index, str(root))
    if not len(shards):
        raise DataError(
            f"data.path: {paths[0]} and the {len(paths) - 1} shards with it hold no samples"
        )
    return shards


def _index(paths: list[str], label_key: str | None) -> Index:
    def make() -> Index:
        with ThreadPoolExecutor(min(THREADS, len(paths)), "shard-index") as pool:
            return Index.of(list(pool.map(lambda path: _index_file(path, label_key), paths)))

    return cached_index(paths, label_key, make)


def _index_file(path: str, label_key: str | None) -> ShardIndex:
    if is_url(path):
        return _index_object(Remote(path), label_key)
    file = _Descriptor(path)
    length = os.fstat(file.number).st_size
    return search(
        lambda offset, count: os.pread(file.number, count, offset), length, path, label_key
    )


def _index_object(shard: Remote, label_key: str | None) -> ShardIndex:
    length = shard.size()

    def read(offset: int, count: int) -> bytes:
        # Stores refuse to read behind the end.
        count = min(count, length - offset)
        return shard.read_range(offset, count) if count > 0 else b""

    return search(read, length, str(shard), label_key, REMOTE_WINDOW)


def search(
    read: ReadAt, length: int, shard: str, label_key: str | None, window: int = WINDOW
) -> ShardIndex:
    """Where the images of one shard lie and what they show: by member ``cls``, or by a key of
    member ``json``.
    """
    through = Window(read, window)
    index = ShardIndex(array("q"), array("q"), array("i"))
    label_member = DESCRIPTION if label_key else LABEL
    seen = _Visible(members(through, length, shard))
    for sample in _samples(through, seen, shard, label_member):
        image = sample.image()
        index.labels.append(sample.label(label_key))
        index.offsets.append(image.offset)
        index.sizes.append(image.size)
    return index._replace(hidden=seen.hidden)


class _Visible:
    """The members that are not hidden; the others are counted."""

    def __init__(self, all_members: Iterable[Member]) -> None:
        self._members = all_members
        self.hidden = 0

    def __iter__(self) -> Iterator[Member]:
        for member in self._members:
            folder, _, name = member.name.rpartition("/")
            # Most samples lie in no folder, and there are millions of members.
            in_litter = folder and not LITTER.isdisjoint(folder.lower().split("/"))
            if in_litter or is_hidden(name):
                self.hidden += 1
            else:
                yield member


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
        images = images or [extension for extension in self.parts if extension in OTHER_IMAGES]
        if len(images) == 1:
            return self.parts[images[0]]
        if images:
            raise self.wrong(f"has {len(images)} images: {', '.join(images)}; write one per sample")
        raise self.wrong(
            f"has no image ({', '.join(IMAGES)}) but {self._members()}; "
            "the members of a sample must follow one another in the shard, and their names be the "
            "same up to the first dot"
        )

    def _members(self) -> str:
        # Where a dot is part of what samples are called, a whole shard is taken for one of them.
        some = list(self.parts)[:MOST_SHOWN]
        return ", ".join([*some, "..."] if len(self.parts) > len(some) else some)

    def label(self, label_key: str | None) -> int:
        if self.text is None:
            raise self.wrong(self._without_label(label_key))
        value = self.text if label_key is None else _value(self.text, label_key)
        number = _number(value)
        if number is None:
            where = LABEL
            if label_key is not None:
                where = f"{DESCRIPTION}, key {label_key!r} (data.labelKey),"
            raise self.wrong(
                f"has in {where} no class number but {value!r:.60}; write a whole number from 0 "
                f"to {MOST_CLASSES - 1}"
            )
        return number

    def wrong(self, what: str) -> DataError:
        first = min(part.offset for part in self.parts.values())
        return DataError(f"data.path: sample {self.key!r} of {self.shard} (offset {first}) {what}")

    def _without_label(self, label_key: str | None) -> str:
        missing = LABEL if label_key is None else DESCRIPTION
        remedy = "write its class number into a member of that name"
        # The label may well be there, only in the member that was not asked for.
        if label_key is not None and LABEL in self.parts:
            remedy = f"leave out data.labelKey to take {LABEL}"
        elif label_key is None and DESCRIPTION in self.parts:
            remedy = (
                f"set data.labelKey to the key of its {DESCRIPTION} that holds the class number"
            )
        return f"has no {missing} but {self._members()}; {remedy}"


def _samples(
    read: ReadAt, members_of_shard: Iterable[Member], shard: str, label_member: str
) -> Iterator[_Sample]:
    """Group the members of a shard by their key; ``label_member`` is the extension to read."""
    sample: _Sample | None = None
    for member in members_of_shard:
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
        if extension == label_member:
            # Now, while its neighbourhood is still in the window.
            sample.text = read(member.offset, member.size)
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    """``a/b.seg.png`` to ``a/b`` and ``seg.png``; no extension for what belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    # WebDataset keeps names such as __index__ for what is about the shard itself.
    about_the_shard = stem.startswith("__") and stem.endswith("__")
    if about_the_shard or not stem:
        extension = ""
    return f"{folder}{slash}{stem}", extension.lower()


def _value(text: bytes, label_key: str) -> object:
    try:
        return json_text.decode(text)[label_key]
    except (ValueError, KeyError, TypeError):
        return None


def _number(value: object) -> int | None:
    """A class number, as it is or as text."""
    if isinstance(value, bytes | str):
        try:
            value = int(value)
        except ValueError:
            return None
    # JSON's true is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < MOST_CLASSES else None
