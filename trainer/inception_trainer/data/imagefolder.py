"""The data kind ImageFolder, as ImageNet is unpacked: ``train/<class>/*`` and
``val/<class>/*`` (or ``validation_preprocess/``, or ``val.txt``).

The class index is the position in the sorted folder names of ``train/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath, Remote, is_url, place

from .base import Splits
from .encoded import Files, both_splits
from .folder_listing import describe_folder

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
VALIDATION_FOLDERS = ("val", "validation_preprocess")
THREADS = 16
"""Folders of a store listed side by side."""
EXPECTED = "train/<class>/<image> and val/<class>/<image>"
Sample = tuple[str, int]
"""Path and class index."""


def open_image_folder(config: DataConfig, seed: int) -> Splits:
    """Both splits below ``data.path``.

    Raises InputMissing with what was expected and what is there.
    """
    root = place(config.path or "")
    if not root.is_dir():
        raise InputMissing(f"data.path: no folder {root}; expected {EXPECTED}")
    classes = _classes(_folder(root, ("train",)))
    train = _scan(root / "train", classes)
    val = _validation(root, classes)
    return both_splits(Files(train), Files(val), tuple(classes), config, seed)


def _folder(root: AnyPath, names: tuple[str, ...]) -> AnyPath:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputMissing(
        f"data.path: {root} holds no folder {' or '.join(names)}; expected {EXPECTED}; "
        f"found: {describe_folder(root)}"
    )


class _Entry(Protocol):
    @property
    def name(self) -> str: ...

    def is_dir(self) -> bool: ...


def _entries(folder: AnyPath) -> list[_Entry]:
    if isinstance(folder, Remote):
        return sorted(folder.iterdir(), key=lambda entry: entry.name)
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _list_folders(folders: list[str]) -> Iterable[list[str]]:
    """The names in each folder."""
    if folders and is_url(folders[0]):
        # Each listing is a request, and ImageNet has 1,000 classes: side by side.
        with ThreadPoolExecutor(THREADS, "listing") as pool:
            return list(pool.map(_list_remote, folders))
    # Names only: a Path object per image would cost more than the listing.
    return (os.listdir(folder) for folder in folders)  # noqa: PTH208


def _list_remote(folder: str) -> list[str]:
    return [entry.name for entry in Remote(folder).iterdir()]


def _classes(folder: AnyPath) -> list[str]:
    classes = [entry.name for entry in _entries(folder) if entry.is_dir()]
    if not classes:
        raise InputMissing(
            f"data.path: {folder} holds no class folders; expected {EXPECTED}; "
            f"found: {describe_folder(folder.parent)}"
        )
    return classes


def _scan(folder: AnyPath, classes: list[str]) -> list[Sample]:
    numbers = {name: number for number, name in enumerate(classes)}
    samples: list[Sample] = []
    present = [entry.name for entry in _entries(folder) if entry.is_dir()]
    for name in present:
        if name not in numbers:
            raise DataError(f"data.path: {folder}/{name} is a class that train/ does not have")
    contents = _list_folders([f"{folder}/{name}" for name in present])
    for name, files in zip(present, contents, strict=True):
        # Sorted, because a directory lists its files in an order of its own on every machine.
        images = sorted(file for file in files if file.lower().endswith(SUFFIXES))
        samples += [(f"{folder}/{name}/{file}", numbers[name]) for file in images]
    if not samples:
        raise InputMissing(
            f"data.path: no images below {folder}; expected {folder}/<class>/*{'|*'.join(SUFFIXES)}"
        )
    return samples


def _validation(root: AnyPath, classes: list[str]) -> list[Sample]:
    folder = _folder(root, VALIDATION_FOLDERS)
    # ImageNet's own archive of the validation images has no class folders.
    listing = root / "val.txt"
    if any(entry.is_dir() for entry in _entries(folder)) or not listing.is_file():
        return _scan(folder, classes)
    samples: list[Sample] = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdigit() or int(label) >= len(classes):
            raise DataError(
                f"data.path: {listing} line {number}: {line!r} is not `<file> <class index>`"
            )
        samples.append((str(folder / name.removeprefix(f"{folder.name}/")), int(label)))
    return samples
