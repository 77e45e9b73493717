"""Augmentation that ``augmentation`` adds to training images: colour jitter, RandAugment,
TrivialAugment, AutoAugment, random erasing.

Each is a pure function of (seed, epoch, index), on bytes and before normalisation, one image or
many at a time. Crops, flips and shifts belong to the data sets themselves; mixup and CutMix, which
need two images, are in ``train/mixup.py``.

Colour jitter is most of the work, and none for a device: the loader may leave it, and the erasing
that comes after it, as :class:`Pending` to the rank, which does both with :func:`finish`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inception_trainer.config.training import (
    AugmentationConfig,
    ColorJitterConfig,
    RandAugmentConfig,
)

from .counter_rng import Indices, hashes, stream_key, uniforms

JITTER_STREAM, RANDAUGMENT_STREAM, ERASING_STREAM, NOISE_STREAM = 6, 7, 8, 9
TRIVIAL_STREAM, AUTO_STREAM = 23, 24
"""Counters of :func:`.counter_rng.stream_key`, one for each use."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, as Pillow has them)."""
SMALLEST_AREA = 0.02
LARGEST_AREA = 1 / 3
"""Of an erased rectangle, as shares of the image (Zhong et al. 2017, as timm has them)."""
LARGEST_RATIO = 1 / 0.3
"""Longer side of an erased rectangle over its shorter one."""


class Pending(NamedTuple):
    """What is still to be done to the images of a batch, on their device."""

    factors: Tensor
    """Of brightness, contrast and saturation, float32 ``[n, 3]``."""
    erased: Tensor
    """Positions in the batch, int64 ``[k]``, of the images that are erased."""
    places: Tensor
    """Which pixels of those, bool ``[k, 1, height, width]``."""
    noise: Tensor
    """What comes there, uint8 ``[k, channels, height, width]``."""


