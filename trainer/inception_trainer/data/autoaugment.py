"""AutoAugment (Cubuk et al. 2018, arXiv:1805.09501) with the policies that were found for ImageNet
and CIFAR-10, as torchvision has it: for each image one of 25 pairs of changes, each of which is
made with a probability of its own.

Changes are Pillow's, so that they need nothing but it; what comes into view is black.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

DRAWS = 5
"""Uniform numbers that one image takes: which pair, whether each change is made, and which way."""
LEVELS = 10
"""Magnitudes that there are, from 0 to 9."""
SHEAR, DEGREES, STRENGTH = 0.3, 30.0, 0.9
"""Shear, rotation, and how far a factor is from 1, at the largest magnitude."""
SHIFT = 150.0 / 331.0
"""Shift at the largest magnitude, as a share of the side."""
BITS_TAKEN, BRIGHTEST = 4, 255.0
"""Of posterize, at the largest magnitude; and the threshold of solarize at the smallest."""
Picture = Any
"""``PIL.Image.Image``, whose operations differ in their annotations between releases."""


class Step(NamedTuple):
    """A change, how probable it is, and the number of its magnitude."""

    name: str
    probability: float
    level: int


def _policy(text: str) -> tuple[tuple[Step, ...], ...]:
    """Pairs as the paper's tables have them, one in a line; a dash for no magnitude."""
    pairs = []
    for line in text.strip().splitlines():
        steps = (step.split() for step in line.split(","))
        pairs.append(
            tuple(
                Step(name, float(odds), 0 if level == "-" else int(level))
                for name, odds, level in steps
            )
        )
    return tuple(pairs)


# The order of the pairs is that of the numbers that are drawn: it must stay, or resumed jobs see
# other images.
POLICIES = {
    "ImageNet": _policy("""
        Posterize 0.4 8, Rotate 0.6 9
        Solarize 0.6 5, AutoContrast 0.6 -
        Equalize 0.8 -, Equalize 0.6 -
        Posterize 0.6 7, Posterize 0.6 6
        Equalize 0.4 -, Solarize 0.2 4
        Equalize 0.4 -, Rotate 0.8 8
        Solarize 0.6 3, Equalize 0.6 -
        Posterize 0.8 5, Equalize 1.0 -
        Rotate 0.2 3, Solarize 0.6 8
        Equalize 0.6 -, Posterize 0.4 6
        Rotate 0.8 8, Color 0.4 0
        Rotate 0.4 9, Equalize 0.6 -
        Equalize 0.0 -, Equalize 0.8 -
        Invert 0.6 -, Equalize 1.0 -
        Color 0.6 4, Contrast 1.0 8
        Rotate 0.8 8, Color 1.0 2
        Color 0.8 8, Solarize 0.8 7
        Sharpness 0.4 7, Invert 0.6 -
        ShearX 0.6 5, Equalize 1.0 -
        Color 0.4 0, Equalize 0.6 -
        Equalize 0.4 -, Solarize 0.2 4
        Solarize 0.6 5, AutoContrast 0.6 -
        Invert 0.6 -, Equalize 1.0 -
        Color 0.6 4, Contrast 1.0 8
        Equalize 0.8 -, Equalize 0.6 -
    """),
    "Cifar10": _policy("""
        Invert 0.1 -, Contrast 0.2 6
        Rotate 0.7 2, TranslateX 0.3 9
        Sharpness 0.8 1, Sharpness 0.9 3
        ShearY 0.5 8, TranslateY 0.7 9
        AutoContrast 0.5 -, Equalize 0.9 -
        ShearY 0.2 7, Posterize 0.3 7
        Color 0.4 3, Brightness 0.6 7
        Sharpness 0.3 9, Brightness 0.7 9
        Equalize 0.6 -, Equalize 0.5 -
        Contrast 0.6 7, Sharpness 0.6 5
        Color 0.7 7, TranslateX 0.5 8
        Equalize 0.3 -, AutoContrast 0.4 -
        TranslateY 0.4 3, Sharpness 0.2 6
        Brightness 0.9 6, Color 0.2 8
        Solarize 0.5 2, Invert 0.0 -
        Equalize 0.2 -, AutoContrast 0.6 -
        Equalize 0.2 -, Equalize 0.6 -
        Color 0.9 9, Equalize 0.6 -
        AutoContrast 0.8 -, Solarize 0.2 8
        Brightness 0.1 3, Color 0.7 0
        Solarize 0.4 5, AutoContrast 0.9 -
        TranslateY 0.9 9, TranslateY 0.7 9
        AutoContrast 0.9 -, Solarize 0.8 3
        Equalize 0.8 -, Invert 0.1 -
        TranslateY 0.7 9, AutoContrast 0.9 -
    """),
}
"""By ``augmentation.autoAugment``."""


