"""Mixup: each image is blended with another of its micro-batch, and so are their losses (Zhang et
al. 2018).

The coefficient is a function of (seed, step), and the partner of the position in the micro-batch:
with ``batch.perDevice`` the same images are blended at every number of ranks, and a resumed run
draws what it would have drawn.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from torch import Tensor

from inception_trainer.data.counter_rng import hashes, stream_key

MIXUP_STREAM = 5
"""Counter of :func:`stream_key` for the coefficients."""


def mixing_coefficient(seed: int, step: int, alpha: float) -> float:
    """Mixing coefficient lambda ~ Beta(alpha, alpha), 0 < alpha <= 1, by Johnk's method."""
    for attempt in count():
        first, second = _uniforms(seed, step, attempt)
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
    return torch.lerp(images.flip(0), images, lam).contiguous(memory_format=torch.channels_last)


def _uniforms(seed: int, step: int, attempt: int) -> tuple[float, float]:
    counters = np.array([2 * attempt, 2 * attempt + 1])
    values = hashes(stream_key(seed, step, MIXUP_STREAM), counters)
    # 53 bits, and the half keeps them off 0, which has no logarithm.
    first, second = ((float(value >> np.uint64(11)) + 0.5) / 2.0**53 for value in values)
    return first, second