@dataclass(frozen=True)
class Augment:
    """The extra augmentation of a job, applied in the order of the fields."""

    seed: int
    jitter: ColorJitterConfig
    randaugment: RandAugmentConfig
    erasing: float
    """Probability that a part of an image is erased."""
    trivial: bool = False
    """Whether TrivialAugment changes every image, after RandAugment and before erasing."""
    policy: str | None = None
    """Of AutoAugment, which comes after TrivialAugment."""
    defers: bool = False
    """Whether what :meth:`pending` describes is left to others."""

    @classmethod
    def of(cls, config: AugmentationConfig, seed: int) -> Augment | None:
        """None where the configuration asks for none of them."""
        augment = cls(
            seed,
            config.color_jitter,
            config.rand_augment,
            config.random_erasing or 0.0,
            bool(config.trivial_augment),
            config.auto_augment,
        )
        acts = augment.jitters or augment.changes_pictures or augment.erasing
        return augment if acts else None

    @property
    def jitters(self) -> bool:
        """Whether colours are jittered."""
        return any(_strengths(self.jitter))

    @property
    def changes_pictures(self) -> bool:
        """Whether Pillow has to change the images, which it can in host memory only."""
        return self.randaugment.magnitude is not None or self.trivial or self.policy is not None

    def __call__(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """``images`` uint8 ``[n, 1 or 3, height, width]``, the samples ``indices`` in ``epoch``."""
        if self.jitters and not self.defers:
            images = jitter_colors(images, self._factors(indices, epoch))
        if self.randaugment.magnitude is not None:
            images = self._randaugmented(images, indices, epoch, self.randaugment.magnitude)
        if self.trivial:
            images = self._trivially_augmented(images, indices, epoch)
        if self.policy is not None:
            images = self._augmented_by_policy(images, indices, epoch, self.policy)
        if self.erasing and not self.defers:
            images = self._erased(images, indices, epoch)
        return images

    def pending(self, images: Tensor, indices: Indices, epoch: int, chosen: Tensor) -> Pending:
        """Jitter and erasing of a batch, with the numbers that :meth:`__call__` would draw for its
        samples; images that are not ``chosen`` (bool ``[n]``) stay as they are.
        """
        factors = self._factors(indices, epoch)
        factors[~chosen] = 1
        regions = self._regions(images, indices, epoch) if self.erasing else []
        regions = [region for region in regions if chosen[region[0]]]
        count, height, width = len(regions), images.shape[2], images.shape[3]
        places = torch.zeros(count, 1, height, width, dtype=torch.bool)
        noise = torch.zeros(count, images.shape[1], height, width, dtype=torch.uint8)
        for row, (at, rows, columns) in enumerate(regions):
            places[row, :, rows, columns] = True
            region = noise[row, :, rows, columns]
            region.copy_(self._noise(tuple(region.shape), int(indices[at]), epoch))
        erased = torch.tensor([at for at, _, _ in regions], dtype=torch.int64)
        return Pending(factors, erased, places, noise)

    def _factors(self, indices: Indices, epoch: int) -> Tensor:
        draws = uniforms(indices, self.seed, epoch, 3, JITTER_STREAM)
        return torch.from_numpy(1 + (2 * draws - 1) * np.array(_strengths(self.jitter))).float()

    def _randaugmented(
        self, images: Tensor, indices: Indices, epoch: int, magnitude: int
    ) -> Tensor:
        # Imported here, because only this needs Pillow where torchvision decodes.
        from .randaugment import DRAWS, randaugment

        draws = uniforms(indices, self.seed, epoch, DRAWS, RANDAUGMENT_STREAM).tolist()
        pairs = zip(images, draws, strict=True)
        deviation = self.randaugment.deviation
        return torch.stack([randaugment(image, row, magnitude, deviation) for image, row in pairs])

    def _trivially_augmented(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        # Imported here for the same reason.
        from .trivialaugment import DRAWS, trivial_augment

        draws = uniforms(indices, self.seed, epoch, DRAWS, TRIVIAL_STREAM).tolist()
        return torch.stack(
            [trivial_augment(image, row) for image, row in zip(images, draws, strict=True)]
        )

    def _augmented_by_policy(
        self, images: Tensor, indices: Indices, epoch: int, policy: str
    ) -> Tensor:
        # Imported here for the same reason.
        from .autoaugment import DRAWS, auto_augment

        draws = uniforms(indices, self.seed, epoch, DRAWS, AUTO_STREAM).tolist()
        pairs = zip(images, draws, strict=True)
        return torch.stack([auto_augment(image, row, policy) for image, row in pairs])

    def _erased(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        # The images may be views of a data set in memory, which must not change.
        images = images.clone()
        for at, rows, columns in self._regions(images, indices, epoch):
            region = images[at, :, rows, columns]
            region.copy_(self._noise(tuple(region.shape), int(indices[at]), epoch))
        return images

    def _regions(
        self, images: Tensor, indices: Indices, epoch: int
    ) -> list[tuple[int, slice, slice]]:
        """Position in the batch, rows and columns of what is erased."""
        draws = uniforms(indices, self.seed, epoch, 5, ERASING_STREAM)
        regions = []
        for at, row in enumerate(draws.tolist()):
            if row[0] < self.erasing:
                sides = images.shape[2], images.shape[3]
                top, left, height, width = erased_rectangle(*sides, row[1:])
                regions.append((at, slice(top, top + height), slice(left, left + width)))
        return regions

    def _noise(self, shape: tuple[int, ...], index: int, epoch: int) -> Tensor:
        size = math.prod(shape)
        words = np.arange(math.ceil(size / 8), dtype=np.int64)
        values = hashes(stream_key(self.seed, epoch, NOISE_STREAM, index), words)
        # Eight bytes from each value, in an order that does not depend on the processor.
        noise = values.astype("<u8").view(np.uint8)[:size]
        return torch.from_numpy(noise.copy()).view(shape)


def _strengths(jitter: ColorJitterConfig) -> tuple[float, float, float]:
    return jitter.brightness, jitter.contrast, jitter.saturation


def finish(images: Tensor, pending: Pending | None) -> Tensor:
    """Images ``[n, 1 or 3, height, width]`` of bytes, on any device, with what is ``pending`` there
    done to them: the bytes of the loader, but where a sum of another order falls on the other side
    of the border between two.
    """
    if pending is None:
        return images
    images = jitter_colors(images, pending.factors)
    # Not by a loop over the images: each would be a few small kernels.
    if len(pending.erased):
        kept = images.index_select(0, pending.erased)
        with_noise = torch.where(pending.places, pending.noise, kept)
        images = images.index_copy(0, pending.erased, with_noise)
    return images


@cache
def _luma(device: torch.device) -> Tensor:
    # Kept: to bring it there again would wait for the device.
    return torch.tensor(LUMA, device=device)[:, None, None]


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of each image times its row of ``factors`` ``[n, 3]``,
    float32, rounded and clamped once.

    Contrast moves pixels away from the mean grey of the brightened image, saturation from their own
    grey: in one expression, both being linear.
    """
    pixels = images.float()
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    grey = pixels
    if images.shape[1] == len(LUMA):
        grey = (pixels * _luma(images.device)).sum(1, keepdim=True)
    mean = grey.mean((1, 2, 3), keepdim=True)
    # Grey images have no saturation to change.
    colored = pixels
    if grey is not pixels:
        colored = torch.lerp(grey, pixels, saturation.expand_as(pixels))
    changed = colored * (brightness * contrast) + (1 - contrast) * brightness * mean
    return changed.round_().clamp_(0, 255).to(torch.uint8)


def erased_rectangle(height: int, width: int, draws: list[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is erased, from four uniform numbers."""
    area = height * width * (SMALLEST_AREA + (LARGEST_AREA - SMALLEST_AREA) * draws[0])
    ratio = math.exp((2 * draws[1] - 1) * math.log(LARGEST_RATIO))
    tall = min(height, max(1, round(math.sqrt(area * ratio))))
    wide = min(width, max(1, round(math.sqrt(area / ratio))))
    top = int(draws[2] * (height - tall + 1))
    left = int(draws[3] * (width - wide + 1))
    return top, left, tall, wide
