"""What is found in data: hidden names and files of other kinds are left out and told, images of
every kind are read, lists of any editor are understood, and the log says what there was.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from inception_trainer import log
from inception_trainer.comm import Comm
from inception_trainer.config.training import from_mapping
from inception_trainer.data import identity, open_splits
from inception_trainer.data.base import UNREADABLE
from inception_trainer.data.files import FileList
from inception_trainer.data.found import found_lines
from inception_trainer.data.ignored import (
    HIDDEN_NAMES,
    IMAGE_SUFFIXES,
    is_hidden,
    is_litter,
)
from inception_trainer.data.images import image_files
from inception_trainer.errors import DataError, InputMissing, StorageFailed
from inception_trainer.train.setup import check_same_data
from object_store import new_place, upload
from shard_files import png, sample, write_tar

pytestmark = pytest.mark.usefixtures("copies_of_indices")


def splits(kind: str, root: object, **data: Any) -> Any:
    keys = {"kind": kind, "path": str(root), "imageSize": 32, "workers": 0, **data}
    return open_splits(from_mapping({"data": keys}))


def picture(path: Path, colour: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), (colour, 10, 200)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two images of each in both splits."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(2):
                picture(tmp_path / split / name / f"{number}.png")
    return tmp_path


def names(dataset: Any, root: Path) -> list[str]:
    return [dataset.name(index).removeprefix(f"{root}/") for index in range(len(dataset))]


LITTER = [
    ".ipynb_checkpoints/0-checkpoint.png",
    "@eaDir/0.png",
    "__MACOSX/0.png",
    "lost+found/0.png",
    ".Trash-1000/0.png",
    "$RECYCLE.BIN/0.png",
]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("litter", LITTER)
def test_folders_of_other_programs_are_no_classes(folder: Path, split: str, litter: str) -> None:
    clean = splits("ImageFolder", folder)
    picture(folder / split / litter)
    found = splits("ImageFolder", folder)
    assert found.class_names == ("cat", "dog")
    assert names(found.train, folder) == names(clean.train, folder)
    assert names(found.val, folder) == names(clean.val, folder)
    hidden = litter.partition("/")[0]
    assert found.ignored == (f"ignored 1 hidden name: {split}/{hidden}",)


@pytest.mark.parametrize("split", ["train", "val"])
def test_hidden_files_beside_images_are_left_out_and_told_in_one_line(
    folder: Path, split: str
) -> None:
    for name in ("._0.png", "._1.png", ".DS_Store", "Thumbs.db", ".0.png.swp"):
        (folder / split / "cat" / name).write_bytes(b"\0\5\x16\7")
    picture(folder / split / "cat" / "@eaDir" / "0.png")
    found = splits("ImageFolder", folder)
    assert (len(found.train), len(found.val)) == (4, 4)
    (line,) = found.ignored
    assert line.startswith("ignored 6 hidden names: ")
    assert f"{split}/cat/" in line
    assert line.endswith(", ...")


def test_files_of_other_kinds_are_told_once_with_their_number(folder: Path) -> None:
    for number in range(3):
        (folder / "train" / "dog" / f"{number}.xml").touch()
    (folder / "val" / "dog" / "README").touch()
    (folder / "train" / "notes.txt").touch()
    picture(folder / "train" / "stray.png")
    found = splits("ImageFolder", folder)
    kinds, outside = found.ignored
    assert kinds.startswith("ignored 4 files that by their names are no images (3 x .xml, 1 x no ")
    assert "train/dog/" in kinds
    assert outside == "ignored 1 image beside the folders of the classes: train/stray.png"


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        *(("TIFF", ".tif"), ("TIFF", ".tiff"), ("BMP", ".bmp"), ("WEBP", ".webp"), ("GIF", ".gif")),
        *(("PPM", ".ppm"), ("PPM", ".pgm"), ("PNG", ".PNG"), ("JPEG", ".jfif"), ("JPEG", ".JPEG")),
        ("JPEG2000", ".jp2"),
    ],
)
def test_a_class_of_any_kind_of_image_is_read(folder: Path, form: str, suffix: str) -> None:
    target = folder / "train" / "elk" / f"0{suffix}"
    target.parent.mkdir()
    mode = "L" if suffix == ".pgm" else "RGB"
    Image.new(mode, (40, 36), 200 if mode == "L" else (200, 200, 200)).save(target, form)
    found = splits("ImageFolder", folder)
    assert found.class_names == ("cat", "dog", "elk")
    batch = found.train.batch(np.array([4]), None)
    assert batch.labels.tolist() == [2]
    assert batch.images.float().mean().item() == pytest.approx(200, abs=3)


def test_only_a_dot_hides_an_image() -> None:
    assert not [name for name in HIDDEN_NAMES if name.endswith(IMAGE_SUFFIXES)]


def test_every_suffix_of_torchvision_is_one_here() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) <= set(IMAGE_SUFFIXES)


@pytest.mark.parametrize("content", [None, "0.npy"], ids=["nothing", "other"])
def test_a_class_without_images_is_refused_by_name(folder: Path, content: str | None) -> None:
    (folder / "train" / "elk").mkdir()
    if content is not None:
        (folder / "train" / "elk" / content).touch()
    with pytest.raises(DataError, match=r"no images in 1 of the 3 class folders of .*: elk; found"):
        splits("ImageFolder", folder)


def test_a_class_without_validation_images_is_told(folder: Path) -> None:
    for path in (folder / "val" / "dog").iterdir():
        path.unlink()
    found = splits("ImageFolder", folder)
    assert "no validation images of the class dog" in found_lines(found)


def test_images_inside_folders_of_a_class_come_as_torchvision_has_them(folder: Path) -> None:
    for name in ("images/1.png", "images/0.png", "a/b/c.png", "a-b/0.png", "zz.png"):
        picture(folder / "train" / "cat" / name)
    (folder / "train" / "dog" / "again").symlink_to(folder / "train" / "cat" / "images")
    found = splits("ImageFolder", folder)
    expected = ImageFolder(str(folder / "train"))
    labels = found.train.classes.tolist()
    paths = [found.train.name(index) for index in range(len(found.train))]
    assert list(zip(paths, labels, strict=True)) == expected.samples
    assert list(found.class_names) == expected.classes


def test_a_link_to_a_folder_above_ends(folder: Path) -> None:
    (folder / "train" / "cat" / "up").symlink_to(folder / "train")
    found = splits("ImageFolder", folder)
    assert len(found.train) == 4
    assert found.ignored == ("ignored train/cat/up, a link to a folder above it",)


def test_links_that_lead_to_one_another_end(folder: Path) -> None:
    train = folder / "train"
    (train / "cat" / "friends").symlink_to(train / "dog")
    (train / "dog" / "friends").symlink_to(train / "cat")
    (folder / "elsewhere").mkdir()
    picture(folder / "elsewhere" / "elk" / "0.png")
    (folder / "elsewhere" / "elk" / "all").symlink_to(train)
    (train / "elk").symlink_to(folder / "elsewhere" / "elk")
    found = splits("ImageFolder", folder)
    assert found.class_names == ("cat", "dog", "elk")
    assert names(found.train, train) == [
        *("cat/0.png", "cat/1.png", "cat/friends/0.png", "cat/friends/1.png"),
        *("dog/0.png", "dog/1.png", "dog/friends/0.png", "dog/friends/1.png"),
        "elk/0.png",
    ]
    assert found.ignored == tuple(
        f"ignored train/{name}, a link to a folder above it"
        for name in ("cat/friends/friends", "dog/friends/friends", "elk/all")
    )


@pytest.mark.parametrize("target", ["nowhere", "0.png/x", "elk"], ids=["gone", "file", "itself"])
def test_links_that_lead_nowhere_are_told_by_name(
    folder: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    cat = folder / "train" / "cat"
    (folder / "train" / "elk").symlink_to(target)
    (cat / "more").symlink_to("nowhere")
    (cat / "0.png").unlink()
    (cat / "0.png").symlink_to("/nowhere/0.png")
    found = splits("ImageFolder", folder)
    assert found.class_names == ("cat", "dog")
    assert found.ignored == ("ignored 2 links to what is not there: train/elk, train/cat/more",)
    assert len(identity.fingerprint(found.train)) == 32
    assert found.train.batch(np.arange(4), 0).labels.tolist() == [UNREADABLE, 0, 1, 1]
    assert (
        f"{cat}/0.png cannot be read and is skipped: it is a link to /nowhere/0.png, which is not "
        "there"
    ) in caplog.text


def test_the_same_is_left_out_in_a_store(
    folder: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_place("memory", tmp_path_factory.mktemp("store"), monkeypatch)
    picture(folder / "train" / ".ipynb_checkpoints" / "0.png")
    picture(folder / "train" / "cat" / "inner" / "5.png")
    (folder / "train" / "cat" / "._0.png").touch()
    (folder / "val" / "dog" / "a.txt").write_text("x")
    upload(folder, url)
    here, there = splits("ImageFolder", folder), splits("ImageFolder", url)
    assert there.ignored == here.ignored
    assert len(here.ignored) == 2
    assert [name.removeprefix(f"{url}/") for name in names(there.train, Path("/"))] == names(
        here.train, folder
    )
    local, remote = image_files(folder), image_files(there_place(url))
    assert [name.removeprefix(f"{url}/") for name in remote] == [
        name.removeprefix(f"{folder}/") for name in local
    ]
    assert len(local) == 9


def there_place(url: str) -> Any:
    from inception_trainer.stores import place

    return place(url)


def test_infer_leaves_out_the_same(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(folder / ".ipynb_checkpoints" / "0.png")
    picture(folder / "__MACOSX" / "train" / "._0.png")
    (folder / "train" / "cat" / "._0.png").touch()
    (folder / "train" / "cat" / "cat.txt").touch()
    picture(folder / "x.tiff")
    # What is called like an image keeps its row, and the row says that it cannot be read.
    (folder / "nowhere.png").symlink_to(folder / "none.png")
    (folder / "link.png").symlink_to(folder / "train" / "cat" / "0.png")
    with caplog.at_level(logging.INFO, "inception_trainer"):
        found = image_files(folder)
    relative = [Path(name).relative_to(folder).as_posix() for name in found]
    assert [relative[0], relative[1], relative[-1]] == ["link.png", "nowhere.png", "x.tiff"]
    assert len(found) == 11
    hidden, kinds = (record.getMessage() for record in caplog.records)
    assert hidden.startswith("ignored 3 hidden names: ")
    assert "train/cat/cat.txt" in kinds
    # A hidden file that is named itself is meant.
    hidden_file = picture(folder / ".one.png")
    assert image_files(hidden_file) == [str(hidden_file)]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfa/0.png 0\nb.png 1\n",
        b"a/0.png 0\r\nb.png 1\r\n",
        b"a/0.png 0   \n\n  b.png\t1\t\n   \n",
        b"a/0.png 0\rb.png 1",
        "a/0.png 0\r\nb.png 1\r\n".encode("utf-16"),
        b"./a/0.png 0\n./b.png 1\n",
        b"a/0.png 00\nb.png 01\n",
    ],
    ids=["mark", "crlf", "blanks", "cr", "utf16", "find", "zeros"],
)
def test_lists_of_any_editor_are_read(tmp_path: Path, text: bytes) -> None:
    picture(tmp_path / "a" / "0.png")
    picture(tmp_path / "b.png")
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_bytes(text)
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog  \r\n\r\n")
    found = splits("ImageList", tmp_path)
    assert names(found.train, tmp_path) == ["a/0.png", "b.png"]
    assert found.train.classes.tolist() == found.val.classes.tolist() == [0, 1]
    assert found.class_names == ("cat", "dog")
    assert found.train.batch(np.arange(2), None).labels.tolist() == [0, 1]


def test_names_in_other_encodings_lead_to_their_files(tmp_path: Path) -> None:
    name = b"gr\xfcn \xa0.png"
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "wb") as file:  # noqa: PTH123 - no text
        file.write(png(1))
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_bytes(name + b" 0\nb.png 1\n")
    picture(tmp_path / "b.png")
    assert splits("ImageList", tmp_path).train.batch(np.arange(2), None).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a.png \xc2\xb2\n", "line 1: 'a.png \N{SUPERSCRIPT TWO}' is not"),
        (b"a.png -1\n", "line 1: 'a.png -1' is not"),
        (b"a.png 0\na.png 99999999999\n", "line 2: .* with an index from 0 to 999999"),
        (b"a.png,0\n", "line 1: 'a.png,0' is not"),
        (b"a.png 0\n\0\0\0", "no text in UTF-8: it holds zero bytes"),
        (b"._a.png 0\n", "names no images"),
    ],
)
def test_wrong_lists_are_explained(tmp_path: Path, text: bytes, words: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "train.txt").write_bytes(text)
    with pytest.raises(DataError, match=words):
        splits("ImageList", tmp_path)


def test_hidden_names_in_lists_are_left_out(tmp_path: Path) -> None:
    text = "._a.png 0\na.png 0\n__MACOSX/b.png 1\n.cache/b.png 1\n.ipynb_checkpoints/a.png 0\n"
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text(text)
    picture(tmp_path / "a.png")
    picture(tmp_path / ".cache" / "b.png")
    found = splits("ImageList", tmp_path)
    assert names(found.train, tmp_path) == ["a.png", ".cache/b.png"]
    (line,) = found.ignored
    assert line == "ignored 6 hidden names: ._a.png, __MACOSX/b.png, .ipynb_checkpoints/a.png, ..."


def test_absolute_paths_in_lists_are_read(tmp_path: Path) -> None:
    root, other = tmp_path / "lists", tmp_path / "elsewhere"
    one, two = picture(other / "a b.png"), picture(root / "train" / "c.png")
    (root / "train.txt").write_text(f"{one} 0\nc.png 1\n{other}/gone.png 0\n")
    (root / "val.txt").write_text(f"{two} 1\n")
    found = splits("ImageList", root)
    assert names(found.train, tmp_path)[:2] == ["elsewhere/a b.png", "lists/train/c.png"]
    assert found.train.batch(np.arange(2), None).labels.tolist() == [0, 1]
    with pytest.raises(InputMissing, match=r"train\.txt names .*gone\.png, which is not there"):
        found.train.batch(np.array([2]), None)


def test_absolute_paths_of_another_machine_are_explained(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("/home/someone/a.png 0\n")
    with pytest.raises(
        InputMissing,
        match=r"train\.txt names /home/someone/a\.png, which is not there; an absolute path must",
    ):
        splits("ImageList", tmp_path)


def test_backslashes_are_explained(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("cat\\a.png 0\n")
    with pytest.raises(InputMissing, match="its backslashes are part of the name here"):
        splits("ImageList", tmp_path)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfval/a.png 1\r\nb.png\t0 \r\n", b"ABSOLUTE"])
def test_lists_of_flat_validation_images_are_read_the_same_way(folder: Path, text: bytes) -> None:
    root = folder / "flat"
    root.mkdir()
    (folder / "train").rename(root / "train")
    one, two = picture(root / "val" / "a.png"), picture(root / "val" / "b.png")
    picture(root / "val" / ".ipynb_checkpoints" / "a.png")
    (root / "val.txt").write_bytes(text)
    if text == b"ABSOLUTE":
        (root / "val.txt").write_text(f"{one} 1\n{two} 0\n")
    found = splits("ImageFolder", root)
    assert names(found.val, root) == ["val/a.png", "val/b.png"]
    assert found.val.classes.tolist() == [1, 0]


def test_hidden_shards_and_members_are_left_out(tmp_path: Path) -> None:
    entries = [
        ("._a.png", b"x"),
        ("__MACOSX/._a.png", b"x"),
        ("Thumbs.db", b"x"),
        *sample("./x/a", png(1), 0),
        *sample("x/.ipynb_checkpoints/b", png(2), 7),
        *sample("x/c", png(3), 1),
    ]
    for split in ("train", "val"):
        write_tar(tmp_path / split / "0.tar", entries)
        (tmp_path / split / "._0.tar").write_bytes(b"no shard")
    for keys in ({}, {"trainShards": "train/*.tar", "valShards": "val"}):
        found = splits("WebDataset", tmp_path, **keys)
        assert found.train.classes.tolist() == [0, 1]
        (line,) = found.ignored
        assert line.startswith("ignored 12 hidden names: ._0.tar, ")
        assert "members of 0.tar" in line


def test_shards_hold_images_of_any_kind(tmp_path: Path) -> None:
    picture(tmp_path / "a.tif")
    tif = (tmp_path / "a.tif").read_bytes()
    entries = [("a.tif", tif), ("a.cls", b"1"), ("b.jpg", png(1)), ("b.tif", tif), ("b.cls", b"0")]
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}.tar", entries)
    found = splits("WebDataset", tmp_path)
    assert found.train.classes.tolist() == [1, 0]
    # Beside an image of the usual kinds another one is a mask or the like.
    assert found.train.encoded(1) == png(1)
    assert found.train.batch(np.arange(2), None).labels.tolist() == [1, 0]


def test_the_log_says_what_was_found(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(folder / "train" / "dog" / "2.png")
    (folder / "train" / ".DS_Store").touch()
    with caplog.at_level(logging.INFO, "inception_trainer"):
        splits("ImageFolder", folder)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("image files are decoded by Pillow")
    assert told[1:] == [
        "training data: 5 images of 2 classes, the smallest with 2 (cat), the largest with 3 (dog)",
        "validation data: 4 images of 2 classes with 2 each",
        "ignored 1 hidden name: train/.DS_Store",
    ]


def test_classes_without_images_in_a_list_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "train.txt").write_text("a.png 1\na.png 3\n")
    (tmp_path / "val.txt").write_text("a.png 3\n")
    lines = found_lines(splits("ImageList", tmp_path))
    assert "no training images of 2 classes: class-0, class-2" in lines
    assert "no validation images of 3 classes: class-0, class-1, class-2" in lines


@pytest.mark.parametrize("kind", ["Digits", "Synthetic"])
def test_data_without_files_is_told_as_well(kind: str) -> None:
    found = open_splits(from_mapping({"data": {"kind": kind, "imageSize": 32}}))
    train, val = found_lines(found)
    assert train.startswith(f"training data: {len(found.train):,} images of ")
    assert val.startswith(f"validation data: {len(found.val):,} images of ")


@pytest.mark.parametrize(
    ("name", "hidden", "litter"),
    [
        (".x", True, True),
        ("x", False, False),
        ("__macosx", True, True),
        ("a/.hidden/x.png", True, False),
        ("a/@eaDir/x.png", False, True),
        ("a/._x.png", False, True),
        ("..data", True, True),
    ],
)
def test_which_names_are_hidden(name: str, hidden: bool, litter: bool) -> None:
    assert is_litter(name) == litter
    if "/" not in name:
        assert is_hidden(name) == hidden


def old_listing(root: Path) -> list[tuple[str, int]]:
    """As it was kept before: a path and a class for each image."""
    classes = sorted(path.name for path in root.iterdir())
    return [
        (f"{root}/{name}/{file}", number)
        for number, name in enumerate(classes)
        for file in sorted(os.listdir(root / name))  # noqa: PTH208 - as it was
    ]


def test_the_table_of_files_holds_what_the_list_of_paths_held(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(300):
        name = "".join(chr(code) for code in generator.integers(97, 123, 1 + number % 9))
        path = tmp_path / "train" / f"c{number % 7}" / f"{name}é{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "val").symlink_to(tmp_path / "train")
    expected = old_listing(tmp_path / "train")
    train = splits("ImageFolder", tmp_path).train
    found = [(train.name(index), int(train.classes[index])) for index in range(len(train))]
    assert found == expected


@pytest.mark.parametrize("other", [[39, 8, 2], [40, 7, 2], [40, 8, 3]])
def test_ranks_that_find_different_data_say_so(other: list[int]) -> None:
    """A copy on a node's own disk that is not complete; the next attempt may find it so."""
    found: Any = SimpleNamespace(train=range(40), val=range(8), num_classes=2)
    comm: Any = SimpleNamespace(gather=lambda own: torch.stack((own, own, torch.tensor(other))))
    with pytest.raises(StorageFailed, match=r"rank 0 40 training and 8 .* rank 2 ") as failure:
        check_same_data(comm, found)
    assert failure.value.exit_code == 1
    check_same_data(Comm(0, 1, "gloo"), found)


def test_names_that_are_no_text_can_be_logged(capfd: pytest.CaptureFixture[str]) -> None:
    log.configure("", 1, 0)
    log.logger.warning("%s cannot be read", os.fsdecode(b"gr\xfcn.png"))
    out, err = capfd.readouterr()
    assert out.endswith("gr\\udcfcn.png cannot be read\n")
    assert not err


def test_names_of_a_million_files_are_no_objects() -> None:
    count = 100_000
    files = FileList("/data")
    for label in range(100):
        names = (f"n{label:08d}_{number}.JPEG" for number in range(count // 100))
        files.add_folder(f"/data/train/n{label:08d}/", names, label)
    table = files.build()
    assert len(table) == count
    assert table.name(count - 1) == "/data/train/n00000099/n00000099_999.JPEG"
    assert (table.label(0), table.label(count - 1)) == (0, 99)
    # Nothing that is counted per file: only whole arrays and pieces of bytes.
    assert table.nbytes / count < 40
