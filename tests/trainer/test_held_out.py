"""A share of the training images is evaluated where there are no others: the same one always, of
every class, and never an image that is trained on.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.held_out import held_out
from inception_trainer.errors import ConfigError, DataError, InputMissing
from shard_files import png, same_data, sample, write_tar

pytestmark = pytest.mark.usefixtures("copies_of_indices")


def splits(kind: str, root: object, seed: int = 0, **data: Any) -> Any:
    keys = {"kind": kind, "path": str(root), "imageSize": 32, "workers": 0, **data}
    return open_splits(from_mapping({"data": keys, "seed": seed}))


def names(dataset: Any) -> list[str]:
    return [dataset.name(index) for index in range(len(dataset))]


@given(
    classes=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 9),
)
def test_of_each_class_the_share_is_held_out_and_never_all(
    classes: list[int], share: float, seed: int
) -> None:
    labels = np.array(classes)
    identities = np.random.default_rng(seed).permutation(len(labels)).astype(np.uint64)
    chosen = held_out(identities, labels, share)
    for label in np.unique(labels):
        size = int((labels == label).sum())
        count = int(chosen[labels == label].sum())
        assert count == min(max(int(share * size + 0.5), min(1, size - 1)), size - 1)


@given(st.integers(1, 50), st.integers(1, 5), st.floats(0.01, 0.99))
def test_a_file_that_is_there_twice_is_on_one_side(count: int, times: int, share: float) -> None:
    identities = np.repeat(np.arange(count, dtype=np.uint64), times)
    labels = np.zeros(len(identities), np.int64)
    chosen = held_out(identities, labels, share).reshape(count, times)
    assert (chosen.all(1) | ~chosen.any(1)).all()
    assert not chosen.all()


def test_an_image_more_moves_no_other() -> None:
    generator = np.random.default_rng(0)
    identities = generator.integers(0, 2**63, 1000).astype(np.uint64)
    labels = generator.integers(0, 10, 1000)
    before = held_out(identities, labels, 0.1)
    after = held_out(np.append(identities, 5), np.append(labels, 3), 0.1)[:-1]
    assert (before != after).sum() <= 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        path = tmp_path / "train" / f"c{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path


def test_an_image_folder_without_val_is_divided(folder: Path) -> None:
    found = splits("ImageFolder", folder, heldOutShare="0.1")
    assert (len(found.train), len(found.val)) == (54, 6)
    assert np.bincount(found.val.classes).tolist() == [2, 2, 2]
    assert not {*names(found.train)} & {*names(found.val)}
    assert len({*names(found.train), *names(found.val)}) == 60
    batch = found.val.batch(np.arange(6), None)
    assert batch.labels.tolist() == found.val.classes.tolist()


def test_the_same_images_are_held_out_whatever_the_seed_and_the_mount(
    folder: Path, tmp_path_factory: Any
) -> None:
    one = splits("ImageFolder", folder, heldOutShare="0.25")
    two = splits("ImageFolder", folder, seed=7, heldOutShare="0.25")
    assert names(one.val) == names(two.val)
    moved = tmp_path_factory.mktemp("other") / "place"
    folder.joinpath("train").rename(folder / "kept")
    moved.mkdir()
    (folder / "kept").rename(moved / "train")
    other = splits("ImageFolder", moved, heldOutShare="0.25")
    here = [name.removeprefix(str(folder)) for name in names(one.val)]
    assert [name.removeprefix(str(moved)) for name in names(other.val)] == here


def test_lists_and_shards_are_divided(folder: Path) -> None:
    lines = [f"train/c{number % 3}/{number}.png {number % 3}\n" for number in range(60)]
    (folder / "train.txt").write_text("".join(lines))
    listed = splits("ImageList", folder, heldOutShare="0.1")
    # The same names give the same share, whatever kind of data they come from.
    in_folders = splits("ImageFolder", folder, heldOutShare="0.1")
    assert sorted(names(listed.val)) == sorted(names(in_folders.val))
    for first in (0, 30):
        entries = [
            entry
            for number in range(first, first + 30)
            for entry in sample(f"{number}", png(number), number % 3)
        ]
        write_tar(folder / f"train-{first}.tar", entries)
    sharded = splits("WebDataset", folder, heldOutShare="0.1")
    assert (len(sharded.train), len(sharded.val)) == (54, 6)
    assert np.bincount(sharded.val.classes).tolist() == [2, 2, 2]
    assert not {*names(sharded.train)} & {*names(sharded.val)}
    again = splits("WebDataset", folder, heldOutShare="0.1")
    assert names(again.val) == names(sharded.val)


def test_cifar_is_divided_and_its_test_images_are_left_alone(tmp_path: Path) -> None:
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": [index % 10 for index in range(20)]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    whole = splits("Cifar10", tmp_path)
    found = splits("Cifar10", tmp_path, heldOutShare="0.2")
    assert (len(found.train), len(found.val)) == (80, 20)
    assert np.bincount(found.val.classes).tolist() == [2] * 10
    everything = whole.train.batch(np.arange(100), None).images.flatten(1).tolist()
    held = found.val.batch(np.arange(20), None).images.flatten(1).tolist()
    assert all(image in everything for image in held)


def test_validation_images_that_are_there_are_not_read(tmp_path: Path) -> None:
    folders, shards = same_data(tmp_path)
    (folders / "val" / "another-class").mkdir()
    found = splits("ImageFolder", folders, heldOutShare="0.2")
    assert (len(found.train), len(found.val)) == (32, 8)
    (shards / "val-0000.tar").write_bytes(b"damaged")
    assert len(splits("WebDataset", shards, heldOutShare="0.2").val) == 8


def test_where_no_class_has_two_images_nothing_can_be_held_out(tmp_path: Path) -> None:
    for name in "ab":
        path = tmp_path / "train" / name / "0.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(0))
    with pytest.raises(DataError, match=r"data\.heldOutShare: none of the 2 images"):
        splits("ImageFolder", tmp_path, heldOutShare="0.5")


@pytest.mark.parametrize("kind", ["ImageFolder", "ImageList", "WebDataset"])
def test_errors_about_missing_validation_images_name_the_key(folder: Path, kind: str) -> None:
    (folder / "train.txt").write_text("train/c0/0.png 0\n")
    write_tar(folder / "train-0.tar", sample("a", png(0), 0))
    with pytest.raises(InputMissing, match=r'data\.heldOutShare holds out a share .* "0\.1"'):
        splits(kind, folder)
    (folder / "train").rename(folder / "moved")
    (folder / "train.txt").unlink()
    (folder / "train-0.tar").unlink()
    with pytest.raises(InputMissing) as caught:
        splits(kind, folder)
    assert "heldOutShare" not in str(caught.value)


@pytest.mark.parametrize("share", ["0", "1", "-0.1", "ten"])
def test_shares_that_leave_nothing_are_refused(share: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.heldOutShare"):
        from_mapping({"data": {"kind": "ImageFolder", "path": "/d", "heldOutShare": share}})


def test_another_share_is_other_data() -> None:
    one, two = (
        from_mapping({"data": {"kind": "ImageFolder", "path": "/d", "heldOutShare": share}})
        for share in ("0.1", "0.2")
    )
    assert fingerprint(one) != fingerprint(two)
