"""Decodes, crops and scales images: encoded bytes to a square uint8 tensor ``[3, side, side]``.

Training: a random resized crop (area 0.08 to 1, ratio 3/4 to 4/3) and a random flip from five
uniform numbers. Validation: the square in the centre whose side is a given share of the short side
(``data.evaluationCropRatio``). Both are scaled as ``data.interpolation`` says; bilinear and bicubic
average when they shrink, nearest picks pixels.

torchvision decodes where it works, Pillow elsewhere and whatever torchvision refuses. Images that
are tensors already (digits, CIFAR) only need :func:`scale_images`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from inception_trainer.errors import ConfigError

Decoder = Callable[[bytes, int, "Sequence[float] | None"], Tensor]
"""(encoded bytes, side, five uniform numbers or None) to uint8 ``[3, side, side]``."""
BROKEN = (OSError, RuntimeError, ValueError, SyntaxError)
"""What decoders raise for a file that is no image (Pillow uses SyntaxError for broken PNG)."""

INTERPOLATION_MODES = {"Bilinear": "bilinear", "Bicubic": "bicubic", "Nearest": "nearest-exact"}
"""``data.interpolation`` to the names of torch and torchvision.

Their plain ``nearest`` rounds down; this one takes centres, as Pillow does.
"""
CENTRE = 224 / 256
"""Share of the short side that validation keeps unless the configuration says otherwise."""
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


def best_decoder(centre: float = CENTRE, interpolation: str = "Bilinear") -> Decoder:
    """Torchvision's decoder when it imports and works, else Pillow's; ConfigError when neither
    does.
    """
    # A torchvision built for another torch fails with RuntimeError, not ImportError.
    with suppress(ImportError, RuntimeError, AttributeError):
        io = import_module("torchvision.io")
        functional = import_module("torchvision.transforms.v2.functional")
        decode = _torchvision(io, functional, centre, interpolation)
        # Once its decoders are gone, Pillow takes over: no need for a warning per loader process
        # until then.
        warnings.filterwarnings(
            "ignore", "The image decoding and encoding capabilities", DeprecationWarning
        )
        with suppress(ImportError):
            pillow = _pillow(import_module("PIL.Image"), centre, interpolation)
            return _with_fallback(decode, pillow)
        return decode
    try:
        return _pillow(import_module("PIL.Image"), centre, interpolation)
    except ImportError:
        raise ConfigError(
            "data.kind: files of images need torchvision or Pillow, and neither can be imported"
        ) from None


def _with_fallback(fast: Decoder, tolerant: Decoder) -> Decoder:
    """``fast``, and ``tolerant`` for what it refuses."""

    def decode(data: bytes, side: int, draws: Sequence[float] | None) -> Tensor:
        try:
            return fast(data, side, draws)
        except BROKEN:
            # torchvision knows fewer formats (no BMP), and refuses some files that others read.
            return tolerant(data, side, draws)

    return decode


def crop_box(width: int, height: int, draws: Sequence[float] | None, centre: float = CENTRE) -> Box:
    """The region to scale; without ``draws`` the square in the centre."""
    if draws is None:
        side = min(width, height) * centre
        return (width - side) / 2, (height - side) / 2, side, side
    area = width * height * (0.08 + 0.92 * draws[0])
    ratio = math.exp(math.log(3 / 4) + draws[1] * math.log(16 / 9))
    crop_width = min(width, max(1, round(math.sqrt(area * ratio))))
    crop_height = min(height, max(1, round(math.sqrt(area / ratio))))
    # + 1: a region as large as the image has one place, not none.
    left = int(draws[2] * (width - crop_width + 1))
    top = int(draws[3] * (height - crop_height + 1))
    return left, top, crop_width, crop_height


def _flips(draws: Sequence[float] | None) -> bool:
    return draws is not None and draws[4] < 0.5


def _torchvision(
    io: Any, functional: Any, centre: float = CENTRE, interpolation: str = "Bilinear"
) -> Decoder:
    rgb = io.ImageReadMode.RGB
    mode = functional.InterpolationMode(INTERPOLATION_MODES[interpolation])
    averages = interpolation != "Nearest"

    def decode(data: bytes, side: int, draws: Sequence[float] | None) -> Tensor:
        # A copy, because torch wants memory that it could write to.
        image = io.decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=rgb)
        box = crop_box(image.shape[2], image.shape[1], draws, centre)
        left, top, width, height = (int(value) for value in box)
        image = functional.resized_crop(
            image, top, left, max(1, height), max(1, width), [side, side], mode, antialias=averages
        )
        image = image.flip(-1) if _flips(draws) else image
        return torch.as_tensor(image).contiguous()

    return decode


def _pillow(image_module: Any, centre: float = CENTRE, interpolation: str = "Bilinear") -> Decoder:
    filter_ = image_module.Resampling[interpolation.upper()]

    def decode(data: bytes, side: int, draws: Sequence[float] | None) -> Tensor:
        with image_module.open(BytesIO(data)) as opened:
            width, height = opened.size
            left, top, crop_width, crop_height = crop_box(width, height, draws, centre)
            if interpolation != "Nearest":
                # JPEG can be decoded at 1/2, 1/4, 1/8, which averages and is faster: the smallest
                # that still covers the crop.
                scale = side / max(1, min(crop_width, crop_height))
                opened.draft("RGB", (max(1, int(width * scale)), max(1, int(height * scale))))
            x = opened.size[0] / width
            y = opened.size[1] / height
            box = (left * x, top * y, (left + crop_width) * x, (top + crop_height) * y)
            scaled = opened.convert("RGB").resize((side, side), filter_, box=box)
        pixels = np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1)
        pixels = pixels[:, :, ::-1] if _flips(draws) else pixels
        return torch.from_numpy(pixels.copy())

    return decode


def scale_images(images: Tensor, side: int, interpolation: str) -> Tensor:
    """``[n, c, h, w]`` of 0 to 255 in any type to uint8 ``[n, c, side, side]``, rounded.

    Nothing is averaged when images shrink: this is for small ones, which grow. Bicubic overshoots
    at edges; what leaves the range is cut off.
    """
    if not len(images):
        return torch.zeros(0, images.shape[1], side, side, dtype=torch.uint8)
    larger = torch_functional.interpolate(
        images.float(),
        size=(side, side),
        mode=INTERPOLATION_MODES[interpolation],
        # torch refuses the argument for the nearest pixel.
        align_corners=None if interpolation == "Nearest" else False,
    )
    return larger.round_().clamp_(0, 255).byte()
