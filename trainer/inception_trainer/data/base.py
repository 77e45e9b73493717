"""What a dataset is to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config.normalization import IMAGENET, Normalization

if TYPE_CHECKING:
    from .augment import Augment

Indices = NDArray[np.int64]
UNREADABLE = -100
"""Label of an image that could not be read: the loss ignores it (torch's default ``ignore_index``).
"""


class Batch(NamedTuple):
    """``images`` uint8 ``[n, 1 or 3, side, side]`` and ``labels`` int64 ``[n]``, both in host
    memory.
    """

    images: Tensor
    labels: Tensor


class Dataset(Protocol):
    """One split, addressed by index."""

    augment: Augment | None
    """What ``augmentation`` does to the images of a batch for an epoch, beside what their kind
    always has done.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """The samples in this order; augmented for ``epoch``, or as they are when it is None."""
        ...

    def stream(
        self, batches: list[Indices], epoch: int | None
    ) -> AbstractContextManager[Iterator[Batch]]:
        """The batches one after the other, read ahead where that pays."""
        ...

    def close(self) -> None:
        """End what streams keep for one another."""
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
        """End what both splits keep running."""
        self.train.close()
        self.val.close()
