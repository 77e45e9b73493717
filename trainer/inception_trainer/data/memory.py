"""Base of the small data sets that live in memory: a batch is an indexing operation, so nothing is
read ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from .augment import Augment
from .base import Batch, Dataset
from .counter_rng import Indices, uniforms

SHIFT_DIVISOR = 32
"""Images are shifted by up to one part in so many of their side."""


class InMemory(Dataset):
    """A split in memory; in training its images are shifted at random where ``shifts`` says so."""

    def __init__(self, length: int, seed: int, *, shifts: bool) -> None:
        self._length = length
        self._seed = seed
        self._shifts = shifts
        self.augment: Augment | None = None

    @override
    def __len__(self) -> int:
        return self._length

    def _read(self, indices: Indices) -> Batch:
        """The samples as they are stored."""
        raise NotImplementedError

    @override
    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        images, labels, _ = self._read(indices)
        # A rank may have no images to evaluate, and empty tensors have nothing to shift.
        if epoch is not None and self._shifts and len(indices):
            images = shift_images(images, uniforms(indices, self._seed, epoch, 2))
        if epoch is not None and self.augment is not None and len(indices):
            images = self.augment(images, indices, epoch)
        return Batch(images, labels)

    @override
    @contextmanager
    def stream(self, batches: list[Indices], epoch: int | None) -> Iterator[Iterator[Batch]]:
        yield (self.batch(indices, epoch) for indices in batches)

    @override
    def close(self) -> None:
        # No loader workers were started.
        pass


def shift_images(images: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Move each image ``[n, c, h, w]`` by up to 1/32 of its side; uncovered borders become 0.

    ``draws`` ``[n, 2]`` are uniform numbers in [0, 1) for rows and columns.
    """
    reach = max(1, images.shape[-1] // SHIFT_DIVISOR)
    offsets = torch.from_numpy((draws * (2 * reach + 1)).astype(np.int64))
    padded = functional.pad(images, (reach,) * 4)
    # One indexing operation for the whole batch, [n, 1, h, 1] and [n, 1, 1, w] being broadcast.
    rows = offsets[:, :1] + torch.arange(images.shape[-2])
    columns = offsets[:, 1:] + torch.arange(images.shape[-1])
    sample = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
