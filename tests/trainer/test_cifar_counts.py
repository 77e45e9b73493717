"""CIFAR as people have it: binary files in the folder of the python layout, the folder above, a
batch too many, records too few.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cifar_files
from inception_trainer.config.training import from_mapping
from inception_trainer.data import cifarfiles, open_splits
from inception_trainer.data.found import found_lines

EACH = 4
"""Records of a file here; the published files have 10,000."""
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def small_editions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editions of a few images, so that whole ones are quickly written."""
    import dataclasses

    editions = {
        "Cifar10": {"train_images": 5 * EACH, "test_images": EACH},
        "Cifar100": {
            "train_images": cifar_files.COUNTS["train"],
            "test_images": cifar_files.COUNTS["test"],
        },
    }
    for kind, counts in editions.items():
        edition = dataclasses.replace(cifarfiles.EDITIONS[kind], **counts)
        monkeypatch.setitem(cifarfiles.EDITIONS, kind, edition)


def splits(root: Path, kind: str = "Cifar10") -> Any:
    return open_splits(from_mapping({"data": {"kind": kind, "path": str(root)}}))


def rows(seed: int, count: int = EACH) -> tuple[np.ndarray, list[int]]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return pixels, [(seed + index) % 10 for index in range(count)]


def write(path: Path, seed: int, count: int = EACH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels, labels = rows(seed, count)
    if path.suffix == ".bin":
        table = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
        path.write_bytes(table.tobytes())
    else:
        path.write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))


def tree(root: Path, suffix: str = "", folder: str = "cifar-10-batches-py") -> Path:
    for seed, name in enumerate(NAMES):
        write(root / folder / f"{name}{suffix}", seed)
    return root / folder


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar-10-batches-bin"])
@pytest.mark.parametrize("suffix", ["", ".bin"], ids=["python", "binary"])
@pytest.mark.parametrize("above", [False, True], ids=["folder", "above"])
def test_either_layout_is_read_from_either_folder_and_the_one_above(
    tmp_path: Path, folder: str, suffix: str, above: bool
) -> None:
    inside = tree(tmp_path, suffix, folder)
    (inside / "batches.meta.txt").write_text("airplane\n")
    (inside / "readme.html").write_text("<html>")
    found = splits(tmp_path if above else inside)
    assert (len(found.train), len(found.val), found.ignored) == (5 * EACH, EACH, ())
    assert found.train.classes.tolist()[:EACH] == rows(0)[1]
    pixels = found.val.batch(np.arange(1), None).images.flatten().numpy()
    assert np.array_equal(pixels, rows(5)[0][0])


@pytest.mark.parametrize(
    ("layout", "folder"),
    [
        (cifar_files.python_layout, "cifar-100-binary"),
        (cifar_files.binary_layout, "cifar-100-python"),
    ],
)
def test_cifar100_is_read_from_either_folder(tmp_path: Path, layout: Any, folder: str) -> None:
    layout(tmp_path, folder)
    found = splits(tmp_path, "Cifar100")
    assert (len(found.train), len(found.val), found.ignored) == (20, 4, ())


@pytest.mark.parametrize("suffix", ["", ".bin"], ids=["python", "binary"])
def test_a_sixth_batch_is_left_out_and_told(tmp_path: Path, suffix: str) -> None:
    inside = tree(tmp_path, suffix)
    write(inside / f"data_batch_6{suffix}", 5)
    found = splits(tmp_path)
    assert len(found.train) == 5 * EACH
    (line,) = found.ignored
    assert line.startswith(f"ignored data_batch_6{suffix}: CIFAR-10 is data_batch_1{suffix}, ")
    assert line in found_lines(found)


def test_a_sixth_batch_with_the_missing_images_is_read(tmp_path: Path) -> None:
    inside = tree(tmp_path, ".bin")
    write(inside / "data_batch_5.bin", 4, EACH - 1)
    write(inside / "data_batch_6.bin", 9, 1)
    found = splits(tmp_path)
    assert len(found.train) == 5 * EACH
    assert found.train.classes.tolist()[-1] == rows(9)[1][0]
    fewer, more = found.ignored
    assert fewer == "data_batch_5.bin holds 3 images, in CIFAR-10 as published 4"
    assert more == "data_batch_6.bin is read, too: with it there are 20 images"


@pytest.mark.parametrize("suffix", ["", ".bin"], ids=["python", "binary"])
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch"])
def test_records_that_are_missing_are_told(tmp_path: Path, suffix: str, name: str) -> None:
    inside = tree(tmp_path, suffix)
    write(inside / f"{name}{suffix}", 3, EACH - 1)
    found = splits(tmp_path)
    assert len(found.train) + len(found.val) == 6 * EACH - 1
    assert found.ignored == (f"{name}{suffix} holds 3 images, in CIFAR-10 as published {EACH}",)


def test_the_published_numbers_are_those_of_the_data_sets() -> None:
    for edition in (cifarfiles.EDITIONS["Cifar10"], cifarfiles.EDITIONS["Cifar100"]):
        assert edition.train_images % len(edition.python.train) == 0
