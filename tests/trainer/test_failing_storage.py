"""Storage that gives errors for a while: read again, and never taken for a fault of the data.

The errors are the kernel's own: a link to /proc/self/mem can be opened, looked at and not read
(EIO), like a file of a server that has gone. Linux gives no unprivileged process the others, so
those are raised.
"""

from __future__ import annotations

import errno
import gzip
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inception_trainer import storage, stores
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.data.base import UNREADABLE
from inception_trainer.data.class_names import class_names
from inception_trainer.data.images import files_to_classify, image_files
from inception_trainer.errors import DataError, InputMissing, StorageFailed
from inception_trainer.storage import patiently
from object_store import upload
from shard_files import same_data

UNREADABLE_FILE = Path("/proc/self/mem")


@pytest.fixture
def break_file() -> Iterator[Callable[..., None]]:
    """Makes a file unreadable, for good or for some seconds."""
    timers: list[threading.Timer] = []

    def install(path: Path, seconds: float | None = None) -> None:
        whole = path.with_name(f".{path.name}.whole")
        path.rename(whole)
        path.symlink_to(UNREADABLE_FILE)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            path.read_bytes()
        if seconds is not None:
            timers.append(threading.Timer(seconds, whole.replace, [path]))
            timers[-1].start()

    yield install
    for timer in timers:
        timer.join()


def config(kind: str, root: Path | str, workers: int = 0) -> Any:
    data = {"kind": kind, "path": str(root), "imageSize": 32, "workers": workers}
    return from_mapping({"data": data})


def opened(kind: str, root: Path | str, workers: int = 0) -> Any:
    return open_splits(config(kind, root, workers))


def batches(split: Any, epoch: int | None = 0) -> list[Any]:
    with split.stream([np.arange(4), np.arange(4, 8)], epoch) as stream:
        return list(stream)


@pytest.mark.usefixtures("copies_of_indices")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["ImageFolder", "WebDataset"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_cannot_be_read_for_a_while_costs_no_image(
    tmp_path: Path, break_file: Any, kind: str, workers: int, split: str, caplog: Any
) -> None:
    folders, shards = same_data(tmp_path)
    root = folders if kind == "ImageFolder" else shards
    epoch = 0 if split == "train" else None
    expected = batches(getattr(opened(kind, root), split), epoch)
    splits = opened(kind, root, workers)
    first = {
        "ImageFolder": root / split / "class-0" / "000000.png",
        "WebDataset": root / f"{split}-0000.tar",
    }
    break_file(first[kind], seconds=0.5)
    found = batches(getattr(splits, split), epoch)
    splits.close()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert not (one.labels == UNREADABLE).any()
    assert "is skipped" not in caplog.text


@pytest.mark.usefixtures("copies_of_indices")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_stays_unreadable_ends_the_attempt_with_error_and_path(
    tmp_path: Path, break_file: Any, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The exit code is one after which the operator tries again, and the message is one line."""
    monkeypatch.setattr(storage, "PATIENCE", 0.3)
    folders, _ = same_data(tmp_path)
    splits = opened("ImageFolder", folders, workers)
    path = folders / "train" / "class-0" / "000002.png"
    break_file(path)
    with pytest.raises(StorageFailed) as failure:
        batches(splits.train)
    splits.close()
    assert failure.value.exit_code == 1
    text = str(failure.value)
    assert text.startswith(f"{path}: EIO (Input/output error), still after 0 s of trying")
    assert "\n" not in text


@pytest.mark.parametrize("name", ["train.txt", "val.txt"])
def test_a_list_that_cannot_be_read_for_a_while_is_read_later(
    tmp_path: Path, break_file: Any, name: str
) -> None:
    folders, _ = same_data(tmp_path)
    for split in ("train", "val"):
        images = sorted((folders / split).rglob("*.png"))
        lines = [f"{path.relative_to(folders)} {int(path.parent.name[-1])}" for path in images]
        (folders / f"{split}.txt").write_text("\n".join(lines))
    break_file(folders / name, seconds=0.5)
    splits = opened("ImageList", folders)
    assert (len(splits.train), len(splits.val)) == (40, 9)


@pytest.mark.usefixtures("copies_of_indices")
def test_an_index_is_made_once_its_shards_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards are asked for their size first, which the link to memory answers with 0: so the error
    is raised where they are read.
    """
    _, shards = same_data(tmp_path)
    left = [OSError(errno.ESTALE, os.strerror(errno.ESTALE)) for _ in range(2)]
    original = os.pread

    def stale(*arguments: Any) -> bytes:
        if left:
            raise left.pop()
        return original(*arguments)

    monkeypatch.setattr(os, "pread", stale)
    assert len(opened("WebDataset", shards).train) == 40
    assert not left


def test_a_store_that_fails_for_a_while_costs_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://bucket/{tmp_path.name}"
    upload(same_data(tmp_path)[0], url)
    train = opened("ImageFolder", url).train
    kind = type(stores.filesystem(url)[0])
    original = kind.cat_file
    left = [TimeoutError("timed out") for _ in range(2)]

    def flaky(*arguments: Any, **keys: Any) -> bytes:
        if left:
            raise left.pop()
        content: bytes = original(*arguments, **keys)
        return content

    monkeypatch.setattr(kind, "cat_file", flaky)
    assert not (train.batch(np.arange(3), 0).labels == UNREADABLE).any()
    assert not left


@pytest.mark.parametrize(
    "number",
    [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ECONNRESET],
)
def test_errors_that_may_pass_are_waited_for(number: int) -> None:
    left = [OSError(number, os.strerror(number), "/data/x") for _ in range(3)]

    def read() -> str:
        if left:
            raise left.pop()
        return "content"

    assert patiently(read, "/data/x") == "content"
    with pytest.raises(StorageFailed, match=rf"/data/y: {errno.errorcode[number]} \(.*\), still"):
        patiently(lambda: _raise(OSError(number, "", "/data/y")), "/data", patience=0.2)


def test_the_patience_begins_with_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a million files is listed for longer than that before anything fails."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr(storage, "time", clock)
    left = [OSError(errno.ESTALE, "", "/data/x")]

    def read() -> str:
        now[0] += 10 * storage.PATIENCE
        if left:
            raise left.pop()
        return "content"

    assert patiently(read, "/data/x") == "content"


@pytest.fixture
def others_data() -> Iterator[Path]:
    """Image folders, lists, shards and digits that belong to root, below a folder that anybody may
    enter; while a test runs this process is nobody, whom rights of files concern.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        folders, _ = same_data(root)
        for split in ("train", "val"):
            images = sorted((folders / split).rglob("*.png"))
            lines = [f"{path.relative_to(folders)} {path.parent.name[-1]}" for path in images]
            (folders / f"{split}.txt").write_text("\n".join(lines))
        # What is imported late is imported while files can be read.
        for kind in ("ImageFolder", "ImageList", "WebDataset"):
            opened(kind, root / PLACES[kind]).train.batch(np.arange(2), None)
        yield root


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Let nobody read it, and be nobody."""
    mode = path.stat().st_mode
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


PLACES = {"ImageFolder": "folders", "ImageList": "folders", "WebDataset": "shards"}


def read_some(kind: str, root: Path) -> None:
    splits = opened(kind, root)
    with closing(splits):
        batches(splits.train)


@pytest.mark.usefixtures("copies_of_indices")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ImageFolder", "."),
        ("ImageFolder", "folders/train"),
        ("ImageFolder", "folders/val/class-1"),
        ("ImageFolder", "folders/train/class-0/000000.png"),
        ("ImageList", "folders/val.txt"),
        ("ImageList", "folders/train/class-0"),
        ("WebDataset", "shards"),
        ("WebDataset", "shards/train-0000.tar"),
    ],
)
def test_data_that_may_not_be_read_is_missing_and_says_for_whom(
    others_data: Path, kind: str, name: str
) -> None:
    path = others_data / name
    with pytest.raises(InputMissing) as failure, forbidden(path):
        read_some(kind, others_data / PLACES[kind])
    text = str(failure.value)
    assert f"{path} (owner {os.geteuid()}:{os.getegid()}, " in text
    assert "cannot be read (EACCES (Permission denied)) by user " in text
    assert "chmod -R a+rX" in text
    assert "fsGroup" in text


