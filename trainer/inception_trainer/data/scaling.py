"""How images are scaled to the side of the input (``data.interpolation``); encoded ones are scaled
by their decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MODES = {"Bilinear": "bilinear", "Bicubic": "bicubic", "Nearest": "nearest-exact"}
"""Names of torch and torchvision. Their plain ``nearest`` rounds down; this one takes centres, as
Pillow does.
"""


def scaled(images: Tensor, side: int, interpolation: str) -> Tensor:
    """``[n, c, h, w]`` of 0 to 255 in any type to uint8 ``[n, c, side, side]``, rounded.

    Nothing is averaged when images shrink: this is for small ones, which grow. Bicubic overshoots
    at edges; what leaves the range is cut off.
    """
    if not len(images):
        return torch.zeros(0, images.shape[1], side, side, dtype=torch.uint8)
    mode = MODES[interpolation]
    corners = None if interpolation == "Nearest" else False
    larger = functional.interpolate(
        images.float(), size=(side, side), mode=mode, align_corners=corners
    )
    return larger.round_().clamp_(0, 255).byte()
