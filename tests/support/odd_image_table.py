"""The table of docs/image-files.md: files by kind, and what becomes of each.

``python tests/support/odd_image_table.py`` prints it.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from odd_images import (
    BLACK_WHITE,
    COLOUR_ALPHA_PNG,
    COLOUR_PNG,
    COLOURS,
    GREY_ALPHA_PNG,
    GREY_PNG,
    GREYS,
    HEIGHT,
    LEVELS,
    PALETTE_PNG,
    WIDTH,
    OddImage,
    Quarters,
    black_white,
    colours,
    flat_gif,
    greys,
    half,
    noise,
    oriented,
    palette,
    png,
    png_chunk,
    png_header,
    quartered,
    readable,
    refused,
    saved,
    tiff,
    transparent,
    twelve_bits,
)

HIGH_BYTE = "read: the high byte of each value"
NO_ALPHA = "read: the colours, without transparency"
FIRST = "read: the first picture"
AS_STORED = "read: as stored, or upright with `data.exifOrientation: Apply`"
LARGE = "refused: more than `data.maxPixels`"
NO_FORMAT = "refused: of no format that is read; the message shows the first bytes"
PLTE = bytes(value for colour in COLOURS for value in colour)
WHITE_FIRST: Quarters = tuple((255 - level,) * 3 for level in LEVELS)  # type: ignore[misc]
PALER: Quarters = ((100, 100, 100),) * 4


def channels(values: object) -> np.ndarray:
    """An array with an axis for its one channel."""
    return quartered(values)[:, :, None]


def deep(colours_of_8_bits: object) -> np.ndarray:
    """The same colours in 16 bits."""
    return quartered(colours_of_8_bits).astype(np.uint16) * 257


def pngs() -> list[OddImage]:
    four = np.concatenate([quartered(COLOURS), channels((0, 0, 255, 255))], 2)
    two = np.concatenate([channels(LEVELS), channels((0, 0, 255, 255))], 2)
    plte = png_chunk(b"PLTE", PLTE)
    return [
        readable("PNG, colours of 8 bits", saved(colours(), "PNG")),
        readable("PNG, grey of 8 bits", saved(greys(), "PNG"), GREYS),
        readable("PNG, black and white (1 bit)", saved(black_white(), "PNG"), BLACK_WHITE),
        readable("PNG, grey of 2 bits", png(channels((0, 1, 2, 3)), 2, GREY_PNG), GREYS),
        readable("PNG, grey of 4 bits", png(channels((0, 5, 10, 15)), 4, GREY_PNG), GREYS),
        readable(
            "PNG, grey of 16 bits", png(deep(GREYS)[:, :, :1], 16, GREY_PNG), GREYS, HIGH_BYTE
        ),
        readable("PNG, colours of 16 bits", png(deep(COLOURS), 16, COLOUR_PNG), outcome=HIGH_BYTE),
        readable("PNG, palette of 8 bits", saved(palette(), "PNG", bits=8)),
        readable("PNG, palette of 2 bits", saved(palette(), "PNG", bits=2)),
        readable(
            "PNG, palette with transparency",
            saved(palette(), "PNG", transparency=b"\0\0\xff\xff"),
            outcome=NO_ALPHA,
        ),
        readable("PNG, colours and transparency", png(four, 8, COLOUR_ALPHA_PNG), outcome=NO_ALPHA),
        readable("PNG, grey and transparency", png(two, 8, GREY_ALPHA_PNG), GREYS, NO_ALPHA),
        readable(
            "PNG, grey and transparency of 16 bits",
            png(two.astype(np.uint16) * 257, 16, GREY_ALPHA_PNG),
            GREYS,
            "read: the high byte, without transparency",
        ),
        readable(
            "PNG, one colour transparent",
            saved(colours(), "PNG", transparency=COLOURS[0]),
            outcome=NO_ALPHA,
        ),
        readable("PNG, interlaced", png(quartered(COLOURS), 8, COLOUR_PNG, interlaced=True)),
        readable(
            "PNG, animated",
            saved(colours(), "PNG", save_all=True, append_images=[noise()]),
            outcome=FIRST,
        ),
        readable(
            "PNG with gamma and a colour profile",
            png(
                quartered(COLOURS),
                8,
                COLOUR_PNG,
                chunks=png_chunk(b"gAMA", struct.pack(">I", 100000))
                + png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile")),
            ),
            outcome="read: gamma and profiles are not applied",
        ),
        readable(
            "PNG with EXIF orientation",
            saved(colours(), "PNG", exif=oriented(6)),
            COLOURS,
            AS_STORED,
        ),
        readable("PNG with something after its end", saved(colours(), "PNG") + b"rest" * 99),
        readable(
            "PNG, palette of few colours",
            png(channels((0, 1, 2, 3)), 8, PALETTE_PNG, chunks=plte),
        ),
        refused("PNG, second half missing", half(saved(noise(), "PNG")), "truncated"),
        refused(
            "PNG, damaged header",
            bytes(bytearray(png_header(9, 9))[:30] + b"~~~"),
            "none of",
            "damaged",
        ),
        refused("PNG of 0 x 0 pixels", png_header(0, 0), "none of", "damaged"),
        OddImage(
            "PNG that claims 60000 x 60000 pixels",
            png_header(60000, 60000),
            LARGE,
            reason="data.maxPixels",
        ),
        refused(
            "PNG with a packed text of 20 MB",
            png(
                quartered(COLOURS),
                8,
                COLOUR_PNG,
                chunks=png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2 * 10**7))),
            ),
            "too large",
        ),
    ]


def jpegs() -> list[OddImage]:
    best = {"quality": 95, "subsampling": 0}
    plain = saved(colours(), "JPEG", **best)
    off = 8
    return [
        readable("JPEG", plain, tolerance=off),
        readable("JPEG called `.png`", plain, tolerance=off, outcome="read: names do not matter"),
        readable(
            "JPEG, progressive", saved(colours(), "JPEG", progressive=True, **best), tolerance=off
        ),
        readable(
            "JPEG, colours of half the size (4:2:0)",
            saved(colours(), "JPEG", quality=95, subsampling=2),
            tolerance=off,
        ),
        readable(
            "JPEG, red, green and blue as they are",
            saved(colours(), "JPEG", keep_rgb=True, **best),
            tolerance=off,
        ),
        readable("JPEG, grey", saved(greys(), "JPEG", quality=95), GREYS, tolerance=off),
        readable("JPEG, CMYK", saved(colours().convert("CMYK"), "JPEG", quality=95), tolerance=off),
        readable(
            "JPEG with EXIF orientation",
            saved(colours(), "JPEG", exif=oriented(6), **best),
            COLOURS,
            AS_STORED,
            off,
        ),
        readable(
            "JPEG with damaged EXIF",
            saved(colours(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09", **best),
            tolerance=off,
        ),
        readable("JPEG with something after its end", plain + bytes(1000), tolerance=off),
        readable(
            "JPEG of several pictures (MPO)",
            saved(colours(), "MPO", save_all=True, append_images=[noise()], **best),
            COLOURS,
            FIRST,
            off,
        ),
        refused("JPEG, second half missing", half(saved(noise(), "JPEG", quality=95)), "truncated"),
        refused(
            "JPEG, progressive, second half missing",
            half(saved(noise(), "JPEG", progressive=True)),
            "truncated",
        ),
        refused("JPEG, its first two bytes alone", b"\xff\xd8", "none of", "damaged"),
        OddImage(
            "JPEG that claims 65500 x 65500 pixels",
            _resized_jpeg(plain, 65500),
            LARGE,
            reason="data.maxPixels",
        ),
    ]


def _resized_jpeg(data: bytes, side: int) -> bytes:
    """A JPEG whose header lies about its size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def others() -> list[OddImage]:
    lossless = {"lossless": True, "exact": True}
    bmp = saved(colours(), "BMP")
    return [
        readable("GIF", saved(palette(), "GIF")),
        readable(
            "GIF, animated",
            saved(palette(), "GIF", save_all=True, append_images=[noise()]),
            outcome=FIRST,
        ),
        readable("GIF, transparent", saved(palette(), "GIF", transparency=0), outcome=NO_ALPHA),
        readable("GIF, interlaced", saved(palette(), "GIF", interlace=1)),
        refused("GIF, second half missing", half(saved(noise().convert("P"), "GIF")), "truncated"),
        OddImage(
            "GIF that claims 65535 x 65535 pixels",
            flat_gif(65535, 65535),
            LARGE,
            reason="data.maxPixels",
        ),
        readable("WebP", saved(colours(), "WEBP", quality=95), tolerance=25),
        readable("WebP, lossless", saved(colours(), "WEBP", **lossless)),
        readable(
            "WebP with transparency",
            saved(transparent(colours()), "WEBP", **lossless),
            outcome=NO_ALPHA,
        ),
        readable(
            "WebP, animated",
            saved(colours(), "WEBP", save_all=True, append_images=[noise()], **lossless),
            outcome=FIRST,
        ),
        refused(
            "WebP, second half missing", half(saved(noise(), "WEBP", **lossless)), "", "truncated"
        ),
        readable("BMP", bmp),
        readable("BMP, palette", saved(palette(), "BMP")),
        readable("BMP, black and white", saved(black_white(), "BMP"), BLACK_WHITE),
        readable("BMP with transparency", saved(transparent(colours()), "BMP"), outcome=NO_ALPHA),
        readable("BMP, top row first", _top_first(bmp)),
        refused("BMP, second half missing", half(bmp), "truncated"),
        readable("PPM, PGM, PBM", saved(colours(), "PPM")),
        readable(
            "PGM of 16 bits",
            f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + deep(LEVELS).astype(">u2").tobytes(),
            GREYS,
            HIGH_BYTE,
        ),
        readable(
            "PFM of floats from 0 to 1",
            saved(Image.fromarray((quartered(LEVELS) / 255).astype(np.float32)), "PPM"),
            GREYS,
            "read: 1 is white",
        ),
        readable("JPEG 2000", saved(colours(), "JPEG2000", irreversible=False)),
        readable(
            "JPEG 2000, grey of 16 bits",
            saved(Image.fromarray(deep(LEVELS)), "JPEG2000"),
            GREYS,
            HIGH_BYTE,
        ),
        readable(
            "AVIF",
            saved(colours(), "AVIF", quality=95, subsampling="4:4:4"),
            outcome="read, where Pillow can (11.3 and later)",
            tolerance=25,
        ),
    ]


