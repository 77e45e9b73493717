"""What ``augmentation`` adds to training images: colour jitter, random changes (RandAugment),
erased rectangles.

Each is a pure function of (seed, epoch, index), on bytes and before normalisation, one image or
many at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config.training import (
    AugmentationConfig,
    ColorJitterConfig,
    RandAugmentConfig,
)

from .base import Indices
from .order import hashes, stream_key, uniforms

JITTER, CHANGES, ERASING, NOISE = 6, 7, 8, 9
"""Streams of random numbers of their own."""
LUMA = (0.299, 0.587, 0.114)
SMALLEST_AREA, LARGEST_AREA, LARGEST_RATIO = 0.02, 1 / 3, 1 / 0.3
"""Of an erased rectangle: share of the image, longer side over shorter."""


@dataclass(frozen=True)
class Augment:
    """Applied in this order: jitter, changes, erasing."""

    seed: int
    jitter: ColorJitterConfig
    changes: RandAugmentConfig
    erasing: float

    @classmethod
    def of(cls, config: AugmentationConfig, seed: int) -> Augment | None:
        """None where the configuration asks for none of them."""
        jitter, changes, erasing = (
            config.color_jitter,
            config.rand_augment,
            config.random_erasing or 0.0,
        )
        wanted = any(_strengths(jitter)) or changes.magnitude is not None or erasing
        return cls(seed, jitter, changes, erasing) if wanted else None

    def __call__(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """``images`` uint8 ``[n, 1 or 3, height, width]``, the samples ``indices`` in ``epoch``."""
        strengths = _strengths(self.jitter)
        if any(strengths):
            draws = uniforms(indices, self.seed, epoch, 3, JITTER)
            images = jittered(images, 1 + (2 * draws - 1) * np.array(strengths))
        if self.changes.magnitude is not None:
            images = self._changed(images, indices, epoch, self.changes.magnitude)
        return self._erased(images, indices, epoch) if self.erasing else images

    def _changed(self, images: Tensor, indices: Indices, epoch: int, magnitude: int) -> Tensor:
        # Here, because only this needs Pillow where torchvision decodes.
        from .randaugment import DRAWS, changed

        draws = uniforms(indices, self.seed, epoch, DRAWS, CHANGES).tolist()
        pairs = zip(images, draws, strict=True)
        return torch.stack(
            [changed(image, row, magnitude, self.changes.deviation) for image, row in pairs]
        )

    def _erased(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        draws = uniforms(indices, self.seed, epoch, 5, ERASING)
        images = images.clone()
        for image, index, row in zip(images, indices.tolist(), draws.tolist(), strict=True):
            if row[0] < self.erasing:
                top, left, height, width = rectangle(image.shape[1], image.shape[2], row[1:])
                shape = (image.shape[0], height, width)
                image[:, top : top + height, left : left + width] = self._noise(shape, index, epoch)
        return images

    def _noise(self, shape: tuple[int, ...], index: int, epoch: int) -> Tensor:
        words = np.arange(math.ceil(math.prod(shape) / 8), dtype=np.int64)
        filled = (
            hashes(stream_key(self.seed, epoch, NOISE, index), words).astype("<u8").view(np.uint8)
        )
        return torch.from_numpy(filled[: math.prod(shape)].copy()).view(shape)


def _strengths(jitter: ColorJitterConfig) -> tuple[float, float, float]:
    return jitter.brightness, jitter.contrast, jitter.saturation


def jittered(images: Tensor, factors: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast and saturation of each image times its row of factors, rounded and
    clamped once.

    Contrast moves pixels away from the mean grey of the brightened image, saturation from their own
    grey: in one expression, both being linear.
    """
    pixels = images.float()
    brightness, contrast, saturation = (
        torch.from_numpy(factors).float()[:, :, None, None, None].unbind(1)
    )
    grey = pixels
    if images.shape[1] == len(LUMA):
        grey = (pixels * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    mean = grey.mean((1, 2, 3), keepdim=True)
    scale = brightness * contrast
    coloured = (
        torch.lerp(grey, pixels, saturation.expand_as(pixels)) if grey is not pixels else pixels
    )
    return (
        (coloured * scale + (1 - contrast) * brightness * mean)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
    )


def rectangle(height: int, width: int, draws: list[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is erased, from four uniform numbers."""
    area = height * width * (SMALLEST_AREA + (LARGEST_AREA - SMALLEST_AREA) * draws[0])
    ratio = math.exp((2 * draws[1] - 1) * math.log(LARGEST_RATIO))
    tall = min(height, max(1, round(math.sqrt(area * ratio))))
    wide = min(width, max(1, round(math.sqrt(area / ratio))))
    return int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1)), tall, wide
