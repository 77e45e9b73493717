"""Changes of one picture that the augmentations share: those of torchvision, at any of several
evenly spaced magnitudes.

Changes are Pillow's, so that they need nothing but it; what comes into view is black.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

BRIGHTEST = 255.0
"""The threshold of solarize at the smallest magnitude."""
Picture = Any
"""``PIL.Image.Image``, whose operations differ in their annotations between releases."""
Change = Callable[[Picture, int, float], Picture]
"""A picture, the number of its magnitude, and a sign."""


def changed(image: Tensor, change: Callable[[Picture], Picture]) -> Tensor:
    """One image ``[1 or 3, height, width]`` of bytes, changed as a picture in colours."""
    grey = image.shape[0] == 1
    # The changes are those of colour pictures; a grey one gets its channel three times.
    pixels = image.repeat(3, 1, 1) if grey else image
    picture = change(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    result = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
    return result[:1] if grey else result


def sign(draw: float) -> float:
    """Which way a change goes, by a uniform number."""
    return -1.0 if draw < 0.5 else 1.0


@functools.cache
def magnitudes(first: float, last: float, count: int) -> list[float]:
    """So many numbers at even distances, in the single precision of torchvision's: a pixel more or
    less hangs on it.
    """
    numbers: list[float] = torch.linspace(first, last, count).tolist()
    return numbers


@dataclass(frozen=True)
class Scale:
    """How strong the changes of an augmentation are.

    At the largest of ``levels`` magnitudes: ``shear``, rotation in ``degrees``, ``strength`` as how
    far a factor is from 1, ``bits_taken`` by posterize; ``shift`` in pixels of a side of so many.
    """

    levels: int
    shear: float
    degrees: float
    strength: float
    bits_taken: int
    shift: Callable[[int], float]

    def changes(self) -> dict[str, Change]:
        """All changes by torchvision's names."""
        return {
            "Identity": lambda picture, _number, _sign: picture,
            "ShearX": lambda picture, number, sign: _moved(
                picture, (1, sign * self._at(self.shear, number), 0, 0, 1, 0)
            ),
            "ShearY": lambda picture, number, sign: _moved(
                picture, (1, 0, 0, sign * self._at(self.shear, number), 1, 0)
            ),
            "TranslateX": lambda picture, number, sign: _moved(
                picture, (1, 0, self._pixels(picture.width, number, sign), 0, 1, 0)
            ),
            "TranslateY": lambda picture, number, sign: _moved(
                picture, (1, 0, 0, 0, 1, self._pixels(picture.height, number, sign))
            ),
            "Rotate": lambda picture, number, sign: picture.rotate(
                sign * self._at(self.degrees, number),
                resample=Image.Resampling.NEAREST,
                fillcolor=0,
            ),
            "Brightness": self._enhanced(ImageEnhance.Brightness),
            "Color": self._enhanced(ImageEnhance.Color),
            "Contrast": self._enhanced(ImageEnhance.Contrast),
            "Sharpness": self._enhanced(ImageEnhance.Sharpness),
            "Posterize": lambda picture, number, _sign: ImageOps.posterize(
                picture, 8 - round(self.bits_taken * number / (self.levels - 1))
            ),
            "Solarize": lambda picture, number, _sign: ImageOps.solarize(
                picture, math.ceil(magnitudes(BRIGHTEST, 0.0, self.levels)[number])
            ),
            "AutoContrast": lambda picture, _number, _sign: ImageOps.autocontrast(picture),
            "Equalize": lambda picture, _number, _sign: ImageOps.equalize(picture),
            "Invert": lambda picture, _number, _sign: ImageOps.invert(picture),
        }

    def _at(self, largest: float, number: int) -> float:
        return magnitudes(0.0, largest, self.levels)[number]

    def _pixels(self, side: int, number: int, sign: float) -> int:
        return -int(sign * self._at(self.shift(side), number))

    def _enhanced(self, kind: Any) -> Change:
        return lambda picture, number, sign: kind(picture).enhance(
            1.0 + sign * self._at(self.strength, number)
        )


def _moved(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    """Each pixel from where the affine ``matrix`` maps it to."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )
