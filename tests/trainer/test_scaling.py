"""How images are scaled: three ways that differ, for every kind of data."""

import gzip
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.decode import ImageDecoder
from inception_trainer.data.images import files_to_classify

INTERPOLATIONS = ["Bilinear", "Bicubic", "Nearest"]
SIZE = 128, 160
CROPS = {
    "evaluation": None,
    "shrinks": [0.7, 0.5, 0.4, 0.6, 0.1],
    "grows": [0.0, 0.3, 0.7, 0.2, 0.8],
}


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3))


def decoder(interpolation: str, side: int) -> ImageDecoder:
    data = {"kind": "ImageFolder", "path": "/x", "imageSize": side, "interpolation": interpolation}
    return ImageDecoder(from_mapping({"data": data}).data)


@pytest.mark.parametrize("draws", CROPS.values(), ids=CROPS)
def test_the_ways_to_scale_differ(draws) -> None:
    draw = draws and draws.__getitem__
    images = [decoder(name, 64)(encoded(noise()), draw).float() for name in INTERPOLATIONS]
    for one, two in itertools.combinations(images, 2):
        assert (one - two).abs().mean() > 4


def test_nearest_makes_no_new_pixels_of_a_photograph() -> None:
    """Not even by decoding a JPEG at half its size, which averages."""
    file = io.BytesIO()
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(file, "JPEG", quality=95)
    pixels = decoder("Nearest", 32)(file.getvalue(), None).float()
    assert torch.minimum(pixels, 255 - pixels).max() < 30


@pytest.mark.parametrize("kind", ["Digits", "Cifar10", "ImageFolder", "classified"])
def test_every_kind_scales_as_the_configuration_says(kind, tmp_path) -> None:
    images = {name: first_image(kind, tmp_path, name) for name in INTERPOLATIONS}
    assert not torch.equal(images["Bilinear"], images["Bicubic"])
    # What is nearest was in the picture before.
    values = {name: len(image.unique()) for name, image in images.items()}
    assert values["Nearest"] == 2 < min(values["Bilinear"], values["Bicubic"])


def first_image(kind: str, root, interpolation: str) -> torch.Tensor:
    """An image of black and white squares at 96 pixels."""
    squares = 255 * (np.indices((32, 32)).sum(0) // 4 % 2)
    data = {"imageSize": 96, "workers": 0, "interpolation": interpolation}
    if kind == "Digits":
        table = "".join(
            ",".join(str(16 * (i // 2 % 2)) for i in range(64)) + f",{n % 10}\n" for n in range(20)
        )
        (root / "digits.csv.gz").write_bytes(gzip.compress(table.encode()))
    elif kind == "Cifar10":
        record = np.concatenate([[0], np.broadcast_to(squares, (3, 32, 32)).ravel()]).astype(
            np.uint8
        )
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            record.tofile(root / f"{name}.bin")
    else:
        for split in ("train", "val"):
            (root / split / "a").mkdir(parents=True, exist_ok=True)
            (root / split / "a" / "x.png").write_bytes(
                encoded(np.repeat(squares[:, :, None], 3, 2))
            )
    if kind == "classified":
        config = from_mapping({"data": {"kind": "ImageFolder", "path": str(root), **data}}).data
        return (
            files_to_classify([root / "val" / "a" / "x.png"], root, config)
            .dataset.batch(np.array([0]), None)
            .images
        )
    found = open_splits(from_mapping({"data": {"kind": kind, "path": str(root), **data}}))
    return found.val.batch(np.array([0]), None).images


def test_a_checkpoint_belongs_to_one_way_to_scale() -> None:
    one, two = (
        from_mapping({"data": {"kind": "Digits", "interpolation": name}})
        for name in INTERPOLATIONS[:2]
    )
    assert fingerprint(one) != fingerprint(two)
