"""TrivialAugment (Müller and Hutter 2021) in its wide form, as torchvision has it: one change of
fourteen for each image, of a magnitude that is drawn evenly.

Changes are Pillow's, so that they need nothing but it; what comes into view is black.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

DRAWS = 3
"""Uniform numbers that one image takes: which change, its magnitude, which way."""
BINS = 31
"""Magnitudes that there are; the first changes nothing or next to nothing."""
DEGREES, SHEAR, SHIFT, STRENGTH = 135.0, 0.99, 32.0, 0.99
"""Rotation, shear, shift in pixels, and how far a factor is from 1, at the largest magnitude."""
BITS_TAKEN, BRIGHTEST = 6, 255.0
"""Of posterize, at the largest magnitude; and the threshold of solarize at the smallest."""
Picture = Any
"""``PIL.Image.Image``, whose operations differ in their annotations between releases."""
Change = Callable[[Picture, int, float], Picture]
"""A picture, the number of its magnitude, and a sign."""


def trivial_augment(image: Tensor, draws: Sequence[float]) -> Tensor:
    """One image ``[1 or 3, height, width]`` of bytes, changed by its ``DRAWS`` uniform numbers."""
    grey = image.shape[0] == 1
    # The changes are those of colour pictures; a grey one gets its channel three times.
    pixels = image.repeat(3, 1, 1) if grey else image
    which, magnitude, side = draws
    change = CHANGES[int(which * len(CHANGES))]
    sign = -1.0 if side < 0.5 else 1.0
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture = change(picture, int(magnitude * BINS), sign)
    result = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
    return result[:1] if grey else result


@functools.cache
def magnitudes(first: float, last: float) -> list[float]:
    """``BINS`` numbers at even distances, in the single precision of torchvision's: a pixel more or
    less hangs on it.
    """
    numbers: list[float] = torch.linspace(first, last, BINS).tolist()
    return numbers


def _moved(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    """Each pixel from where the affine ``matrix`` maps it to."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )


def _sheared(number: int, sign: float) -> float:
    return sign * magnitudes(0.0, SHEAR)[number]


def _shifted(number: int, sign: float) -> int:
    return -int(sign * magnitudes(0.0, SHIFT)[number])


def _enhanced(kind: Any) -> Change:
    return lambda picture, number, sign: kind(picture).enhance(
        1.0 + sign * magnitudes(0.0, STRENGTH)[number]
    )


# Their order is that of the numbers that are drawn: it must stay, or resumed jobs see other images.
CHANGES: tuple[Change, ...] = (
    lambda picture, _number, _sign: picture,
    lambda picture, number, sign: _moved(picture, (1, _sheared(number, sign), 0, 0, 1, 0)),
    lambda picture, number, sign: _moved(picture, (1, 0, 0, _sheared(number, sign), 1, 0)),
    lambda picture, number, sign: _moved(picture, (1, 0, _shifted(number, sign), 0, 1, 0)),
    lambda picture, number, sign: _moved(picture, (1, 0, 0, 0, 1, _shifted(number, sign))),
    lambda picture, number, sign: picture.rotate(
        sign * magnitudes(0.0, DEGREES)[number], resample=Image.Resampling.NEAREST, fillcolor=0
    ),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Sharpness),
    lambda picture, number, _sign: ImageOps.posterize(
        picture, 8 - round(BITS_TAKEN * number / (BINS - 1))
    ),
    lambda picture, number, _sign: ImageOps.solarize(
        picture, math.ceil(magnitudes(BRIGHTEST, 0.0)[number])
    ),
    lambda picture, _number, _sign: ImageOps.autocontrast(picture),
    lambda picture, _number, _sign: ImageOps.equalize(picture),
)
