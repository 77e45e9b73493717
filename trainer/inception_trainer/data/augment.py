"""Augmentation that ``augmentation`` adds to training images: colour jitter, RandAugment,
TrivialAugment, AutoAugment, random erasing.

Each is a pure function of (seed, epoch, index), on bytes and before normalisation, one image or
many at a time. Crops, flips and shifts belong to the data sets themselves; mixup and CutMix, which
need two images, are in ``train/mixup.py``.
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
        jitters = any(_strengths(augment.jitter))
        is_drawn = augment.randaugment.magnitude is not None
        is_changed = is_drawn or augment.trivial or augment.policy is not None
        return augment if jitters or is_changed or augment.erasing else None

    def __call__(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """``images`` uint8 ``[n, 1 or 3, height, width]``, the samples ``indices`` in ``epoch``."""
        strengths = _strengths(self.jitter)
        if any(strengths):
            draws = uniforms(indices, self.seed, epoch, 3, JITTER_STREAM)
            images = jitter_colors(images, 1 + (2 * draws - 1) * np.array(strengths))
        if self.randaugment.magnitude is not None:
            images = self._randaugmented(images, indices, epoch, self.randaugment.magnitude)
        if self.trivial:
            images = self._trivially_augmented(images, indices, epoch)
        if self.policy is not None:
            images = self._augmented_by_policy(images, indices, epoch, self.policy)
        return self._erased(images, indices, epoch) if self.erasing else images

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
        draws = uniforms(indices, self.seed, epoch, 5, ERASING_STREAM)
        # The images may be views of a data set in memory, which must not change.
        images = images.clone()
        for image, index, row in zip(images, indices.tolist(), draws.tolist(), strict=True):
            if row[0] < self.erasing:
                top, left, height, width = erased_rectangle(image.shape[1], image.shape[2], row[1:])
                shape = (image.shape[0], height, width)
                image[:, top : top + height, left : left + width] = self._noise(shape, index, epoch)
        return images

    def _noise(self, shape: tuple[int, ...], index: int, epoch: int) -> Tensor:
        size = math.prod(shape)
        words = np.arange(math.ceil(size / 8), dtype=np.int64)
        values = hashes(stream_key(self.seed, epoch, NOISE_STREAM, index), words)
        # Eight bytes from each value, in an order that does not depend on the processor.
        noise = values.astype("<u8").view(np.uint8)[:size]
        return torch.from_numpy(noise.copy()).view(shape)


def _strengths(jitter: ColorJitterConfig) -> tuple[float, float, float]:
    return jitter.brightness, jitter.contrast, jitter.saturation


def jitter_colors(images: Tensor, factors: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast and saturation of each image times its row of ``factors`` ``[n, 3]``,
    rounded and clamped once.

    Contrast moves pixels away from the mean grey of the brightened image, saturation from their own
    grey: in one expression, both being linear.
    """
    pixels = images.float()
    columns = torch.from_numpy(factors).float()[:, :, None, None, None]
    brightness, contrast, saturation = columns.unbind(1)
    grey = pixels
    if images.shape[1] == len(LUMA):
        grey = (pixels * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
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
