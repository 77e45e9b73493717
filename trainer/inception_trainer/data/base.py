"""The interface between datasets and training: batches, splits, and the protocol of a dataset.

A dataset is addressed by sample numbers, which :mod:`.sampler` chooses; it never decides on an
order itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config.normalization import IMAGENET, Normalization

from .augment import Augment, Pending
from .counter_rng import Indices

UNREADABLE = -100
"""Label of an image that could not be read: the loss ignores it (torch's ``ignore_index``)."""


class UnreadableImage(Exception):  # noqa: N818 - it says what there is, as the errors for people do
    """An image whose bytes are there but make no picture; the text says why.

    It ends nothing by itself: such images are named, counted and skipped up to ``data.maxCorrupt``.
    """


class Batch(NamedTuple):
    """``images`` uint8 ``[n, 1 or 3, side, side]`` and ``labels`` int64 ``[n]``, both in host
    memory as the dataset makes them.
    """

    images: Tensor
    labels: Tensor
    pending: Pending | None = None
    """What the dataset has left to whoever computes with the images."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, for copies; :meth:`of` puts them together again."""
        return (self.images, self.labels, *(self.pending or ()))

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, *pending: Tensor) -> Batch:
        """A batch of what :meth:`tensors` gave."""
        return cls(images, labels, Pending(*pending) if pending else None)


class Samples(Protocol):
    """Where encoded images and their labels lie; used by several processes after a fork."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages call the image: its path, or its place in a shard."""
        ...

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class index of every image, ``[n]``."""
        ...

    def label(self, index: int) -> int:
        """The class index of the image."""
        ...

    def identities(self) -> NDArray[np.uint64]:
        """A number for every image, ``[n]``, that follows from what it is called alone."""
        ...

    def fingerprinted(self) -> Iterator[bytes]:
        """What all images are called below the root, and their classes, in their order: for a
        digest, and without a word about each of a million, since every attempt waits for it.
        """
        ...

    def size(self, index: int) -> int:
        """How many bytes the image has as it is stored; FileNotFoundError when it is gone."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of the image."""
        ...

    def stretches(self) -> int:
        """How many groups of images lie together, as in a shard, and are best read at once."""
        return 0

    def read_stretch(self, number: int) -> Iterator[tuple[int, bytes]]:
        """The images of such a group and their numbers, a few megabytes of them in memory."""
        yield from ()


class Dataset(Protocol):
    """One split of a data set, addressed by sample numbers."""

    augment: Augment | None
    """Extra augmentation from ``augmentation``, applied after the dataset's own."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> NDArray[np.integer[Any]] | None:
        """The class index of every sample, ``[n]``; None where each is made as it is read."""
        return None

    def name(self, index: int) -> str:
        """What people call a validation sample; data sets in memory have no files to name."""
        return f"val/{index}"

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """The samples in this order; augmented for ``epoch``, or as they are when it is None."""
        ...

    def stream(
        self, batches: list[Indices], epoch: int | None
    ) -> AbstractContextManager[Iterator[Batch]]:
        """The batches one after the other, read ahead by loader workers where that pays."""
        ...

    def close(self) -> None:
        """Shut down the loader workers kept between epochs."""
        ...


@dataclass(frozen=True)
class Splits:
    """Training and validation split with what both share."""

    train: Dataset
    val: Dataset
    num_classes: int
    class_names: tuple[str, ...]
    normalization: Normalization = IMAGENET
    """What suits the data where no weights say otherwise."""
    ignored: tuple[str, ...] = ()
    """What was left out when the data was opened and why, and what else is odd about it: one line
    for each.
    """

    def close(self) -> None:
        """Shut down the loader workers of both splits."""
        self.train.close()
        self.val.close()
