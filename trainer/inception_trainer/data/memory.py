"""Base of the small datasets that live in memory: a batch is an indexing operation, so there is
nothing to prefetch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .augment import Augment
from .base import Batch, Indices
from .order import uniforms


class InMemory:
    """Shifts by up to 1/32 of the side where ``shifts`` says so; ``augment`` is what the
    configuration adds.
    """

    def __init__(self, length: int, seed: int, *, shifts: bool) -> None:
        self._length, self._seed, self._shifts = length, seed, shifts
        self.augment: Augment | None = None

    def __len__(self) -> int:
        return self._length

    def _read(self, indices: Indices) -> Batch:
        raise NotImplementedError

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Index; shift and augment when an epoch is given."""
        images, labels = self._read(indices)
        if epoch is not None and self._shifts and len(indices):
            images = shifted(images, uniforms(indices, self._seed, epoch, 2))
        if epoch is not None and self.augment is not None and len(indices):
            images = self.augment(images, indices, epoch)
        return Batch(images, labels)

    @contextmanager
    def stream(self, batches: list[Indices], epoch: int | None) -> Iterator[Iterator[Batch]]:
        """The batches, made when they are asked for."""
        yield (self.batch(indices, epoch) for indices in batches)

    def close(self) -> None:
        """Nothing runs."""


def shifted(images: Tensor, draws: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Tensor:
    """Move each image ``[n, c, h, w]`` by up to 1/32 of its side; uncovered borders become 0."""
    reach = max(1, images.shape[-1] // 32)
    offsets = torch.from_numpy((draws * (2 * reach + 1)).astype(np.int64))
    padded = functional.pad(images, (reach,) * 4)
    rows = offsets[:, :1] + torch.arange(images.shape[-2])
    columns = offsets[:, 1:] + torch.arange(images.shape[-1])
    sample = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