def auto_augment(image: Tensor, draws: Sequence[float], policy: str) -> Tensor:
    """One image ``[1 or 3, height, width]`` of bytes, changed by its ``DRAWS`` uniform numbers."""
    grey = image.shape[0] == 1
    # The changes are those of colour pictures; a grey one gets its channel three times.
    pixels = image.repeat(3, 1, 1) if grey else image
    pairs = POLICIES[policy]
    pair = pairs[int(draws[0] * len(pairs))]
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    for step, chance, side in zip(pair, draws[1:3], draws[3:5], strict=True):
        if chance < step.probability:
            sign = -1.0 if side < 0.5 else 1.0
            picture = CHANGES[step.name](picture, step.level, sign)
    result = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
    return result[:1] if grey else result


@functools.cache
def magnitudes(first: float, last: float) -> list[float]:
    """``LEVELS`` numbers at even distances, in the single precision of torchvision's: a pixel more
    or less hangs on it.
    """
    numbers: list[float] = torch.linspace(first, last, LEVELS).tolist()
    return numbers


def _moved(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    """Each pixel from where the affine ``matrix`` maps it to."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )


def _sheared(level: int, sign: float) -> float:
    return sign * magnitudes(0.0, SHEAR)[level]


def _shifted(side: int, level: int, sign: float) -> int:
    return -int(sign * magnitudes(0.0, SHIFT * side)[level])


Change = Callable[[Picture, int, float], Picture]
"""A picture, the number of its magnitude, and a sign."""


def _enhanced(kind: Any) -> Change:
    return lambda picture, level, sign: kind(picture).enhance(
        1.0 + sign * magnitudes(0.0, STRENGTH)[level]
    )


CHANGES: dict[str, Change] = {
    "ShearX": lambda picture, level, sign: _moved(picture, (1, _sheared(level, sign), 0, 0, 1, 0)),
    "ShearY": lambda picture, level, sign: _moved(picture, (1, 0, 0, _sheared(level, sign), 1, 0)),
    "TranslateX": lambda picture, level, sign: _moved(
        picture, (1, 0, _shifted(picture.width, level, sign), 0, 1, 0)
    ),
    "TranslateY": lambda picture, level, sign: _moved(
        picture, (1, 0, 0, 0, 1, _shifted(picture.height, level, sign))
    ),
    "Rotate": lambda picture, level, sign: picture.rotate(
        sign * magnitudes(0.0, DEGREES)[level], resample=Image.Resampling.NEAREST, fillcolor=0
    ),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "Posterize": lambda picture, level, _sign: ImageOps.posterize(
        picture, 8 - round(BITS_TAKEN * level / (LEVELS - 1))
    ),
    "Solarize": lambda picture, level, _sign: ImageOps.solarize(
        picture, math.ceil(magnitudes(BRIGHTEST, 0.0)[level])
    ),
    "AutoContrast": lambda picture, _level, _sign: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, _level, _sign: ImageOps.equalize(picture),
    "Invert": lambda picture, _level, _sign: ImageOps.invert(picture),
}
