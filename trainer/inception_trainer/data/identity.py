"""The fingerprint of a split: names, classes and sizes of its samples, and not where it is mounted.

A training that goes on must find the samples that it began with, in the same order, and may find
them at another path or in a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from inception_trainer.storage import patiently

from .base import Dataset, Samples
from .build import EvenSubset
from .cifar import Cifar
from .encoded import EncodedImages

SIZES = 32
"""Images whose sizes are asked for: a million questions would take minutes on a network's disk."""
THREADS = 8
GONE = -1


def fingerprint(split: Dataset) -> str:
    """The fingerprint of a split."""
    # How many images of it are looked at is no part of what the data are.
    whole = split._whole if isinstance(split, EvenSubset) else split  # noqa: SLF001
    digest = hashlib.sha256()
    for part in _parts(whole):
        digest.update(part)
    return digest.hexdigest()[:32]


def _parts(split: Dataset) -> Iterator[bytes]:
    """All that makes a split what it is."""
    if isinstance(split, EncodedImages):
        yield from split.source.fingerprinted()
        yield from _sizes(split.source)
    elif isinstance(split, Cifar):
        # The files' names say less than what is in them, which is in memory.
        yield split._labels.numpy().astype("<i8").tobytes()  # noqa: SLF001
        yield split._images.numpy().tobytes()  # noqa: SLF001
    else:
        # What is generated, or comes with the image, is the same where there is as much of it.
        yield f"{type(split).__name__} {len(split)}".encode()


def _sizes(samples: Samples) -> Iterator[bytes]:
    """The sizes of some images, spread evenly over all."""
    count = len(samples)
    chosen = range(count) if count <= SIZES else [count * at // SIZES for at in range(SIZES)]
    with ThreadPoolExecutor(THREADS, "sizes") as pool:
        for size in pool.map(lambda at: _size(samples, at), chosen):
            yield f"{size}\n".encode()


def _size(samples: Samples, index: int) -> int:
    try:
        return patiently(lambda: samples.size(index), samples.name(index))
    except OSError:
        # It is gone, or a link to itself, or may not be read: whoever reads it will say so.
        return GONE
