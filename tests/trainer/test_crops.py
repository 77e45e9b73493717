"""The crops of training are torchvision's: the same shares of the image, ratios and places, as
distributions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from inception_trainer.data.counter_rng import SampleUniforms, uniforms
from inception_trainer.data.crops import Box, centre_crop, random_resized_crop

DRAWS = 10_000
FAR = 0.038
"""Two samples of 10,000 numbers of one distribution lie further apart (Kolmogorov and Smirnov) once
in a million pairs.
"""
MEAN_AREAS = {(500, 375): 0.432, (1000, 400): 0.255, (400, 400): 0.483, (300, 900): 0.224}
Crop = Callable[[int, int, Callable[[int], float]], Box]


def figures(boxes: np.ndarray, width: int, height: int) -> dict[str, np.ndarray]:
    """What a box is, in numbers that do not depend on one another's scale."""
    left, top, wide, tall = boxes.T.astype(float)
    return {
        "area": wide * tall / (width * height),
        "ratio": wide / tall,
        # A box as wide as the image has one place.
        "left": np.where(wide < width, left / np.maximum(1, width - wide), 0.5),
        "top": np.where(tall < height, top / np.maximum(1, height - tall), 0.5),
    }


@functools.cache
def drawn(crop: Crop, width: int, height: int) -> np.ndarray:
    return np.array([crop(width, height, SampleUniforms(n, 7, 3)) for n in range(DRAWS)])


@functools.cache
def torchvisions(width: int, height: int) -> np.ndarray:
    torch.manual_seed(0)
    crop = RandomResizedCrop(224)
    picture = torch.zeros(1, height, width)
    rows = [crop.make_params([picture]) for _ in range(DRAWS)]
    return np.array([[row["left"], row["top"], row["width"], row["height"]] for row in rows])


def distance(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference between the distribution functions of two samples."""
    values = np.concatenate([one, two])
    below = [
        np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (one, two)
    ]
    return float(np.abs(below[0] - below[1]).max())


def distances(crop: Crop, width: int, height: int) -> dict[str, float]:
    ours, theirs = (
        figures(boxes, width, height)
        for boxes in (drawn(crop, width, height), torchvisions(width, height))
    )
    return {name: distance(ours[name], theirs[name]) for name in ours}


@pytest.mark.parametrize(("width", "height"), MEAN_AREAS)
def test_crops_are_distributed_as_torchvisions(width: int, height: int) -> None:
    assert max(distances(random_resized_crop, width, height).values()) < FAR


def cut_to_fit(width: int, height: int, draw: Callable[[int], float]) -> Box:
    """One try, whose rectangle is cut where it does not fit."""
    area = width * height * (0.08 + 0.92 * draw(0))
    ratio = math.exp(math.log(3 / 4) + draw(1) * math.log(16 / 9))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    tall = min(height, max(1, round(math.sqrt(area / ratio))))
    return int(draw(2) * (width - wide + 1)), int(draw(3) * (height - tall + 1)), wide, tall


def even_ratios(width: int, height: int, draw: Callable[[int], float]) -> Box:
    """Ratios that are even themselves, not their logarithms; else as it should be."""
    skewed = math.log((0.75 + draw(1) * (4 / 3 - 0.75)) / 0.75) / math.log(16 / 9)
    return random_resized_crop(width, height, lambda n: skewed if n == 1 else draw(n))


def same_numbers_again(width: int, height: int, draw: Callable[[int], float]) -> Box:
    """Further tries that draw what the first has drawn."""
    return random_resized_crop(width, height, lambda n: draw(n if n < 5 else (n - 5) % 2))


@pytest.mark.parametrize("wrong", [cut_to_fit, even_ratios, same_numbers_again])
def test_wrong_ways_to_draw_would_be_noticed(wrong: Crop) -> None:
    found = [distances(wrong, width, height) for width, height in ((500, 375), (1000, 400))]
    assert max(value for each in found for value in each.values()) > FAR


@pytest.mark.parametrize(("size", "expected"), MEAN_AREAS.items())
def test_the_mean_area_is_that_of_torchvision(size: tuple[int, int], expected: float) -> None:
    area = figures(drawn(random_resized_crop, *size), *size)["area"]
    theirs = figures(torchvisions(*size), *size)["area"]
    # Almost four deviations of the mean of so many.
    assert area.mean() == pytest.approx(theirs.mean(), abs=0.01)
    assert area.mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("width", "height"), MEAN_AREAS)
def test_no_crop_leaves_the_ratios_that_are_allowed(width: int, height: int) -> None:
    boxes = drawn(random_resized_crop, width, height)
    # Sides are rounded to whole pixels.
    assert (boxes[:, 2] + 0.5 >= 0.75 * (boxes[:, 3] - 0.5)).all()
    assert (boxes[:, 2] - 0.5 <= 4 / 3 * (boxes[:, 3] + 0.5)).all()


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 100), (433, 0, 133, 100)),
        ((100, 1000), (0, 433, 100, 133)),
        ((3000, 1), (1499, 0, 1, 1)),
        ((1, 3000), (0, 1499, 1, 1)),
        ((100, 100), (0, 0, 100, 100)),
    ],
)
def test_where_nothing_fits_it_is_the_largest_region_in_the_centre(
    size: tuple[int, int], box: Box
) -> None:
    """As torchvision falls back to, here because every try wants all of the area at ratio 4/3."""
    always = random_resized_crop(*size, lambda number: 1 - 1e-9)
    assert always == box


def test_crops_stay_inside() -> None:
    generator = np.random.default_rng(0)
    for index in range(500):
        width, height = generator.integers(1, 500, 2).tolist()
        left, top, w, h = random_resized_crop(width, height, SampleUniforms(index, 0, 0))
        assert 0 <= left < left + w <= width
        assert 0 <= top < top + h <= height


def test_the_crop_of_evaluation_is_a_square_in_the_centre() -> None:
    assert centre_crop(256, 512, 224 / 256) == (16, 144, 224, 224)
    assert centre_crop(256, 512, 1.0) == (0, 128, 256, 256)
    assert centre_crop(1, 1, 0.875) == (0, 0, 1, 1)


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5, -1])
def test_the_numbers_of_one_sample_are_a_row_of_those_of_many(seed: int) -> None:
    indices = np.array([0, 1, 77, 10**9])
    rows = uniforms(indices, seed, 12, 30)
    for row, index in zip(rows, indices.tolist(), strict=True):
        draw = SampleUniforms(index, seed, 12)
        # In any order, and as often as somebody asks.
        assert [draw(column) for column in reversed(range(30))] == row[::-1].tolist()


def test_a_crop_depends_on_seed_epoch_and_index_alone() -> None:
    def box(index: int, seed: int, epoch: int) -> Box:
        return random_resized_crop(500, 375, SampleUniforms(index, seed, epoch))

    assert box(5, 0, 0) == box(5, 0, 0)
    others = [box(6, 0, 0), box(5, 1, 0), box(5, 0, 1)]
    assert box(5, 0, 0) not in others
    assert len(set(others)) == 3
