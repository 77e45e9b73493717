"""CIFAR-10 and CIFAR-100, the latter with its fine labels; nothing is downloaded.

``data.path`` is the folder with the files, or the one above it. Training images are shifted by up
to 4 pixels, flipped at random and turned by up to 15 degrees, each a function of (seed, epoch,
index).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config.training import DataConfig
from inception_trainer.stores import place

from .base import Batch, Indices, Splits
from .cifarfiles import EDITIONS, SIDE, Table, read_edition
from .memory import InMemory
from .order import uniforms
from .scaling import scaled

REACH, DEGREES = 4, 15.0


class Cifar(InMemory):
    """One split: ``images`` uint8 ``[n, 3, 32, 32]``, scaled to ``data.imageSize`` when they are
    read.
    """

    def __init__(self, table: Table, config: DataConfig, seed: int) -> None:
        images, labels = table
        super().__init__(len(labels), seed, shifts=False)
        self._images, self._labels = torch.from_numpy(images), torch.from_numpy(labels)
        self._side, self._interpolation = config.image_size, config.interpolation

    def _read(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices)
        return Batch(self._images[index], self._labels[index])

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Index, augment when an epoch is given, scale."""
        images, labels = super().batch(indices, epoch)
        if epoch is not None and len(indices):
            images = augmented(images, uniforms(indices, self._seed, epoch, 4))
        return Batch(
            images if self._side == SIDE else scaled(images, self._side, self._interpolation),
            labels,
        )


def augmented(images: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Shift, flip and turn each image by its row of four uniform numbers; what comes from outside
    is black.
    """
    drawn = torch.from_numpy(draws)[:, :, None, None]
    offsets = (drawn[:, :2] * (2 * REACH + 1)).floor() - REACH
    flips = torch.where(drawn[:, 2] < 0.5, -1.0, 1.0)
    angles = torch.deg2rad((2 * drawn[:, 3] - 1) * DEGREES)
    centre = (SIDE - 1) / 2
    y, x = torch.meshgrid(*(torch.arange(SIDE, dtype=torch.float64) - centre,) * 2, indexing="ij")
    # Where each pixel comes from, computed element by element: the rest of the batch has no
    # influence.
    rows = (x * angles.sin() + y * angles.cos() + offsets[:, 0] + centre).round().long()
    columns = (
        ((x * angles.cos() - y * angles.sin()) * flips + offsets[:, 1] + centre).round().long()
    )
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    sample = torch.arange(len(images))[:, None, None]
    moved = images[sample, :, rows.clamp(0, SIDE - 1), columns.clamp(0, SIDE - 1)]
    return (moved * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def open_cifar(config: DataConfig, seed: int) -> Splits:
    """Both splits of the edition ``data.kind``; raises InputMissing with what was found, DataError
    for wrong files.
    """
    edition = EDITIONS[config.kind]
    train, test, names = read_edition(place(config.path or ""), edition)
    return Splits(
        Cifar(train, config, seed),
        Cifar(test, config, seed),
        len(names),
        names,
        edition.normalization,
    )