def _top_first(data: bytes) -> bytes:
    """A BMP the other way up: a negative height says so."""
    size = WIDTH * 3
    at = struct.unpack_from("<I", data, 10)[0]
    rows = [data[at + number * size :][:size] for number in range(HEIGHT)]
    return data[:22] + struct.pack("<i", -HEIGHT) + data[26:at] + b"".join(rows[::-1])


def tiffs() -> list[OddImage]:
    grey = deep(LEVELS)
    floats = (quartered(LEVELS) / 255).astype(np.float32)
    whole = quartered(LEVELS).astype(np.int32)
    twelve = quartered((0, 85 * 16, 170 * 16, 255 * 16))
    white_zero, black_zero = 0, 1
    return [
        readable("TIFF", saved(colours(), "TIFF")),
        readable("TIFF, packed (LZW)", saved(colours(), "TIFF", compression="tiff_lzw")),
        readable(
            "TIFF, packed as JPEG",
            saved(colours(), "TIFF", compression="jpeg", quality=95),
            tolerance=12,
        ),
        readable(
            "TIFF of a fax (1 bit, group 4)",
            saved(black_white(), "TIFF", compression="group4"),
            BLACK_WHITE,
        ),
        readable("TIFF, CMYK", saved(colours().convert("CMYK"), "TIFF")),
        readable("TIFF with transparency", saved(transparent(colours()), "TIFF"), outcome=NO_ALPHA),
        readable(
            "TIFF, several pages",
            saved(colours(), "TIFF", save_all=True, append_images=[noise()]),
            outcome=FIRST,
        ),
        readable(
            "TIFF with an orientation",
            saved(colours(), "TIFF", exif=oriented(3)),
            COLOURS[::-1],
            "read: always upright, as Pillow reads it",
        ),
        readable("TIFF, grey of 16 bits", saved(Image.fromarray(grey), "TIFF"), GREYS, HIGH_BYTE),
        readable(
            "TIFF, grey of 16 bits, high byte first",
            saved(Image.fromarray(grey.astype(">u2")), "TIFF"),
            GREYS,
            HIGH_BYTE,
        ),
        readable(
            "TIFF, grey of 16 bits, 0 is white",
            tiff(grey.astype("<u2").tobytes(), (16,), white_zero),
            WHITE_FIRST,
            HIGH_BYTE,
        ),
        readable(
            "TIFF, grey of 12 bits",
            tiff(twelve_bits(twelve), (12,), black_zero),
            GREYS,
            "read: the high 8 bits",
        ),
        readable(
            "TIFF, colours of 16 bits",
            tiff(deep(COLOURS).astype("<u2").tobytes(), (16, 16, 16), 2),
            COLOURS,
            HIGH_BYTE,
        ),
        readable(
            "TIFF, floats from 0 to 1",
            saved(Image.fromarray(floats), "TIFF"),
            GREYS,
            "read: 1 is white",
        ),
        refused(
            "TIFF, other floats",
            saved(Image.fromarray(floats * 255), "TIFF"),
            "floats from 0 to 255",
            "which value is white is not known",
        ),
        readable(
            "TIFF, 32-bit integers from 0 to 255", saved(Image.fromarray(whole), "TIFF"), GREYS
        ),
        refused(
            "TIFF, other 32-bit integers",
            saved(Image.fromarray(whole * 100), "TIFF"),
            "integers from 0 to 25500",
            "which value is white is not known",
        ),
        refused(
            "TIFF, 16-bit integers with a sign",
            tiff((whole - 99).astype("<i2").tobytes(), (16,), black_zero, signed=True),
            "integers from -99",
            "which value is white is not known",
        ),
        readable(
            "TIFF, colour model LAB",
            saved(colours().convert("LAB"), "TIFF"),
            tolerance=6,
        ),
        refused("TIFF, second half missing", half(saved(noise(), "TIFF")), "", "truncated"),
        OddImage(
            "TIFF that claims 100000 x 100000 pixels",
            tiff(b"\0", (8,), black_zero, size=(100000, 100000)),
            LARGE,
            reason="data.maxPixels",
        ),
    ]


