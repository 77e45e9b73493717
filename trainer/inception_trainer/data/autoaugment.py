"""AutoAugment (Cubuk et al. 2018, arXiv:1805.09501) with the policies that were found for ImageNet
and CIFAR-10, as torchvision has it: for each image one of 25 pairs of changes, each of which is
made with a probability of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .changes import Picture, Scale, changed, sign

DRAWS = 5
"""Uniform numbers that one image takes: which pair, whether each change is made, and which way."""
LEVELS = 10
"""Magnitudes that there are, from 0 to 9."""
SHIFT = 150.0 / 331.0
"""Shift at the largest magnitude, as a share of the side."""
SCALE = Scale(
    levels=LEVELS,
    shear=0.3,
    degrees=30.0,
    strength=0.9,
    bits_taken=4,
    shift=lambda side: SHIFT * side,
)
CHANGES = SCALE.changes()


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
    pairs = POLICIES[policy]
    pair = pairs[int(draws[0] * len(pairs))]

    def change(picture: Picture) -> Picture:
        for step, chance, side in zip(pair, draws[1:3], draws[3:5], strict=True):
            if chance < step.probability:
                picture = CHANGES[step.name](picture, step.level, sign(side))
        return picture

    return changed(image, change)
