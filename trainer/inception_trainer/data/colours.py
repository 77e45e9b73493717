"""Any picture that Pillow opens as one of red, green and blue with 8 bits each.

Pillow's own ``convert("RGB")``, which torchvision's and timm's data sets call, is right for all
pictures of 8 bits and less: it drops transparency, takes the colours of a palette, inverts CMYK and
repeats grey. Of pictures with more bits it cuts off what is above 255, which makes a 16-bit
photograph white; those are scaled here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import UnreadableImage

Picture = Any
"""``PIL.Image.Image``, whose annotations differ between releases."""
SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose pictures of mode I have 16 bits: older releases of Pillow have no other mode for
PNG.
"""
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of TIFF."""
WHITE_IS_ZERO = 0
REMEDY = "save it with 8 or 16 bits"


def rgb(picture: Picture) -> Picture:
    """The picture in mode RGB; UnreadableImage where nobody knows which value is white."""
    mode = picture.mode
    if mode == "RGB":
        return picture
    if mode.startswith("I;16") or (mode == "I" and picture.format in SIXTEEN_BITS):
        picture = _grey(_from_16_bits(picture))
    elif mode == "I":
        picture = _grey(_from_integers(np.asarray(picture)))
    elif mode == "F":
        picture = _grey(_from_floats(np.asarray(picture)))
    elif mode in ("RGBa", "La"):
        # Colours that are multiplied with their opacity: Pillow divides on this way only.
        picture = picture.convert(mode.upper())
    return picture.convert("RGB")


def _grey(pixels: NDArray[np.uint8]) -> Picture:
    # Imported here, because data in memory needs no Pillow.
    from PIL import Image

    return Image.fromarray(pixels)


def _from_16_bits(picture: Picture) -> NDArray[np.uint8]:
    """The high byte, as Pillow and libpng take it of pictures with three channels."""
    values = np.asarray(picture).astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})
    # TIFF has 12 bits, too.
    bits = int(tags.get(BITS_PER_SAMPLE, (16,))[0])
    pixels = (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    return 255 - pixels if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else pixels


def _from_integers(values: NDArray[np.int32]) -> NDArray[np.uint8]:
    """32-bit integers: bytes in wide clothes, or measurements of an unknown range."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise UnreadableImage(
            f"its pixels are wide integers from {low} to {high}, and which of them is white only "
            f"its maker knows (0 to 255 would be read): {REMEDY}"
        )
    return values.astype(np.uint8)


def _from_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """White is 1, as TIFF, PFM and most programs have it."""
    low, high = float(values.min()), float(values.max())
    # Not the other way round: NaN is neither.
    if not (low >= 0 and high <= 1):
        raise UnreadableImage(
            f"its pixels are floats from {low:g} to {high:g}, and which of them is white only its "
            f"maker knows (0 to 1 would be read): {REMEDY}"
        )
    return np.rint(values * 255).astype(np.uint8)
