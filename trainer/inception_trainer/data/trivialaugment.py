"""TrivialAugment (Müller and Hutter 2021) in its wide form, as torchvision has it: one change of
fourteen for each image, of a magnitude that is drawn evenly.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .changes import Change, Scale, changed, sign

DRAWS = 3
"""Uniform numbers that one image takes: which change, its magnitude, which way."""
BINS = 31
"""Magnitudes that there are; the first changes nothing or next to nothing."""
SHIFT = 32.0
"""Shift in pixels at the largest magnitude."""
SCALE = Scale(
    levels=BINS, shear=0.99, degrees=135.0, strength=0.99, bits_taken=6, shift=lambda _side: SHIFT
)
# Their order is that of the numbers that are drawn: it must stay, or resumed jobs see other images.
NAMES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color"),
    *("Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
CHANGES: tuple[Change, ...] = tuple(map(SCALE.changes().__getitem__, NAMES))


def trivial_augment(image: Tensor, draws: Sequence[float]) -> Tensor:
    """One image ``[1 or 3, height, width]`` of bytes, changed by its ``DRAWS`` uniform numbers."""
    which, magnitude, side = draws
    change = CHANGES[int(which * len(CHANGES))]
    return changed(image, lambda picture: change(picture, int(magnitude * BINS), sign(side)))
