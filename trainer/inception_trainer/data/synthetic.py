"""Seeded images that no file is needed for: a pattern per class under noise, so that the loss can
fall.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inception_trainer.config.training import DataConfig

from .base import Batch, Indices, Splits
from .memory import InMemory
from .order import hashes, stream_key

COARSE = 8
NOISE = 0.35
"""Share of noise in a pixel."""
DEFAULT_CLASSES = 1000
VALIDATION_SHARE = 4
"""One validation sample for so many training samples."""


class Synthetic(InMemory):
    """Images are made when they are read: memory does not grow with the number of samples."""

    def __init__(self, length: int, first: int, classes: int, side: int, seed: int) -> None:
        super().__init__(length, seed, shifts=False)
        self._first, self._side, self._classes = first, side, classes
        generator = torch.Generator().manual_seed(seed)
        self._patterns = torch.rand(classes, 3, COARSE, COARSE, generator=generator)
        self._noise = torch.rand(3, 2 * side, 2 * side, generator=generator)

    def _read(self, indices: Indices) -> Batch:
        numbers = indices + self._first
        labels = torch.from_numpy(numbers % self._classes)
        if not len(indices):
            return Batch(torch.zeros(0, 3, self._side, self._side, dtype=torch.uint8), labels)
        clean = functional.interpolate(
            self._patterns[labels], size=(self._side,) * 2, mode="bilinear", align_corners=False
        )
        mixed = clean.mul_(1 - NOISE).add_(self._noise_of(numbers), alpha=NOISE)
        return Batch(mixed.mul_(255).to(torch.uint8), labels)

    def _noise_of(self, numbers: Indices) -> Tensor:
        draws = hashes(stream_key(self._seed, 3), numbers)
        corners = np.stack(
            (draws % np.uint64(self._side), (draws >> np.uint64(32)) % np.uint64(self._side)), 1
        )
        side = self._side
        return torch.stack(
            [self._noise[:, y : y + side, x : x + side] for y, x in corners.tolist()]
        )


def open_synthetic(config: DataConfig, seed: int) -> Splits:
    """``data.samples`` training samples and a quarter as many others to validate on."""
    classes = config.num_classes or DEFAULT_CLASSES
    counts = config.samples, max(1, config.samples // VALIDATION_SHARE)
    train = Synthetic(counts[0], 0, classes, config.image_size, seed)
    val = Synthetic(counts[1], counts[0], classes, config.image_size, seed)
    return Splits(train, val, classes, tuple(f"class-{i}" for i in range(classes)))