def no_images() -> list[OddImage]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x", "y")
    kinds = {
        "A text called `.png`": b"not an image",
        "A web page called `.jpg`": b"<!DOCTYPE html><html></html>",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.7\n",
        "EPS, which would need another program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9",
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "A film (MP4)": b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2",
        "A pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "An archive (ZIP)": packed.getvalue(),
        "Packed bytes (gzip)": gzip.compress(bytes(99)),
        "An array (`.npy`)": b"\x93NUMPY\x01\0v\0" + bytes(99),
        "An icon (ICO)": saved(colours(), "ICO"),
        "TGA, PCX and what else Pillow knows": saved(colours(), "TGA"),
        "Nothing but zeros": bytes(5000),
    }
    rows = [OddImage(name, data, NO_FORMAT, reason="none of JPEG") for name, data in kinds.items()]
    return [refused("An empty file", b"", "empty"), *rows]


def sizes() -> list[OddImage]:
    one = Image.new("RGB", (1, 1), PALER[0])
    return [
        readable("An image of one pixel", saved(one, "PNG"), PALER),
        readable("An image of 3000 x 1 pixels", saved(one.resize((3000, 1)), "PNG"), PALER),
        readable("An image of 1 x 3000 pixels", saved(one.resize((1, 3000)), "PNG"), PALER),
    ]


GROUPS = {
    "PNG": pngs,
    "JPEG": jpegs,
    "TIFF": tiffs,
    "Other formats": others,
    "Sizes": sizes,
    "No images": no_images,
}


@functools.cache
def cases() -> list[OddImage]:
    return [case for group in GROUPS.values() for case in group()]


def table() -> str:
    rows = [f"| {case.name} | {case.outcome} |" for case in cases()]
    return "\n".join(["| file | what happens |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