def classify_one(root: Path) -> None:
    images = files_to_classify(image_files(root), root, config("ImageFolder", root).data)
    images.dataset.batch(np.arange(1), None)


@pytest.mark.parametrize("name", ["train", "train/class-0/000000.png"])
def test_images_to_classify_that_may_not_be_read_are_missing(others_data: Path, name: str) -> None:
    root = others_data / "folders"
    with pytest.raises(InputMissing, match=f"{root}/{name} "), forbidden(root / name):
        classify_one(root)


def test_digits_that_cannot_be_read_just_now_are_no_damaged_digits(
    tmp_path: Path, break_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress(b"1,2\n")[:-3])
    with pytest.raises(DataError, match="no table of 65 columns"):
        opened("Digits", tmp_path)
    break_file(path)
    with pytest.raises(StorageFailed, match="EIO"):
        opened("Digits", tmp_path)


def test_names_of_classes_that_cannot_be_read_for_a_while_are_read_later(
    tmp_path: Path, break_file: Any
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("a\nb\n")
    break_file(path, seconds=0.3)
    assert class_names(str(path), (), 2) == ("a", "b")


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no"), PermissionError(13, "no")])
def test_other_errors_are_not_waited_for(error: OSError) -> None:
    calls: list[int] = []

    def read() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        patiently(read, "/data/x")
    assert calls == [1]


def test_a_folder_that_does_not_answer_is_not_taken_for_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path.is_dir answers False for any error in some versions of Python."""
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    monkeypatch.setattr(Path, "stat", lambda self: _raise(OSError(errno.ENOTCONN, "", str(self))))
    for attempt in (lambda: opened("ImageFolder", tmp_path), lambda: image_files(tmp_path)):
        with pytest.raises(StorageFailed, match=r"ENOTCONN \("):
            attempt()


def _raise(error: Exception) -> Any:
    raise error
