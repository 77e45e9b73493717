"""RandAugment (Cubuk et al. 2019) as timm's recipes have it (``rand-m9-mstd0.5``): two changes of
fifteen, each at even odds.

The magnitude of a change is drawn around the configured one and cut to 0 to 10. Changes are
Pillow's, so that they need nothing but it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps
from torch import Tensor

from .changes import Picture, changed, sign

LAYERS = 2
"""Changes of one image."""
PER_LAYER = 5
"""Uniform numbers for one change: whether, which, which way, and two for its magnitude."""
DRAWS = LAYERS * PER_LAYER
"""Uniform numbers that one image takes."""
LARGEST = 10
"""The largest magnitude."""
FILL = (124, 116, 104)
"""What comes into view where an image moves: the mean colour of ImageNet."""
DEGREES, SHEAR, SHIFT = 30.0, 0.3, 0.45
"""Rotation, shear and shift (a share of the side) at the largest magnitude."""
BITS, ADDED = 4, 110
"""Bits that posterize keeps, and the light that solarize-add adds, at the largest magnitude."""
Change = Callable[[Picture, float, float], Picture]
"""A picture, its magnitude from 0 to 1, and a sign."""


def randaugment(image: Tensor, draws: Sequence[float], magnitude: int, deviation: float) -> Tensor:
    """One image ``[1 or 3, height, width]`` of bytes, changed by its ``DRAWS`` uniform numbers."""

    def change(picture: Picture) -> Picture:
        for layer in range(LAYERS):
            skip, which, side, first, second = draws[layer * PER_LAYER : (layer + 1) * PER_LAYER]
            if skip < 0.5:
                continue
            # Box and Muller's normal number; 1 - x keeps the logarithm finite.
            normal = math.sqrt(-2 * math.log(1 - first)) * math.cos(2 * math.pi * second)
            level = min(LARGEST, max(0.0, magnitude + deviation * normal)) / LARGEST
            # The other way round than torchvision's: resumed jobs must see the same images.
            picture = CHANGES[int(which * len(CHANGES))](picture, level, -sign(side))
        return picture

    return changed(image, change)


def _moved(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    """Each pixel from where the affine ``matrix`` maps it to; FILL from outside."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


def _solarize_add(picture: Picture, level: float, _sign: float) -> Picture:
    lighter = ImageChops.add(picture, Image.new("RGB", picture.size, (int(level * ADDED),) * 3))
    # Only what is darker than the middle becomes lighter.
    pixels = np.asarray(picture)
    return Image.fromarray(np.where(pixels < 128, np.asarray(lighter), pixels))


def _enhanced(kind: Any) -> Change:
    return lambda picture, level, _sign: kind(picture).enhance(0.1 + 1.8 * level)


# Their order is that of the numbers that are drawn: it must stay, or resumed jobs see other images.
CHANGES: tuple[Change, ...] = (
    lambda picture, _level, _sign: ImageOps.autocontrast(picture),
    lambda picture, _level, _sign: ImageOps.equalize(picture),
    lambda picture, _level, _sign: ImageOps.invert(picture),
    lambda picture, level, sign: picture.rotate(
        sign * level * DEGREES, resample=Image.Resampling.BILINEAR, fillcolor=FILL
    ),
    # Fewer bits are a stronger change; none at all would leave a black image.
    lambda picture, level, _sign: ImageOps.posterize(picture, max(1, int(level * BITS))),
    lambda picture, level, _sign: ImageOps.solarize(picture, int(level * 256)),
    _solarize_add,
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    lambda picture, level, sign: _moved(picture, (1, sign * level * SHEAR, 0, 0, 1, 0)),
    lambda picture, level, sign: _moved(picture, (1, 0, 0, sign * level * SHEAR, 1, 0)),
    lambda picture, level, sign: _moved(
        picture, (1, 0, sign * level * SHIFT * picture.width, 0, 1, 0)
    ),
    lambda picture, level, sign: _moved(
        picture, (1, 0, 0, 0, 1, sign * level * SHIFT * picture.height)
    ),
)
