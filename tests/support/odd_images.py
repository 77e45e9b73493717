"""Files as people bring them, made by program; docs/image-files.md has a row for each.

The pictures have four quarters, so that it shows when one is turned, cut or read wrongly. Formats
that Pillow does not write (interlaced PNG, 16 bits in colour) are written here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
Quarters = tuple[tuple[int, int, int], ...]
"""Red, green and blue: top left, top right, bottom left, bottom right."""
COLOURS: Quarters = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 220, 60))
LEVELS = (0, 85, 170, 255)
"""Greys that have an exact value in two bits and in sixteen."""
GREYS: Quarters = tuple((level, level, level) for level in LEVELS)
BLACK_WHITE: Quarters = ((0, 0, 0), (255, 255, 255), (255, 255, 255), (0, 0, 0))
READ = "read"


@dataclass(frozen=True)
class OddImage:
    """One file and what becomes of it."""

    name: str
    """As the page calls it."""
    data: bytes
    outcome: str
    """As the page tells it."""
    quarters: Quarters | None = None
    """The colours that the network sees; None: the file is refused."""
    reason: str = ""
    """Words that the reason of a refusal has."""
    tolerance: int = 0
    """How far a colour may be off, where the format loses some."""


def quartered(values: Any) -> Any:
    """An array ``[height, width, channels]`` whose quarters have these values."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.array(values)[2 * (rows >= HEIGHT // 2) + (columns >= WIDTH // 2)]


def colours() -> Image.Image:
    return Image.fromarray(quartered(COLOURS).astype(np.uint8))


def greys() -> Image.Image:
    return Image.fromarray(quartered(LEVELS).astype(np.uint8))


def palette() -> Image.Image:
    picture = Image.fromarray(quartered((0, 1, 2, 3)).astype(np.uint8)).convert("P")
    picture.putdata(quartered((0, 1, 2, 3)).ravel().tolist())
    picture.putpalette([value for colour in COLOURS for value in colour])
    return picture


def black_white() -> Image.Image:
    return Image.fromarray(quartered((0, 255, 255, 0)).astype(np.uint8)).convert("1")


def transparent(picture: Image.Image) -> Image.Image:
    """The picture with its upper half invisible: its colours are there beneath."""
    picture.putalpha(Image.fromarray(quartered((0, 0, 255, 255)).astype(np.uint8)))
    return picture


def noise() -> Image.Image:
    """What no format makes small: a half of its bytes is half of the picture."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Left, top, and steps to the right and down of the seven passes of an interlaced PNG."""
GREY_PNG, COLOUR_PNG, PALETTE_PNG, GREY_ALPHA_PNG, COLOUR_ALPHA_PNG = 0, 2, 3, 4, 6


def png(
    samples: Any, depth: int, kind: int, *, interlaced: bool = False, chunks: bytes = b""
) -> bytes:
    """A PNG of samples ``[height, width, channels]``; ``chunks`` come before the pixels."""
    height, width = samples.shape[:2]
    steps = ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = [
        b"\0" + _png_line(line.ravel(), depth)
        for left, top, right, down in steps
        for line in samples[top::down, left::right]
    ]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + chunks
        + png_chunk(b"IDAT", zlib.compress(b"".join(lines)))
        + png_chunk(b"IEND", b"")
    )


def _png_line(values: Any, depth: int) -> bytes:
    if depth == 16:
        return bytes(values.astype(">u2").tobytes())
    bits = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, -depth:]
    return bytes(np.packbits(bits.ravel()).tobytes())


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and no more."""
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_PNG, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")


def tiff(
    pixels: bytes,
    bits: tuple[int, ...],
    photometric: int,
    *,
    signed: bool = False,
    size: Any = None,
) -> bytes:
    """A TIFF without compression, of the low byte first."""
    width, height = size or (WIDTH, HEIGHT)
    fields = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits[0]),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 0),
        (277, 3, len(bits)),
        (278, 4, height),
        (279, 4, len(pixels)),
        (339, 3, 2 if signed else 1),
    ]
    after = 8 + 2 + 12 * len(fields) + 4
    values = struct.pack(f"<{len(bits)}H", *bits) if len(bits) > 1 else b""
    entries = b""
    for tag, kind, value in fields:
        count = 1
        if tag == 258 and len(bits) > 1:
            count, kind, value = len(bits), 3, after
        elif tag == 273:
            value = after + len(values)
        packed = (
            struct.pack("<HH", value, 0) if kind == 3 and count == 1 else struct.pack("<I", value)
        )
        entries += struct.pack("<HHI", tag, kind, count) + packed
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields))
    return head + entries + struct.pack("<I", 0) + values + pixels


def twelve_bits(values: Any) -> bytes:
    """Two samples in three bytes."""
    first, second = values.reshape(-1, 2).astype(np.uint16).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    return bytes(packed.astype(np.uint8).tobytes())


def flat_gif(width: int, height: int) -> bytes:
    """A GIF of the screen's size whose first picture asks to be cleared: some readers make room for
    all of it when they open it.
    """
    control = b"\x21\xf9\x04" + bytes([2 << 2]) + b"\0\0\0\0"
    picture = b"\x2c" + struct.pack("<HHHH", 0, 0, width, height) + b"\x80" + b"\0" * 6 + b"\x02\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + control + picture + b"\x3b"


Make = Callable[[], bytes]


def readable(
    name: str, data: bytes, quarters: Quarters = COLOURS, outcome: str = READ, tolerance: int = 0
) -> OddImage:
    return OddImage(name, data, outcome, quarters, tolerance=tolerance)


def refused(name: str, data: bytes, reason: str, outcome: str = "") -> OddImage:
    return OddImage(name, data, f"refused: {outcome or reason}", None, reason)
