"""The interface between datasets and training: batches, splits, and the protocol of a dataset.

A dataset is addressed by sample numbers, which :mod:`.sampler` chooses; it never decides on an
order itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from inception_trainer.config.normalization import IMAGENET, Normalization

from .augment import Augment
from .counter_rng import Indices

UNREADABLE = -100
"""Label of an image that could not be read: the loss ignores it (torch's ``ignore_index``)."""


class UnreadableImage(Exception):  # noqa: N818 - it says what there is, as the errors for people do
    """An image whose bytes are there but make no picture; the text says why.

    It ends nothing by itself: such images are named, counted and skipped up to ``data.maxCorrupt``.
    """


class Batch(NamedTuple):
    """``images`` uint8 ``[n, 1 or 3, side, side]`` and ``labels`` int64 ``[n]``, both in host
    memory.
    """

    images: Tensor
    labels: Tensor


class Dataset(Protocol):
    """One split of a data set, addressed by sample numbers."""

    augment: Augment | None
    """Extra augmentation from ``augmentation``, applied after the dataset's own."""

    def __len__(self) -> int: ...

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

    def close(self) -> None:
        """Shut down the loader workers of both splits."""
        self.train.close()
        self.val.close()
