"""CIFAR-10 in both layouts, image lists, corrupt images: contents, order, and errors that show what
was found.
"""

import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.cifar import move_images
from inception_trainer.data.folder_listing import describe_folder
from inception_trainer.errors import ConfigError, DataError, InputMissing

pytestmark = pytest.mark.usefixtures("copies_of_indices")

RECORDS = 4


def splits(kind: str, **data):
    return open_splits(from_mapping({"data": {"kind": kind, **data}}))


def records(batch: int) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(batch)
    return generator.integers(0, 256, (RECORDS, 3072), dtype=np.uint8), [
        (batch + i) % 10 for i in range(RECORDS)
    ]


NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def python_layout(root, folder: str = "cifar-10-batches-py"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        data, labels = records(number)
        content = {b"data": data, b"labels": labels, b"filenames": [b"x.png"]}
        (root / folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


def binary_layout(root):
    for number, name in enumerate(NAMES):
        folder = root / ("cifar-10-verify-bin" if name == "test_batch" else "cifar-10-batches-bin")
        folder.mkdir(parents=True, exist_ok=True)
        data, labels = records(number)
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return root


@pytest.mark.parametrize("layout", [python_layout, binary_layout])
def test_cifar10(tmp_path, layout) -> None:
    found = splits("Cifar10", path=str(layout(tmp_path)))
    assert (len(found.train), len(found.val), found.num_classes, found.class_names[3]) == (
        20,
        4,
        10,
        "cat",
    )
    data, labels = records(2)
    batch = found.train.batch(np.arange(8, 12), None)
    assert torch.equal(batch.images, torch.from_numpy(data.reshape(-1, 3, 32, 32)))
    assert batch.labels.tolist() == labels
    assert found.val.batch(np.array([1]), None).labels.tolist() == [records(5)[1][1]]


def test_cifar10_accepts_the_folder_itself_and_other_sizes(tmp_path) -> None:
    python_layout(tmp_path)
    found = splits("Cifar10", path=str(tmp_path / "cifar-10-batches-py"), imageSize=64)
    batch = found.train.batch(np.array([0, 7]), 3)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 64, 64), torch.uint8)
    assert found.train.batch(np.arange(0), 3).images.shape == (0, 3, 64, 64)


def test_cifar10_augmentation_depends_on_epoch_and_index_only(tmp_path) -> None:
    train = splits("Cifar10", path=str(python_layout(tmp_path))).train
    together = train.batch(np.array([3, 15, 7]), 4).images
    assert torch.equal(together[1], train.batch(np.array([15]), 4).images[0])
    assert not torch.equal(together[1], train.batch(np.array([15]), 5).images[0])


def test_shift_flip_and_turn() -> None:
    image = (
        torch.arange(32 * 32, dtype=torch.int64)
        .remainder(251)
        .to(torch.uint8)
        .view(1, 1, 32, 32)
        .repeat(1, 3, 1, 1)
    )
    still, level = 0.5, 0.5  # the middle of nine shifts, the middle of the angles
    assert torch.equal(move_images(image, np.array([[still, still, 0.9, level]])), image)
    assert torch.equal(move_images(image, np.array([[still, still, 0.1, level]])), image.flip(-1))
    down = move_images(image, np.array([[0.99, still, 0.9, level]]))
    assert torch.equal(down[:, :, :28], image[:, :, 4:])
    assert not down[:, :, 28:].any()
    turned = move_images(image, np.array([[still, still, 0.9, 1.0]]))
    assert not torch.equal(turned, image)
    assert torch.equal(turned[:, :, 15:17, 15:17], image[:, :, 15:17, 15:17])


def remove_one(root) -> None:
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()


def remove_all(root) -> None:
    for path in (root / "cifar-10-batches-py").iterdir():
        path.rename(root / f"{path.name}.old")


def run_code(root) -> None:
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(print))


def cut(root) -> None:
    path = root / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(path.read_bytes()[:1000])


def claim_too_much(root) -> None:
    # A text of 2^64 - 1 bytes.
    path = root / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(b"\x80\x04\x8d" + b"\xff" * 8)


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (
            remove_one,
            InputMissing,
            ["lacks data_batch_3", "cifar-10-batches-py/ (data_batch_1, data_batch_2,"],
        ),
        (
            remove_all,
            InputMissing,
            ["no CIFAR-10", "data_batch_1 to data_batch_5", "cifar-10-batches-py/ (empty)"],
        ),
        (run_code, DataError, ["test_batch", "it asks for", "print"]),
        (cut, DataError, ["data_batch_1", "no batch of CIFAR-10"]),
        (claim_too_much, DataError, ["data_batch_1", "no batch of CIFAR-10: OverflowError"]),
    ],
    ids=["one", "all", "code", "cut", "too much"],
)
def test_wrong_cifar10(tmp_path, damage, error, words) -> None:
    damage(python_layout(tmp_path))
    with pytest.raises(error) as caught:
        splits("Cifar10", path=str(tmp_path))
    for word in words:
        assert word in str(caught.value)


