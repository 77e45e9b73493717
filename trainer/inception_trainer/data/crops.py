"""Which region of an image the network sees: drawn in training, in the centre in evaluation.

Training draws as torchvision's RandomResizedCrop does, which the published recipes were made with:
an area and a ratio of width to height, again where the rectangle does not fit into the image, at
most ten times, and then the largest region in the centre whose ratio is allowed. A rectangle that
does not fit is never cut to fit: that would make crops larger, and of other ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable

SMALLEST_AREA, LARGEST_AREA = 0.08, 1.0
"""Of a region, as shares of the image."""
NARROWEST, WIDEST = 3 / 4, 4 / 3
"""Width over height of a region."""
TRIES = 10
AREA, RATIO, LEFT, TOP, FLIP = range(5)
"""What the first numbers of a sample are for."""
FIRST_RETRY = 5
"""From here on each further try takes two numbers, an area and a ratio."""
Draw = Callable[[int], float]
"""The uniform number in [0, 1) of a column, always the same one for a sample of an epoch."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def random_resized_crop(width: int, height: int, draw: Draw) -> Box:
    """The region that training sees of an image."""
    for attempt in range(TRIES):
        area, ratio = AREA, RATIO
        if attempt:
            area = FIRST_RETRY + 2 * (attempt - 1)
            ratio = area + 1
        region = _rectangle(width * height, draw(area), draw(ratio))
        if 0 < region[0] <= width and 0 < region[1] <= height:
            # + 1: a region as large as the image has one place, not none.
            left = int(draw(LEFT) * (width - region[0] + 1))
            top = int(draw(TOP) * (height - region[1] + 1))
            return left, top, *region
    return _largest_allowed(width, height)


def _rectangle(pixels: int, area: float, ratio: float) -> tuple[int, int]:
    """Width and height from two uniform numbers: areas are drawn evenly, logarithms of ratios
    too.
    """
    wanted = pixels * (SMALLEST_AREA + (LARGEST_AREA - SMALLEST_AREA) * area)
    shape = math.exp(math.log(NARROWEST) + math.log(WIDEST / NARROWEST) * ratio)
    return round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))


def _largest_allowed(width: int, height: int) -> Box:
    """In the centre; of an image that is not too long, all of it."""
    region_width = min(width, round(height * WIDEST))
    region_height = min(height, round(width / NARROWEST))
    left, top = (width - region_width) // 2, (height - region_height) // 2
    return left, top, region_width, region_height


def centre_crop(width: int, height: int, share: float) -> Box:
    """The square in the centre whose side is a share of the image's short side."""
    side = max(1, round(min(width, height) * share))
    return round((width - side) / 2), round((height - side) / 2), side, side
