"""Synthetic images, made from the seed without any file: a pattern per class under noise.

The classes can be told apart, so that the loss falls and accuracies mean something in tests.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from inception_trainer.config.training import DataConfig

from .base import Batch, Splits
from .class_names import numbered_names
from .counter_rng import Indices, hashes, stream_key
from .memory import InMemory

COARSE = 8
"""Side of a pattern before it is scaled to the image."""
NOISE_STREAM = 3
NOISE = 0.35
"""Share of noise in a pixel."""
DEFAULT_CLASSES = 1000
VALIDATION_SHARE = 4
"""One validation sample for so many training samples."""


class Synthetic(InMemory):
    """Images are made when they are read: memory does not grow with the number of samples."""

    def __init__(self, length: int, first: int, classes: int, side: int, seed: int) -> None:
        super().__init__(length, seed, shifts=False)
        self._first = first
        self._side = side
        self._classes = classes
        generator = torch.Generator().manual_seed(seed)
        self._patterns = torch.rand(classes, 3, COARSE, COARSE, generator=generator)
        # One picture of noise: each image takes a window of it, which is cheaper than drawing.
        self._noise = torch.rand(3, 2 * side, 2 * side, generator=generator)

    @override
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
        side = self._side
        draws = hashes(stream_key(self._seed, NOISE_STREAM), numbers)
        # Row and column of the window from the two halves of the 64 bits.
        rows = draws % np.uint64(side)
        columns = (draws >> np.uint64(32)) % np.uint64(side)
        corners = np.stack((rows, columns), 1)
        return torch.stack(
            [self._noise[:, y : y + side, x : x + side] for y, x in corners.tolist()]
        )


def open_synthetic(config: DataConfig, seed: int) -> Splits:
    """``data.samples`` training samples and a quarter as many others to validate on."""
    classes = config.num_classes or DEFAULT_CLASSES
    held_out = max(1, config.samples // VALIDATION_SHARE)
    train = Synthetic(config.samples, 0, classes, config.image_size, seed)
    val = Synthetic(held_out, config.samples, classes, config.image_size, seed)
    return Splits(train, val, classes, numbered_names(0, classes))
