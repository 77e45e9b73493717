"""The fingerprint of a split: names, classes and sizes of its samples, and not where it is mounted.

A training that goes on must find the samples that it began with, in the same order, and may find
them at another path or in a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inception_trainer.storage import patiently
from inception_trainer.stores import Remote, is_url, place

from .base import Dataset
from .build import EvenSubset
from .cifar import Cifar
from .encoded import EncodedImages
from .files import Files
from .shards import Shards

SIZES = 32
"""Files whose sizes are asked for: a million questions would take minutes on a network's disk."""
THREADS = 8
BLOCK = 8192
"""Names that are hashed at once."""
GONE = -1


def fingerprint(split: Dataset, path: str | None) -> str:
    """The fingerprint of a split of what lies at ``path`` (``data.path``)."""
    root = "" if path is None else str(place(path)).rstrip("/")
    # How many images of it are looked at is no part of what the data are.
    whole = split._whole if isinstance(split, EvenSubset) else split  # noqa: SLF001
    digest = hashlib.sha256()
    for part in _parts(whole, root):
        digest.update(part)
    return digest.hexdigest()[:32]


def _parts(split: Dataset, root: str) -> Iterator[bytes]:
    """All that makes a split what it is."""
    if isinstance(split, EncodedImages):
        samples = split.source
        if isinstance(samples, Shards):
            yield from _of_shards(samples, root)
            return
        if isinstance(samples, Files):
            yield from samples.content(root)
        else:
            yield from of_names(len(samples), samples.name, samples.label, root)
        yield from of_sizes(len(samples), samples.name)
    elif isinstance(split, Cifar):
        # The files' names say less than what is in them, which is in memory.
        yield split._labels.numpy().astype("<i8").tobytes()  # noqa: SLF001
        yield split._images.numpy().tobytes()  # noqa: SLF001
    else:
        # What is generated, or comes with the image, is the same where there is as much of it.
        yield f"{type(split).__name__} {len(split)}".encode()


def _of_shards(shards: Shards, root: str) -> Iterator[bytes]:
    for path in shards._paths:  # noqa: SLF001
        yield f"{path.removeprefix(root)}\n".encode("utf-8", "surrogateescape")
    # The index knows places, sizes and classes of all samples. In one order of bytes.
    for name in ("_ends", "_offsets", "_sizes", "_labels"):
        yield getattr(shards, name).astype("<i8").tobytes()


def of_names(
    count: int, name: Callable[[int], str], label: Callable[[int], int], root: str
) -> Iterator[bytes]:
    """A line for each sample, in their order: its name below ``root``, and its class."""
    for start in range(0, count, BLOCK):
        numbers = range(start, min(start + BLOCK, count))
        lines = "".join(f"{name(at).removeprefix(root)}\t{label(at)}\n" for at in numbers)
        yield lines.encode("utf-8", "surrogateescape")


def of_sizes(count: int, name: Callable[[int], str]) -> Iterator[bytes]:
    """The sizes of some files, spread evenly over all."""
    chosen = range(count) if count <= SIZES else [count * at // SIZES for at in range(SIZES)]
    with ThreadPoolExecutor(THREADS, "sizes") as pool:
        for size in pool.map(lambda at: _size(name(at)), chosen):
            yield f"{size}\n".encode()


def _size(path: str) -> int:
    def ask() -> int:
        return Remote(path).size() if is_url(path) else Path(path).stat().st_size

    try:
        return patiently(ask, path)
    except FileNotFoundError:
        # Whoever reads it will say so.
        return GONE
