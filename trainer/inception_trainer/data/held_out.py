"""Holds out a share of the training images to evaluate on, for data that has none of its own.

Which images are held out follows from what they are called and from nothing else: not from the
seed, the order of the files or their number. So it is the same in every attempt, on every rank and
in mode Evaluate, and images that are added later move none of the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.errors import DataError

from .base import Samples
from .counter_rng import Indices

REMEDY = (
    "; without validation images of its own, data.heldOutShare holds out a share of the training "
    'images, for example "0.1"'
)
"""What errors about missing validation images say."""


def held_out(
    identities: NDArray[np.uint64], classes: NDArray[np.integer], share: float
) -> NDArray[np.bool_]:
    """True for the held-out samples: of each class the share with the smallest identities, rounded,
    at least one and never all.

    ``identities`` and ``classes`` have a number for each sample.
    """
    order = np.lexsort((identities, classes))
    _, first, sizes = np.unique(classes[order], return_index=True, return_counts=True)
    wanted = np.floor(share * sizes + 0.5).astype(np.int64)
    # A class with one image keeps it.
    wanted = np.clip(wanted, np.minimum(1, sizes - 1), sizes - 1)
    # Compared with the last identity that is wanted, not counted: a file that is listed twice must
    # not be on both sides.
    last = identities[order][first + np.maximum(wanted - 1, 0)]
    number = np.repeat(np.arange(len(sizes)), sizes)
    chosen = (identities[order] <= last[number]) & (wanted[number] > 0)
    all_of_class = np.add.reduceat(chosen.astype(np.int64), first) == sizes
    chosen &= ~all_of_class[number]
    result = np.zeros(len(order), np.bool_)
    result[order] = chosen
    return result


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Training and validation samples; DataError when no class has two images."""
    identities = samples.identities()
    chosen = held_out(identities, samples.classes, share)
    if not chosen.any():
        raise DataError(
            f"data.heldOutShare: none of the {len(samples)} images can be held out, because no "
            "class has two"
        )
    training, validation = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    return Part(samples, identities, training), Part(samples, identities, validation)


class Part(Samples):
    """Some of the samples of a whole, by their numbers there."""

    def __init__(self, whole: Samples, identities: NDArray[np.uint64], numbers: Indices) -> None:
        """``identities`` are those of the whole."""
        self._whole = whole
        self._numbers = numbers
        self._identities = identities[numbers]

    @override
    def __len__(self) -> int:
        return len(self._numbers)

    @override
    def name(self, index: int) -> str:
        return self._whole.name(int(self._numbers[index]))

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._whole.classes[self._numbers]

    @override
    def label(self, index: int) -> int:
        return self._whole.label(int(self._numbers[index]))

    @override
    def identities(self) -> NDArray[np.uint64]:
        return self._identities

    @override
    def fingerprinted(self) -> Iterator[bytes]:
        yield self._identities.astype("<u8").tobytes()
        yield self.classes.astype("<i8").tobytes()

    @override
    def size(self, index: int) -> int:
        return self._whole.size(int(self._numbers[index]))

    @override
    def read(self, index: int) -> bytes:
        return self._whole.read(int(self._numbers[index]))

    @override
    def stretches(self) -> int:
        return self._whole.stretches()

    @override
    def read_stretch(self, number: int) -> Iterator[tuple[int, bytes]]:
        for index, data in self._whole.read_stretch(number):
            # Numbers of the whole are in order.
            at = int(np.searchsorted(self._numbers, index))
            if at < len(self._numbers) and self._numbers[at] == index:
                yield at, data
