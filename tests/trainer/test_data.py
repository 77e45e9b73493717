"""What the datasets promise: fixed splits, learnable images, errors that name the path."""

import numpy as np
import pytest
import torch
from PIL import Image

from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.base import UNREADABLE
from inception_trainer.errors import ConfigError, DataError, InputMissing


def splits(kind: str, **data):
    return open_splits(from_mapping({"data": {"kind": kind, **data}}))


def test_digits_hold_out_a_stratified_fifth() -> None:
    digits = splits("Digits")
    assert len(digits.train) + len(digits.val) == 1797
    assert len(digits.val) == pytest.approx(1797 / 5, abs=10)
    labels = digits.val.batch(np.arange(len(digits.val)), None).labels
    counts = torch.bincount(labels).tolist()
    assert len(counts) == 10
    assert max(counts) - min(counts) <= 2


def test_digits_are_upsampled_bytes() -> None:
    digits = splits("Digits", imageSize=64)
    batch = digits.train.batch(np.arange(5), None)
    assert (batch.images.shape, batch.images.dtype) == ((5, 1, 64, 64), torch.uint8)
    assert batch.images.max() > 200
    assert (digits.num_classes, digits.class_names[3]) == (10, "3")


def test_digits_normalisation_is_that_of_the_data() -> None:
    digits = splits("Digits")
    pixels = digits.train.batch(np.arange(len(digits.train)), None).images.float() / 255
    assert pixels.mean().item() == pytest.approx(digits.normalization.mean[0], abs=0.02)
    assert pixels.std().item() == pytest.approx(digits.normalization.std[0], abs=0.03)


def test_augmentation_is_a_function_of_epoch_and_index() -> None:
    train = splits("Digits").train
    together = train.batch(np.array([3, 50, 7]), 4).images
    alone = train.batch(np.array([50]), 4).images
    assert torch.equal(together[1], alone[0])
    others = [train.batch(np.array([50]), epoch).images for epoch in range(8)]
    assert any(not torch.equal(image, others[0]) for image in others)


def test_synthetic_is_seeded_and_differs_by_class() -> None:
    first, again = (splits("Synthetic", imageSize=32, numClasses=4, samples=40) for _ in range(2))
    indices = np.array([0, 1, 4, 39])
    one, two = first.train.batch(indices, 0), again.train.batch(indices, 0)
    assert torch.equal(one.images, two.images)
    assert one.labels.tolist() == [0, 1, 0, 3]
    assert one.images.shape == (4, 3, 32, 32)
    same, other = (one.images[0].float() - one.images[i].float() for i in (2, 1))
    assert same.abs().mean() < other.abs().mean()
    assert len(first.val) == 10
    assert len(first.val.batch(np.arange(0), None).images) == 0


def picture(path, side=40, colour=(200, 10, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side + 8), colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(3):
                picture(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_image_folder(folder) -> None:
    found = splits("ImageFolder", path=str(folder), imageSize=32, workers=0)
    assert (len(found.train), len(found.val), found.class_names) == (6, 6, ("cat", "dog"))
    batch = found.train.batch(np.array([0, 5]), 1)
    assert batch.labels.tolist() == [0, 1]
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert batch.images[0].float().mean((1, 2)).tolist() == pytest.approx([200, 10, 30], abs=3)


@pytest.mark.timeout(120)
def test_image_folder_with_workers_gives_the_same(folder) -> None:
    batches = [np.array([5, 1]), np.array([2, 0])]
    results = []
    for workers in (0, 2):
        train = splits("ImageFolder", path=str(folder), imageSize=32, workers=workers).train
        with train.stream(batches, 3) as stream:
            results.append(list(stream))
        train.close()
    for one, two in zip(*results, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)


def test_validation_preprocess_and_flat_lists(folder) -> None:
    (folder / "val").rename(folder / "validation_preprocess")
    assert len(splits("ImageFolder", path=str(folder), imageSize=32).val) == 6
    flat = folder / "flat"
    (flat).mkdir()
    (folder / "train").rename(flat / "train")
    picture(flat / "val" / "a.png")
    (flat / "val.txt").write_text("a.png 1\n")
    assert (
        splits("ImageFolder", path=str(flat), imageSize=32, workers=0)
        .val.batch(np.array([0]), None)
        .labels
        == 1
    )
    (flat / "val.txt").write_text("a.png 2\n")
    with pytest.raises(DataError, match=r"val\.txt line 1"):
        splits("ImageFolder", path=str(flat), imageSize=32)


def remove(*names):
    def act(folder) -> None:
        for path in sorted(folder.joinpath(*names).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.joinpath(*names).rmdir()

    return act


def empty_classes(folder) -> None:
    for path in folder.joinpath("train").rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (remove("."), InputMissing, ["no folder", "expected"]),
        (remove("train"), InputMissing, ["holds no folder train", "found: val"]),
        (remove("val"), InputMissing, ["val or validation_preprocess", "found: train"]),
        (remove("train", "dog"), DataError, ["val/dog", "train/ does not have"]),
        (empty_classes, InputMissing, ["no images below", "train"]),
    ],
    ids=["root", "train", "val", "class", "images"],
)
def test_missing_parts_are_named(folder, damage, error, words) -> None:
    target = folder / "data"
    target.mkdir()
    for split in ("train", "val"):
        (folder / split).rename(target / split)
    damage(target)
    with pytest.raises(error) as caught:
        splits("ImageFolder", path=str(target), imageSize=32)
    assert str(target) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_broken_images_are_marked_up_to_a_limit(folder) -> None:
    for name in ("cat", "dog"):
        for number in range(3, 9):
            (folder / "train" / name / f"{number}.png").write_bytes(b"not an image")
    train = splits("ImageFolder", path=str(folder), imageSize=32, workers=0).train
    labels = train.batch(np.arange(9), 0).labels.tolist()
    assert labels == [0] * 3 + [UNREADABLE] * 6
    with pytest.raises(
        DataError,
        match=r"more than 10 images cannot be read \(data.maxCorrupt\), among them .*\.png",
    ):
        train.batch(np.arange(18), 0)


def test_too_few_classes(folder) -> None:
    with pytest.raises(ConfigError, match=r"data\.numClasses: 5 is less than the 10"):
        splits("Digits", numClasses=5)


@pytest.mark.parametrize("ratio", [0.5, 1])
def test_evaluation_sees_the_share_of_the_image_that_the_configuration_names(
    tmp_path, ratio
) -> None:
    """A white frame around a black middle: the smaller the share, the less of the frame is seen."""
    picture = Image.new("RGB", (80, 80), "white")
    picture.paste("black", (20, 20, 60, 60))
    for split in ("train", "val"):
        path = tmp_path / split / "a" / "x.png"
        path.parent.mkdir(parents=True)
        picture.save(path)
    found = splits(
        "ImageFolder", path=str(tmp_path), imageSize=32, workers=0, evaluationCropRatio=ratio
    )
    image = found.val.batch(np.array([0]), None).images[0].float()
    expected = {0.5: 0, 1: 255 * 0.75}[ratio]
    assert image.mean().item() == pytest.approx(expected, abs=6)
