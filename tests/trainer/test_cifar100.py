"""CIFAR-100 in both layouts: fine labels, names where a file has them, errors that show what was
found.
"""

import pickle

import numpy as np
import pytest
import torch

from cifar_files import NAMES, binary_layout, python_layout, records
from inception_trainer.config.normalization import CIFAR100
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.errors import DataError, InputMissing

PYTHON, BINARY = "cifar-100-python", "cifar-100-binary"


def splits(root, **data):
    return open_splits(from_mapping({"data": {"kind": "Cifar100", "path": str(root), **data}}))


@pytest.mark.parametrize("inside", [False, True], ids=["above", "folder"])
@pytest.mark.parametrize(("layout", "folder"), [(python_layout, PYTHON), (binary_layout, BINARY)])
def test_cifar100(tmp_path, layout, folder, inside) -> None:
    root = layout(tmp_path)
    found = splits(root / folder if inside else root)
    assert (len(found.train), len(found.val), found.num_classes, found.normalization) == (
        20,
        4,
        100,
        CIFAR100,
    )
    assert found.class_names == tuple(NAMES)
    for split, name in ((found.train, "train"), (found.val, "test")):
        pixels, fine, _ = records(name)
        batch = split.batch(np.arange(len(split)), None)
        assert torch.equal(batch.images, torch.from_numpy(pixels.reshape(-1, 3, 32, 32)))
        assert batch.labels.tolist() == fine.tolist()


def test_both_layouts_are_the_same_data(tmp_path) -> None:
    one, two = (
        splits(python_layout(tmp_path / "a")).train,
        splits(binary_layout(tmp_path / "b")).train,
    )
    indices = np.array([7, 0, 19])
    assert torch.equal(one.batch(indices, 2).images, two.batch(indices, 2).images)
    assert not torch.equal(one.batch(indices, 2).images, one.batch(indices, None).images), (
        "it is augmented"
    )
    assert not torch.equal(one.batch(indices, 2).images, one.batch(indices, 3).images)


@pytest.mark.parametrize(
    ("layout", "names"),
    [(python_layout, f"{PYTHON}/meta"), (binary_layout, f"{BINARY}/fine_label_names.txt")],
    ids=["python", "binary"],
)
def test_without_names_classes_are_numbers(tmp_path, layout, names) -> None:
    (layout(tmp_path) / names).unlink()
    assert splits(tmp_path).class_names == tuple(str(number) for number in range(100))


def repickle(name: str, **changes: object):
    def act(root) -> None:
        path = root / PYTHON / name
        content = pickle.loads(path.read_bytes())  # noqa: S301 - just written by us
        content.update({key.encode(): value for key, value in changes.items()})
        path.write_bytes(
            pickle.dumps(
                {key: value for key, value in content.items() if value is not None}, protocol=2
            )
        )

    return act


def run_code(name: str):
    return lambda root: (root / PYTHON / name).write_bytes(pickle.dumps(print))


def cut(name: str, size: int):
    def act(root) -> None:
        path = root / name
        path.write_bytes(path.read_bytes()[:size])

    return act


def remove(name: str):
    return lambda root: (root / name).unlink()


def coarse_instead(root) -> None:
    """A fine label that is none."""
    path = root / BINARY / "test.bin"
    data = bytearray(path.read_bytes())
    data[1] = 100
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("layout", "damage", "error", "words"),
    [
        (
            python_layout,
            remove(f"{PYTHON}/test"),
            InputMissing,
            ["lacks test;", f"{PYTHON}/ (meta, train)"],
        ),
        (
            binary_layout,
            remove(f"{BINARY}/train.bin"),
            InputMissing,
            ["lacks train.bin;", "test.bin)"],
        ),
        (
            python_layout,
            run_code("test"),
            DataError,
            ["/test is no batch of CIFAR-100", "it asks for", "print"],
        ),
        (
            python_layout,
            run_code("meta"),
            DataError,
            ["/meta is no file with fine_label_names", "it asks for"],
        ),
        (
            python_layout,
            cut(f"{PYTHON}/train", 1000),
            DataError,
            ["/train is no batch of CIFAR-100"],
        ),
        (
            python_layout,
            repickle("train", fine_labels=None),
            DataError,
            ["/train", "KeyError: b'fine_labels'"],
        ),
        (
            python_layout,
            repickle("test", fine_labels=[0, 1, 2, 100]),
            DataError,
            ["/test has labels from 0 to 100", "from 0 to 99"],
        ),
        (
            python_layout,
            repickle("test", fine_labels=[0, -1, 2, 3]),
            DataError,
            ["/test has labels from -1 to 3"],
        ),
        (
            python_layout,
            repickle("test", fine_labels=[0, 0.5, 2, 3]),
            DataError,
            ["whole numbers from 0 to 99"],
        ),
        (
            python_layout,
            repickle("test", fine_labels=[0, 1]),
            DataError,
            ["(4, 3072) uint8 with 2 labels"],
        ),
        (
            python_layout,
            repickle("meta", fine_label_names=[b"one"]),
            DataError,
            ["/meta names 1 classes", "has 100"],
        ),
        (
            binary_layout,
            cut(f"{BINARY}/train.bin", 5000),
            DataError,
            ["train.bin has 5000 bytes", "3074: it is cut"],
        ),
        (binary_layout, coarse_instead, DataError, ["test.bin has labels from 93 to 100"]),
        (
            binary_layout,
            cut(f"{BINARY}/fine_label_names.txt", 8),
            DataError,
            ["fine_label_names.txt names 1 classes, CIFAR-100 has 100"],
        ),
    ],
    ids=[
        *(
            "test",
            "train",
            "code",
            "code-names",
            "cut",
            "coarse",
            "label",
            "negative",
            "half",
            "labels",
            "names",
        ),
        *("cut-binary", "label-binary", "names-binary"),
    ],
)
def test_wrong_cifar100(tmp_path, layout, damage, error, words) -> None:
    damage(layout(tmp_path))
    with pytest.raises(error) as caught:
        splits(tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_cifar10_is_not_taken_for_it(tmp_path) -> None:
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(bytes(3073))
    with pytest.raises(
        InputMissing,
        match=r"no CIFAR-100 in .*; expected the files train and test .*data_batch_1\.bin",
    ):
        splits(tmp_path)
    with pytest.raises(
        InputMissing, match=r"no CIFAR-10 in .*cifar-100-python/ \(meta, test, train\)"
    ):
        open_splits(
            from_mapping(
                {"data": {"kind": "Cifar10", "path": str(python_layout(tmp_path / "other"))}}
            )
        )


def test_small_images_are_left_small_and_read_in_memory() -> None:
    config = from_mapping(
        {"data": {"kind": "Cifar100", "path": "/d"}, "model": {"name": "inceptionv3_cifar"}}
    )
    assert (config.data.image_size, config.data.workers) == (32, 0)
    assert from_mapping({"data": {"kind": "Cifar100", "path": "/d"}}).data.image_size == 32
