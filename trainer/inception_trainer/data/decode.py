"""Decodes, crops and scales images: encoded bytes to a square uint8 tensor ``[3, side, side]``.

Pillow decodes and torch scales, for all kinds of data and in every image: the trainer needs both
anyway, so pixels do not depend on what else is installed. What strangers give is opened as one of a
few formats only (:mod:`.pillow`). Training and evaluation differ in the region (:mod:`.crops`) and
in the flip alone.

Images that are tensors already (digits, CIFAR) only need :func:`scale_images`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from .base import UnreadableImage
from .colours import Picture, rgb
from .crops import FLIP, Box, Draw, centre_crop, random_resized_crop

INTERPOLATION_MODES = {"Bilinear": "bilinear", "Bicubic": "bicubic", "Nearest": "nearest-exact"}
"""``data.interpolation`` to the names of torch.

Its plain ``nearest`` rounds down; this one takes centres, as Pillow does.
"""
ENOUGH = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8, which averages and is faster, where that still has so many
pixels for each one that is wanted: then it cannot be seen in the result.
"""
ORIENTATION = 0x0112
"""Tag of EXIF: how the picture must be turned to stand upright."""
SIDEWAYS = 5
"""From this orientation on width and height change places."""


class ImageDecoder:
    """Encoded bytes to pixels, as ``data`` says: the one way for files, lists, shards and stores,
    in training, evaluation and mode Infer.
    """

    def __init__(self, config: DataConfig) -> None:
        """ConfigError where Pillow cannot be imported."""
        self._side = config.image_size
        self._share = config.evaluation_crop_ratio
        self._upright = config.exif_orientation == "Apply"
        self._most_pixels = config.max_pixels
        self._interpolation = config.interpolation
        self._pillow = _pillow()
        self._pillow.ignore_warnings()

    def __call__(self, data: bytes, draw: Draw | None) -> Tensor:
        """uint8 ``[3, side, side]``; ``draw`` are the random numbers of a training image.

        Raises UnreadableImage with the reason.
        """
        try:
            with self._pillow.open_picture(data, self._most_pixels) as picture:
                region = self._region(picture, draw)
        except UnreadableImage:
            raise
        # Dozens of parsers, each of which raises what it likes for bytes that make no sense to it.
        except Exception as error:
            raise UnreadableImage(str(error) or type(error).__name__) from error
        image = self._scaled(torch.from_numpy(np.array(region)).permute(2, 0, 1))
        if draw is not None and draw(FLIP) < 0.5:
            image = image.flip(-1)
        return image.contiguous()

    def header(self, data: bytes) -> tuple[int, int, str]:
        """Width, height and format as the file says them; raises UnreadableImage."""
        with self._pillow.open_picture(data, self._most_pixels) as picture:
            return picture.size[0], picture.size[1], picture.format or "unknown"

    def _scaled(self, image: Tensor) -> Tensor:
        if image.shape[1:] == (self._side, self._side):
            return image
        averages = self._interpolation != "Nearest"
        return torch_functional.interpolate(
            image[None],
            size=(self._side, self._side),
            mode=INTERPOLATION_MODES[self._interpolation],
            # torch refuses the argument for the nearest pixel.
            align_corners=False if averages else None,
            antialias=averages,
        )[0]

    def _region(self, picture: Picture, draw: Draw | None) -> Picture:
        """What the network sees of a picture, in mode RGB, not yet scaled unless it was large."""
        orientation = self._orientation(picture)
        width, height = picture.size
        if orientation >= SIDEWAYS:
            width, height = height, width
        if draw is None:
            box = centre_crop(width, height, self._share)
        else:
            box = random_resized_crop(width, height, draw)
        divisor = self._decode_smaller(picture, box)
        if picture.mode[0] in "IF":
            # Whether such pixels can be read must not depend on what is cut out of them.
            picture = rgb(picture)
        turn = self._pillow.TURNS.get(orientation)
        if turn is not None:
            picture = picture.transpose(turn)
        left, top, width, height = box
        edges = left, top, left + width, top + height
        if divisor == 1:
            return rgb(picture.crop(edges))
        # Edges between two pixels, which torch knows nothing of.
        between = tuple(edge / divisor for edge in edges)
        filter_ = self._pillow.Image.Resampling[self._interpolation.upper()]
        return rgb(picture).resize((self._side, self._side), filter_, box=between)

    def _orientation(self, picture: Picture) -> int:
        # Pillow turns a TIFF itself.
        if not self._upright or picture.format == "TIFF":
            return 1
        # A damaged description of a picture makes no damaged picture.
        with suppress(Exception):
            return int(picture.getexif().get(ORIENTATION, 1))
        return 1

    def _decode_smaller(self, picture: Picture, box: Box) -> int:
        """Have a JPEG decoded at a fraction of its size where that is enough: 2 for a half."""
        scale = ENOUGH * self._side / min(box[2:])
        # The nearest pixel is one of the picture, never an average.
        if picture.format not in ("JPEG", "MPO") or scale >= 1 or self._interpolation == "Nearest":
            return 1
        before = max(picture.size)
        picture.draft("RGB", tuple(math.ceil(side * scale) for side in picture.size))
        divisor: int = round(before / max(picture.size))
        return divisor


def _pillow() -> ModuleType:
    """The module :mod:`.pillow`, which needs Pillow: data in memory does not."""
    try:
        from . import pillow
    except ImportError:
        raise ConfigError(
            "data.kind: files of images need Pillow, which cannot be imported; install it"
        ) from None
    return pillow


def say_decoder() -> None:
    """Tell the log what decodes."""
    logger.info("image files are decoded by %s", _pillow().releases())


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