def test_cut_binary_cifar10(tmp_path) -> None:
    binary_layout(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin has 12291 bytes, no multiple of 3073"):
        splits("Cifar10", path=str(tmp_path))


def picture(path, colour) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 48), colour).save(path)


@pytest.fixture
def listed(tmp_path):
    """Lists relative to the root for training, relative to val/ for validation, as Caffe's."""
    picture(tmp_path / "a" / "red one.png", (250, 0, 0))
    picture(tmp_path / "b.png", (0, 0, 250))
    picture(tmp_path / "val" / "c.png", (0, 250, 0))
    (tmp_path / "train.txt").write_text("a/red one.png 2\nb.png\t0\n\n")
    (tmp_path / "val.txt").write_text("c.png 1\n")
    return tmp_path


def open_listed(root, **data):
    return splits("ImageList", path=str(root), imageSize=32, workers=0, **data)


def test_image_list(listed) -> None:
    found = open_listed(listed)
    assert (len(found.train), len(found.val), found.num_classes) == (2, 1, 3)
    batch = found.train.batch(np.array([1, 0]), None)
    assert batch.labels.tolist() == [0, 2]
    assert batch.images.float().mean((2, 3)).round().tolist() == [[0, 0, 250], [250, 0, 0]]
    assert found.val.batch(np.array([0]), None).labels.tolist() == [1]
    assert found.class_names == ("class-0", "class-1", "class-2")
    (listed / "classes.txt").write_text("cat\ndog\nbird\nfish\n")
    assert (open_listed(listed).num_classes, open_listed(listed).class_names[2]) == (4, "bird")


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        (
            "train.txt",
            None,
            InputMissing,
            ["train.txt", "expected train.txt and val.txt", "val/ (c.png)"],
        ),
        ("val.txt", "c.png\n", DataError, ["val.txt line 1", "'c.png'", "<file> <class index>"]),
        ("val.txt", "c.png 0\nc.png one\n", DataError, ["val.txt line 2", "'c.png one'"]),
        ("val.txt", "\n", DataError, ["val.txt names no images"]),
        ("val.txt", "gone.png 0\n", InputMissing, ["val.txt names gone.png"]),
        ("classes.txt", "cat\n", DataError, ["classes.txt names 1 classes, the data has 3"]),
    ],
    ids=["missing", "no-class", "no-number", "empty", "gone", "names"],
)
def test_wrong_lists(listed, name, text, error, words) -> None:
    path = listed / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(error) as caught:
        open_listed(listed)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("limit", "ends"), [(0, True), (1, True), (2, False), (None, False)])
def test_corrupt_images_are_named_and_skipped_up_to_the_limit(listed, caplog, limit, ends) -> None:
    for name in ("x.png", "y.png"):
        (listed / name).write_bytes(b"not an image")
    (listed / "train.txt").write_text("b.png 0\nx.png 1\ny.png 2\n")
    train = open_listed(listed, **({} if limit is None else {"maxCorrupt": limit})).train
    if ends:
        with pytest.raises(
            DataError,
            match=r"more than \d images cannot be read \(data\.maxCorrupt\), among them .*x\.png",
        ):
            train.batch(np.arange(3), 0)
    else:
        assert train.batch(np.arange(3), 0).labels.tolist() == [0, -100, -100]
        train.batch(np.arange(3), 1)
        warnings = [
            record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
        ]
        assert [str(listed / "x.png") in text for text in warnings] == [True, False]


@pytest.mark.parametrize("kind", ["ImageFolder", "ImageList", "WebDataset", "Cifar10", "Cifar100"])
def test_path_is_needed(kind) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.path: missing; data\.kind {kind} needs the folder that holds"
    ):
        from_mapping({"data": {"kind": kind}})


def test_the_limit_is_no_part_of_what_a_checkpoint_belongs_to() -> None:
    one, two = (from_mapping({"data": {"kind": "Digits", "maxCorrupt": limit}}) for limit in (0, 5))
    assert fingerprint(one) == fingerprint(two)


def test_tree_of_what_was_found(tmp_path) -> None:
    assert describe_folder(tmp_path) == "an empty folder"
    assert describe_folder(tmp_path / "none") == f"no folder {tmp_path / 'none'}"
    (tmp_path / "train" / "cat" / "deep").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
    assert (
        describe_folder(tmp_path) == "train/ (cat/), val/ (empty), 0.txt, 1.txt, 2.txt, 3.txt, ..."
    )
