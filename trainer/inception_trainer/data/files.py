"""Samples in files of their own: image folders, lists of files, and what mode Infer classifies."""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.errors import InputMissing
from inception_trainer.stores import Remote, is_url

from .base import Samples, UnreadableImage
from .text_table import TextTable, TextTableBuilder

LARGEST_FILE = 1 << 30
"""Bytes; what is larger is not even read."""


class Files(Samples):
    """The path or URL of each image and its class; :class:`FileList` makes them.

    Paths are kept in two tables, one of folders and one of names, so that ImageNet takes 44 MB that
    all loader workers share.
    """

    def __init__(
        self,
        root: str,
        folders: TextTable,
        folder_of: NDArray[np.int32],
        names: TextTable,
        classes: NDArray[np.int32],
        listing: str = "",
    ) -> None:
        self._root = root
        self._listing = listing
        self._folders = folders
        self._folder_of = folder_of
        self._names = names
        self._classes = classes

    @override
    def __len__(self) -> int:
        return len(self._names)

    @override
    def name(self, index: int) -> str:
        return os.fsdecode(self._path(index))

    def _path(self, index: int) -> bytes:
        return self._folders.encoded(int(self._folder_of[index])) + self._names.encoded(index)

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._classes

    @override
    def label(self, index: int) -> int:
        return int(self._classes[index])

    @override
    def identities(self) -> NDArray[np.uint64]:
        """From the path below the root, so that another mount of the same data changes nothing."""
        root = os.fsencode(self._root.rstrip("/") + "/")
        paths = (self._path(index).removeprefix(root) for index in range(len(self)))
        digests = b"".join(hashlib.blake2b(path, digest_size=8).digest() for path in paths)
        return np.frombuffer(digests, "<u8").astype(np.uint64)

    @override
    def fingerprinted(self) -> Iterator[bytes]:
        prefix = os.fsencode(self._root.rstrip("/"))
        for number in range(len(self._folders)):
            yield self._folders.encoded(number).removeprefix(prefix) + b"\0"
        yield self._folder_of.astype("<i4").tobytes()
        yield from self._names.content()
        yield self._classes.astype("<i4").tobytes()

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        tables = self._folders.nbytes + self._names.nbytes
        return tables + self._folder_of.nbytes + self._classes.nbytes

    @override
    def size(self, index: int) -> int:
        path = self.name(index)
        return Remote(path).size() if is_url(path) else Path(path).stat().st_size

    @override
    def read(self, index: int) -> bytes:
        """The content of the file; raises InputMissing when it is gone, UnreadableImage for what is
        no file and for links that lead nowhere.
        """
        path = self.name(index)
        try:
            if is_url(path):
                return Remote(path).read_bytes()
            with open(path, "rb", opener=_opened_at_once) as file:
                _check_file(os.fstat(file.fileno()))
                return file.read()
        except FileNotFoundError:
            if os.path.islink(path):  # noqa: PTH114 - paths are texts here
                target = os.readlink(path)  # noqa: PTH115
                raise UnreadableImage(f"it is a link to {target}, which is not there") from None
            if self._listing:
                # Nobody has looked: a question for each of a million would take minutes.
                raise InputMissing(
                    f"data.path: {self._listing} names {path}, which is not there"
                ) from None
            raise InputMissing(f"data.path: {path} was there at the start and is gone") from None


def _opened_at_once(path: str, flags: int) -> int:
    # A named pipe would be waited for until somebody writes into it.
    return os.open(path, flags | os.O_NONBLOCK)


def _check_file(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableImage("it is no file but a pipe or a device")
    check_size(found.st_size)


def check_size(size: int) -> None:
    """Refuse to read what is no image by its size in bytes alone; raises UnreadableImage."""
    if size > LARGEST_FILE:
        raise UnreadableImage(f"it has {size} bytes, which no image needs")


class FileList:
    """Collects files and their classes; ``root`` is what their paths have in common, ``listing``
    the file that names them, where nobody has seen them in a folder.
    """

    def __init__(self, root: str = "", listing: str = "") -> None:
        self._root = root
        self._listing = listing
        self._folders = TextTableBuilder()
        self._numbers: dict[str, int] = {}
        """Of the folders, by their paths."""
        self._folder_of = array("i")
        self._names = TextTableBuilder()
        self._classes = array("i")

    def __len__(self) -> int:
        return len(self._names)

    def add(self, path: str, label: int) -> None:
        """One file."""
        folder, slash, name = path.rpartition("/")
        self.add_folder(folder + slash, (name,), label)

    def add_folder(self, folder: str, names: Iterable[str], label: int) -> None:
        """Files of one class in one folder, whose path ends with a slash."""
        number = self._numbers.get(folder)
        if number is None:
            number = self._numbers[folder] = len(self._folders)
            self._folders.extend((folder,))
        count = self._names.extend(names)
        self._folder_of.extend(repeat(number, count))
        self._classes.extend(repeat(label, count))

    def build(self) -> Files:
        """The files in the order in which they were added."""
        return Files(
            self._root,
            self._folders.build(),
            np.array(self._folder_of, np.int32),
            self._names.build(),
            np.array(self._classes, np.int32),
            self._listing,
        )
