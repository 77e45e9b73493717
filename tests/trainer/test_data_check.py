"""``data check`` reads all data without training: what it reports, and with which exit code."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cifar_files
from inception_trainer import cli
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.check import PixelSums, check_data
from shard_files import same_data

pytestmark = [pytest.mark.usefixtures("copies_of_indices"), pytest.mark.timeout(120)]


def run(kind: str, root: object, capsys: Any, *more: str, batch: int = 4) -> tuple[int, str]:
    keys = {"data.kind": kind, "data.path": root, "data.imageSize": 32, "batch.global": batch}
    arguments = [word for name, value in keys.items() for word in ("--set", f"{name}={value}")]
    try:
        code = cli.main(["data", "check", *arguments, *more])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().out


def report(kind: str, root: object, capsys: Any, *more: str, batch: int = 4) -> Any:
    code, text = run(kind, root, capsys, "--json", *more, batch=batch)
    content = json.loads(text)
    assert (content["problem"] or {"exitCode": 0})["exitCode"] == code
    assert content["wouldTrain"] == (code == 0)
    return content


def picture(path: Path, size: tuple[int, int], colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for number in range(3):
        picture(root / "train" / "cat" / f"{number}.png", (40, 30), (10 * number, 0, 0))
    for number in range(2):
        picture(root / "train" / "dog" / f"{number}.bmp", (50, 60), (0, 200, 10 * number))
    picture(root / "val" / "cat" / "0.png", (32, 32), (255, 255, 255))
    return root


def test_a_folder_is_reported(folder: Path, capsys: Any) -> None:
    (folder / "train" / "cat" / ".DS_Store").touch()
    found = report("ImageFolder", folder, capsys)
    assert (found["kind"], found["path"], found["numClasses"]) == ("ImageFolder", str(folder), 2)
    assert found["classes"] == [
        {"name": "cat", "train": 3, "val": 1},
        {"name": "dog", "train": 2, "val": 0},
    ]
    train, val = found["splits"]["train"], found["splits"]["val"]
    assert train["images"] == 5
    assert train["bytes"] == sum(file.stat().st_size for file in folder.glob("train/*/[0-9]*"))
    assert train["formats"] == {"PNG": 3, "BMP": 2}
    assert train["width"] == {"least": 40, "median": 40, "most": 50}
    assert train["height"] == {"least": 30, "median": 30, "most": 60}
    assert train["unreadable"] == {"count": 0, "first": []}
    assert (val["mean"], val["deviation"]) == ([1, 1, 1], [0, 0, 0])
    assert train["mean"] == pytest.approx([30 / 5 / 255, 400 / 5 / 255, 10 / 5 / 255], abs=1e-6)
    assert found["notes"] == ["ignored 1 hidden name: train/cat/.DS_Store"]


def test_mean_and_deviation_are_those_of_all_pixels() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (7, 3, 11, 11), dtype=np.uint8)
    sums = PixelSums()
    for image in images:
        import torch

        sums.add(torch.from_numpy(image))
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert sums.mean() == pytest.approx(pixels.mean(1).tolist(), rel=1e-12)
    assert sums.deviation() == pytest.approx(pixels.std(1).tolist(), rel=1e-12)


def test_any_number_of_processes_finds_the_same(tmp_path: Path, capsys: Any) -> None:
    root = same_data(tmp_path, train=100)[0]
    (root / "train" / "class-0" / "000003.png").write_bytes(b"broken")
    one = report("ImageFolder", root, capsys, "--processes", "1")
    assert report("ImageFolder", root, capsys, "--processes", "3") == one
    assert one["splits"]["train"]["images"] == 100


def test_folders_and_shards_of_the_same_images_are_the_same(tmp_path: Path, capsys: Any) -> None:
    folders, shards = same_data(tmp_path)
    one = report("ImageFolder", folders, capsys)
    two = report("WebDataset", shards, capsys)
    assert one["splits"] == two["splits"]


def test_lists_are_reported(folder: Path, capsys: Any) -> None:
    (folder / "train.txt").write_text("train/cat/0.png 0\ntrain/dog/0.bmp 2\n")
    (folder / "val.txt").write_text("val/cat/0.png 0\n")
    found = report("ImageList", folder, capsys, batch=2)
    assert [entry["train"] for entry in found["classes"]] == [1, 0, 1]
    _, text = run("ImageList", folder, capsys, batch=2)
    assert "no training images of the class class-1" in text


def test_cifar_is_reported(tmp_path: Path, capsys: Any) -> None:
    found = report("Cifar100", cifar_files.python_layout(tmp_path), capsys)
    assert found["splits"]["train"]["images"] == 20
    assert found["splits"]["train"]["formats"] == {"array": 20}
    assert found["notes"][0] == "train holds 20 images, in CIFAR-100 as published 50,000"


def test_images_that_cannot_be_read_are_named_and_counted(folder: Path, capsys: Any) -> None:
    broken = folder / "train" / "cat" / "broken.png"
    broken.write_bytes(b"no image")
    found = report("ImageFolder", folder, capsys)
    unreadable = found["splits"]["train"]["unreadable"]
    assert unreadable["count"] == 1
    assert unreadable["first"][0]["name"] == str(broken)
    assert unreadable["first"][0]["reason"]
    code, text = run("ImageFolder", folder, capsys, "--set", "data.maxCorrupt=0")
    assert code == 65
    assert "would not train (exit code 65): 1 training images cannot be read, more than 0" in text
    assert str(broken) in text


def test_duplicates_are_found_over_both_splits_and_all_classes(folder: Path, capsys: Any) -> None:
    first = folder / "train" / "cat" / "0.png"
    shutil.copy(first, folder / "train" / "cat" / "again.png")
    shutil.copy(first, folder / "train" / "dog" / "cat.png")
    shutil.copy(first, folder / "val" / "cat" / "1.png")
    found = report("ImageFolder", folder, capsys)
    assert found["splits"]["train"]["copies"] == 2
    assert found["splits"]["val"]["copies"] == 0
    assert found["duplicates"]["validationImagesInTraining"] == 1
    assert found["duplicates"]["imagesOfSeveralClasses"] == 1
    (group,) = found["duplicates"]["groups"]
    assert [Path(name).relative_to(folder).as_posix() for name in group] == [
        "train/cat/0.png",
        "train/cat/again.png",
        "train/dog/cat.png",
        "val/cat/1.png",
    ]
    _, text = run("ImageFolder", folder, capsys)
    assert "validation images that are training images, too: 1" in text
    assert "images that are there in several classes: 1" in text


def test_broken_images_are_no_duplicates_of_one_another(folder: Path, capsys: Any) -> None:
    for name in ("a.png", "b.png"):
        (folder / "train" / "cat" / name).touch()
    found = report("ImageFolder", folder, capsys)
    assert found["splits"]["train"]["unreadable"]["count"] == 2
    assert found["duplicates"]["groups"] == []


def test_a_listed_file_that_is_not_there_would_end_a_training(folder: Path, capsys: Any) -> None:
    (folder / "train.txt").write_text("train/cat/0.png 0\nnone.png 1\n")
    (folder / "val.txt").write_text("val/cat/0.png 0\n")
    found = report("ImageList", folder, capsys, batch=2)
    assert found["problem"]["exitCode"] == 66
    assert "train.txt names " in found["problem"]["message"]
    assert "none.png, which is not there" in found["problem"]["message"]
    assert found["splits"]["train"]["unreadable"]["count"] == 1


@pytest.mark.parametrize(
    ("damage", "batch", "code", "words"),
    [
        (lambda root: shutil.rmtree(root / "val"), 4, 66, "data.heldOutShare"),
        (lambda root: (root / "train" / "elk").mkdir(), 4, 65, "elk"),
        (lambda _: None, 64, 78, "batch.global: 64 is more than the 5 training samples"),
    ],
    ids=["no-val", "empty-class", "batch"],
)
def test_data_that_would_not_train_ends_with_the_code_of_the_training(
    folder: Path, capsys: Any, damage: Any, batch: int, code: int, words: str
) -> None:
    damage(folder)
    found = report("ImageFolder", folder, capsys, batch=batch)
    assert found["problem"]["exitCode"] == code
    assert words in found["problem"]["message"]
    ended, text = run("ImageFolder", folder, capsys, batch=batch)
    assert ended == code
    assert text.startswith(f"ImageFolder {folder}: would not train (exit code {code}): ")


def test_a_configuration_file_is_taken(folder: Path, tmp_path: Path, capsys: Any) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"data: {{kind: ImageFolder, path: {folder}, imageSize: 32}}\nbatch: {{global: 4}}\n"
    )
    assert cli.main(["data", "check", str(job)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ImageFolder {folder}: would train"
    assert lines[1].startswith("training data: 5 images of 2 classes, the smallest with 2 (dog)")
    assert any(line.startswith("training sizes: width 40 to 50, median 40; ") for line in lines)
    assert any(line.startswith("validation pixels, 0 to 1, ") for line in lines)


def test_images_are_seen_as_evaluation_sees_them(tmp_path: Path) -> None:
    """A frame that evaluation cuts off has no part in the mean."""
    picture_ = Image.new("RGB", (80, 80), "white")
    picture_.paste("black", (10, 10, 70, 70))
    buffer = io.BytesIO()
    picture_.save(buffer, "PNG")
    for split in ("train", "val"):
        path = tmp_path / split / "a" / "x.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(buffer.getvalue())
    keys = {"kind": "ImageFolder", "path": str(tmp_path), "imageSize": 32}
    for ratio, expected in ((0.5, 0), (1, 1 - 0.75**2)):
        config = from_mapping({"data": {**keys, "evaluationCropRatio": ratio}})
        check = check_data(config, 1)
        assert check.train.sums.mean()[0] == pytest.approx(expected, abs=0.02)


def test_memory_does_not_grow_with_the_size_of_images(tmp_path: Path) -> None:
    """What is kept of an image is of a few bytes, whatever its own size."""
    root = same_data(tmp_path)[0]
    config = from_mapping({"data": {"kind": "ImageFolder", "path": str(root), "imageSize": 256}})
    facts = check_data(config, 2).train
    kept = [value for value in vars(facts).values() if isinstance(value, np.ndarray)]
    assert sum(value.nbytes for value in kept) == 16 * len(open_splits(config).train)
