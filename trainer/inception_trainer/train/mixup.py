"""Mixup: every image is blended with another of its micro-batch, and so are their losses (Zhang et
al. 2018).

The blend is a function of (seed, step) and the partner of the position in the micro-batch: with
``batch.perDevice`` the same images are blended at every number of ranks, and a resumed run draws
what it would have drawn.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from torch import Tensor

from inception_trainer.data.order import hashes, stream_key

MIXUP_STREAM = 5


def share_of(seed: int, step: int, alpha: float) -> float:
    """A draw from Beta(alpha, alpha), 0 < alpha <= 1: how much of an image is its own (Johnk's
    method).
    """
    for attempt in count():
        first, second = _uniforms(seed, step, attempt)
        one, two = math.log(first) / alpha, math.log(second) / alpha
        larger = max(one, two)
        total = larger + math.log(math.exp(one - larger) + math.exp(two - larger))
        if total <= 0:
            return math.exp(one - total)
    raise AssertionError("unreachable: every second draw at least is accepted")


def blended(images: Tensor, share: float) -> Tensor:
    """``share`` of each image and the rest of the one at the mirrored position."""
    return torch.lerp(images.flip(0), images, share).contiguous(memory_format=torch.channels_last)


def _uniforms(seed: int, step: int, attempt: int) -> tuple[float, float]:
    values = hashes(stream_key(seed, step, MIXUP_STREAM), np.array([2 * attempt, 2 * attempt + 1]))
    first, second = ((float(value >> np.uint64(11)) + 0.5) / 2.0**53 for value in values)
    return first, second
