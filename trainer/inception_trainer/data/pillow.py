"""Pillow, with the formats that are read and no others.

Importing this module imports all of it, which the launcher's fork server does once for all attempts
of a pod; it needs Pillow, unlike the modules of data in memory.
"""

from __future__ import annotations

import importlib
import math
import warnings
from contextlib import suppress
from io import BytesIO

from PIL import Image, UnidentifiedImageError, __version__, features

from .base import UnreadableImage

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "GIF": "GIF",
    "WEBP": "WebP",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "PPM": "PPM",
    "JPEG2000": "JPEG 2000",
    "AVIF": "AVIF",
}
"""Pillow's names of what is read, and everybody's. The most frequent is tried first.

Pillow knows 40 more, among them some that are no images of pixels, have no mark of their own and
take anything, or are handed to other programs (EPS to Ghostscript).
"""
PLUGINS = ("Jpeg", "Mpo", "Png", "Gif", "WebP", "Bmp", "Tiff", "Ppm", "Jpeg2K", "Avif")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation of EXIF: what makes the picture stand upright."""
SHOWN = 12
"""Bytes of a file of an unknown kind that messages show."""

for _name in PLUGINS:
    # Older releases have no AVIF.
    with suppress(ImportError):
        importlib.import_module(f"PIL.{_name}ImagePlugin")
READ = tuple(name for name in FORMATS if name in Image.OPEN)


def ignore_warnings() -> None:
    """Of files that are read all the same; a training would be told of each in each loader
    process.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def open_picture(data: bytes, most_pixels: int) -> Image.Image:
    """The picture with its size known and no pixel decoded; UnreadableImage for what is none, or
    has more pixels.
    """
    if not data:
        raise UnreadableImage("it is empty")
    # Some parsers make room for all pixels when they open: they ask for this, and take twice as
    # much.
    Image.MAX_IMAGE_PIXELS = math.ceil(most_pixels / 2)
    remedy = (
        f"More than {most_pixels} (data.maxPixels) could need more memory than there is: scale it "
        "down, or raise the key"
    )
    try:
        picture = Image.open(BytesIO(data), formats=READ)
    except UnidentifiedImageError:
        kinds = ", ".join(FORMATS[name] for name in READ)
        raise UnreadableImage(
            f"it is none of {kinds}, or broken from its start, which is {data[:SHOWN]!r}"
        ) from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{error} {remedy}") from None
    width, height = picture.size
    if width * height > most_pixels:
        raise UnreadableImage(f"it has {width} x {height} pixels. {remedy}")
    return picture


def releases() -> str:
    """Of Pillow and its JPEG library, whose releases may differ in the last bit of a pixel."""
    library = "libjpeg-turbo" if features.check("libjpeg_turbo") else "libjpeg"
    return f"Pillow {__version__} ({library} {features.version('jpg')})"
