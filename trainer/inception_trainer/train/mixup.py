"""Mixup and CutMix: each image is blended with another of its micro-batch, or gets a rectangle of
it, and their losses are mixed likewise (Zhang et al. 2018, Yun et al. 2019).

Coefficient and rectangle are functions of (seed, step), and the partner of the position in the
micro-batch: with ``batch.perDevice`` the same images are mixed at every number of ranks, and a
resumed run draws what it would have drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from inception_trainer.config.training import AugmentationConfig
from inception_trainer.data.counter_rng import hashes, stream_key
from inception_trainer.device import image_format

MIXUP_STREAM, CUTMIX_STREAM, RECTANGLE_STREAM, CHOICE_STREAM = 5, 20, 21, 22
"""Counters of :func:`stream_key`: coefficients of mixup and CutMix, where CutMix cuts, and which of
the two a step takes."""


@dataclass(frozen=True)
class Mix:
    """How the images of one step are mixed, each with its partner."""

    lam: float
    """The share of an image that is its own; with ``centre`` the one that was drawn."""
    centre: tuple[float, float] | None = None
    """Of the partner's rectangle, as shares of height and width; None: they are blended."""


def draw_mix(config: AugmentationConfig, seed: int, step: int) -> Mix | None:
    """What ``augmentation`` asks for at a step; None where it asks for neither."""
    cuts = config.cut_mix is not None
    if cuts and config.mixup is not None:
        cuts = _uniforms(seed, step, 0, CHOICE_STREAM)[0] < 0.5
    if config.cut_mix is not None and cuts:
        lam = mixing_coefficient(seed, step, config.cut_mix, CUTMIX_STREAM)
        return Mix(lam, _uniforms(seed, step, 0, RECTANGLE_STREAM))
    if config.mixup is not None:
        return Mix(mixing_coefficient(seed, step, config.mixup))
    return None


def mix_images(images: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """Images ``[n, 3, side, side]`` mixed with those at the mirrored positions, and the share of
    each that is its own.
    """
    if mix.centre is None:
        return blend_images(images, mix.lam), mix.lam
    top, bottom, left, right = rectangle(images.shape[2], images.shape[3], mix.lam, mix.centre)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    # The border cuts rectangles, so the share is counted and not the one that was drawn.
    cut = (bottom - top) * (right - left)
    return mixed, 1 - cut / (images.shape[2] * images.shape[3])


def rectangle(
    height: int, width: int, lam: float, centre: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what a partner gives: 1 - ``lam`` of the area around
    ``centre``, less what is outside.
    """
    share = math.sqrt(1 - lam)
    bounds = []
    for side, place in zip((height, width), centre, strict=True):
        half = int(side * share) // 2
        middle = int(place * side)
        bounds += [max(0, middle - half), min(side, middle + half)]
    top, bottom, left, right = bounds
    return top, bottom, left, right


def mixing_coefficient(seed: int, step: int, alpha: float, stream: int = MIXUP_STREAM) -> float:
    """Mixing coefficient lambda ~ Beta(alpha, alpha), 0 < alpha <= 1, by Johnk's method."""
    for attempt in count():
        first, second = _uniforms(seed, step, attempt, stream)
        # In logarithms: with a small alpha the powers themselves would be zero.
        log_x = math.log(first) / alpha
        log_y = math.log(second) / alpha
        larger = max(log_x, log_y)
        log_sum = larger + math.log(math.exp(log_x - larger) + math.exp(log_y - larger))
        if log_sum <= 0:
            return math.exp(log_x - log_sum)
    raise AssertionError("unreachable: every second draw at least is accepted")


def blend_images(images: Tensor, lam: float) -> Tensor:
    """``lam`` times each image of ``[n, 3, side, side]`` and the rest of the one at the mirrored
    position.
    """
    # Mirrored, not shuffled: no order has to be drawn, and all but the middle one get a partner.
    blended = torch.lerp(images.flip(0), images, lam)
    return blended.contiguous(memory_format=image_format(images.device))


def _uniforms(seed: int, step: int, attempt: int, stream: int) -> tuple[float, float]:
    counters = np.array([2 * attempt, 2 * attempt + 1])
    values = hashes(stream_key(seed, step, stream), counters)
    # 53 bits, and the half keeps them off 0, which has no logarithm.
    first, second = ((float(value >> np.uint64(11)) + 0.5) / 2.0**53 for value in values)
    return first, second
