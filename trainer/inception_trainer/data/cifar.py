"""The data sets CIFAR-10 and CIFAR-100, the latter with its fine labels; nothing is downloaded.

``data.path`` is the folder with the files, or the one above it. Training images are shifted by up
to 4 pixels, flipped at random and turned by up to 15 degrees, each a function of (seed, epoch,
index). ``augmentation.rotation`` names another number of degrees.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from inception_trainer.config.training import DataConfig
from inception_trainer.stores import place

from .base import Batch, Splits
from .cifarfiles import EDITIONS, SIDE, Table, read_edition
from .counter_rng import Indices, hashes, stream_key, uniforms
from .decode import scale_images
from .held_out import held_out
from .memory import InMemory

REACH = 4
"""Pixels by which an image is shifted at most."""
DEGREES = 15.0
"""By which it is turned at most, either way, unless the configuration says otherwise."""
HELD_OUT_STREAM = 10
"""Counter of :func:`.counter_rng.stream_key` for which images are held out."""


class Cifar(InMemory):
    """One split: ``images`` uint8 ``[n, 3, 32, 32]``, scaled to ``data.imageSize`` when they are
    read.
    """

    def __init__(
        self, table: Table, config: DataConfig, seed: int, degrees: float = DEGREES
    ) -> None:
        images, labels = table
        super().__init__(len(labels), seed, shifts=False)
        self._images = torch.from_numpy(images)
        self._labels = torch.from_numpy(labels)
        self._side = config.image_size
        self._interpolation = config.interpolation
        self._degrees = degrees

    @property
    @override
    def classes(self) -> NDArray[np.int64]:
        return self._labels.numpy()

    @override
    def _read(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices)
        return Batch(self._images[index], self._labels[index])

    @override
    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        images, labels, _ = super().batch(indices, epoch)
        if epoch is not None and len(indices):
            draws = uniforms(indices, self._seed, epoch, 4)
            images = move_images(images, draws, self._degrees)
        # Scaled last: the 32 pixels of the files are what the recipes' augmentation is made for.
        if self._side != SIDE:
            images = scale_images(images, self._side, self._interpolation)
        return Batch(images, labels)


def move_images(images: Tensor, draws: NDArray[np.float64], degrees: float = DEGREES) -> Tensor:
    """Shift, flip and turn each image ``[n, 3, 32, 32]`` by its row of uniform numbers in ``draws``
    ``[n, 4]``, by up to ``degrees``; what comes from outside is black.
    """
    drawn = torch.from_numpy(draws)[:, :, None, None]
    offsets = (drawn[:, :2] * (2 * REACH + 1)).floor() - REACH
    flips = torch.where(drawn[:, 2] < 0.5, -1.0, 1.0)
    angles = torch.deg2rad((2 * drawn[:, 3] - 1) * degrees)
    centre = (SIDE - 1) / 2
    line = torch.arange(SIDE, dtype=torch.float64) - centre
    y, x = torch.meshgrid(line, line, indexing="ij")
    # Where each pixel comes from, computed element by element in float64: the rest of the batch,
    # and so the number of ranks, has no influence.
    from_row = x * angles.sin() + y * angles.cos()
    from_column = (x * angles.cos() - y * angles.sin()) * flips
    rows = (from_row + offsets[:, 0] + centre).round().long()
    columns = (from_column + offsets[:, 1] + centre).round().long()
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    sample = torch.arange(len(images))[:, None, None]
    moved = images[sample, :, rows.clamp(0, SIDE - 1), columns.clamp(0, SIDE - 1)]
    return (moved * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def open_cifar(config: DataConfig, seed: int, degrees: float | None = None) -> Splits:
    """Both splits of the edition ``data.kind``; training images are turned by up to ``degrees``.

    Raises InputMissing with what was found, DataError for wrong files.
    """
    edition = EDITIONS[config.kind]
    train, test, names, notes = read_edition(place(config.path or ""), edition)
    if config.held_out_share is not None:
        train, test = _hold_out(train, config.held_out_share)
    return Splits(
        Cifar(train, config, seed, DEGREES if degrees is None else degrees),
        Cifar(test, config, seed),
        len(names),
        names,
        edition.normalization,
        notes,
    )


def _hold_out(train: Table, share: float) -> tuple[Table, Table]:
    """Training and validation images; the published test images are left alone."""
    images, labels = train
    # Nothing names the images but their order, which is that of the published files.
    identities = hashes(stream_key(HELD_OUT_STREAM), np.arange(len(labels), dtype=np.int64))
    chosen = held_out(identities, labels, share)
    return (images[~chosen], labels[~chosen]), (images[chosen], labels[chosen])
