"""Reads the published files of CIFAR-10 and CIFAR-100, in the python and the binary layout.

The python layout is pickled. Its reader builds arrays and plain values only, so that a data set
cannot run code here.
"""

from __future__ import annotations

import codecs
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.normalization import CIFAR10, CIFAR100, Normalization
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath

from .folder_listing import describe_folder
from .lists import read_names

SIDE = 32
PIXELS = 3 * SIDE * SIDE
"""Bytes of one image."""
FINE_NAMES = b"fine_label_names"
BINARY = ".bin"
"""How the files of the binary layout end."""
BROKEN = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(OverflowError, MemoryError),
)
"""What reading a file with other contents raises."""
Table = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]``."""


class Contents(NamedTuple):
    """What the files of an edition hold."""

    train: Table
    test: Table
    names: tuple[str, ...]
    notes: tuple[str, ...]
    """How they differ from the published ones, a line for each difference."""


@dataclass(frozen=True)
class Layout:
    """Names of the files in one layout; each may lie in any of the folders below the root."""

    folders: tuple[str, ...]
    train: tuple[str, ...]
    test: str
    names: str | None = None
    """Of the classes; the file may be missing."""

    def find(self, root: AnyPath, name: str) -> AnyPath | None:
        """The file in the first folder that has it."""
        paths = (root / folder / name for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class Edition:
    """What one of the two data sets has of its own."""

    title: str
    names: tuple[str, ...]
    """Of the classes, where no file says them."""
    normalization: Normalization
    expected: str
    train_images: int
    """In all published files of training images together, the same number in each."""
    test_images: int
    python: Layout
    binary: Layout
    label_key: bytes
    """In the python layout."""
    label_bytes: int
    """Before the pixels in the binary layout; the last of them is the label."""


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_ANY_BATCH = re.compile(r"data_batch_\d+(\.bin)?")
# Both layouts are looked for in both folders: model zoos have the binary files in the folder that
# is named after the other layout.
_FOLDERS_10 = ("", "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-verify-bin")
_FOLDERS_100 = ("", "cifar-100-python", "cifar-100-binary")
EDITIONS = {
    "Cifar10": Edition(
        title="CIFAR-10",
        names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        normalization=CIFAR10,
        expected="data_batch_1 to data_batch_5 and test_batch (python), "
        "or the same names with .bin (binary)",
        train_images=50_000,
        test_images=10_000,
        python=Layout(_FOLDERS_10, _BATCHES, "test_batch"),
        binary=Layout(
            _FOLDERS_10,
            tuple(f"{name}.bin" for name in _BATCHES),
            "test_batch.bin",
        ),
        label_key=b"labels",
        label_bytes=1,
    ),
    "Cifar100": Edition(
        title="CIFAR-100",
        names=tuple(map(str, range(100))),
        normalization=CIFAR100,
        expected="the files train and test (python), or train.bin and test.bin (binary)",
        train_images=50_000,
        test_images=10_000,
        python=Layout(_FOLDERS_100, ("train",), "test", "meta"),
        binary=Layout(_FOLDERS_100, ("train.bin",), "test.bin", "fine_label_names.txt"),
        label_key=b"fine_labels",
        label_bytes=2,
    ),
}
"""By ``data.kind``."""


def read_edition(root: AnyPath, edition: Edition) -> Contents:
    """Training and test images and the classes' names; InputMissing or DataError for files that are
    not as published. Fewer or more images than there are published are no error, but noted.

    The python layout is preferred where both are there.
    """
    for layout, read, names_in in (
        (edition.python, _python, _python_names),
        (edition.binary, _binary, _binary_names),
    ):
        paths = {name: layout.find(root, name) for name in (*layout.train, layout.test)}
        missing = [name for name, path in paths.items() if path is None]
        files = {name: path for name, path in paths.items() if path is not None}
        if files and missing:
            # Some but not all: an unpacking that was cut short, and no reason to try the other.
            raise InputMissing(
                f"data.path: {root} lacks {', '.join(missing)}; found {describe_folder(root)}"
            )
        if files:
            tables = {name: read(path, edition) for name, path in files.items()}
            test = tables.pop(layout.test)
            notes = _count(tables, layout, test, edition)
            further = _further_batches(files[layout.train[0]], layout)
            if further:
                notes.append(_add_further(tables, further, read, edition))
            names = edition.names
            listing = layout.find(root, layout.names) if layout.names else None
            if listing is not None:
                names = _checked(names_in(listing), edition, listing)
            return Contents(_joined(list(tables.values())), test, names, tuple(notes))
    raise InputMissing(
        f"data.path: no {edition.title} in {root}; expected {edition.expected}; "
        f"found {describe_folder(root)}"
    )


def _count(tables: dict[str, Table], layout: Layout, test: Table, edition: Edition) -> list[str]:
    """What is to be said of numbers of images that are not the published ones."""
    each = edition.train_images // len(layout.train)
    expected = dict.fromkeys(layout.train, each) | {layout.test: edition.test_images}
    return [
        f"{name} holds {len(labels):,} images, in {edition.title} as published {expected[name]:,}"
        for name, (_, labels) in (*tables.items(), (layout.test, test))
        if len(labels) != expected[name]
    ]


def _further_batches(first: AnyPath, layout: Layout) -> list[AnyPath]:
    """Files beside the first one that are called like batches but are not among the published."""
    if not _ANY_BATCH.fullmatch(first.name):
        return []
    is_binary = first.name.endswith(BINARY)
    further = [
        path
        for path in first.parent.iterdir()
        if _ANY_BATCH.fullmatch(path.name)
        and path.name.endswith(BINARY) == is_binary
        and path.name not in layout.train
    ]
    return sorted(further, key=lambda path: path.name)


def _add_further(
    tables: dict[str, Table],
    further: list[AnyPath],
    read: Callable[[AnyPath, Edition], Table],
    edition: Edition,
) -> str:
    """Read further batches where they make up the published number, and say what was done.

    A sixth batch beside five whole ones is nothing of CIFAR-10: it may well be the test images.
    """
    names = ", ".join(path.name for path in further)
    whole = sum(len(labels) for _, labels in tables.values())
    if whole < edition.train_images:
        more = {path.name: read(path, edition) for path in further}
        if whole + sum(len(labels) for _, labels in more.values()) == edition.train_images:
            tables.update(more)
            return f"{names} is read, too: with it there are {edition.train_images:,} images"
    return (
        f"ignored {names}: {edition.title} is {', '.join(tables)}, "
        f"which hold {whole:,} training images"
    )


def _joined(tables: list[Table]) -> Table:
    """One table from several files."""
    images = np.concatenate([images for images, _ in tables])
    labels = np.concatenate([labels for _, labels in tables])
    return images, labels


def _binary(path: AnyPath, edition: Edition) -> Table:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    length = edition.label_bytes + PIXELS
    if not len(data) or len(data) % length:
        raise DataError(
            f"data.path: {path} has {len(data)} bytes, no multiple of {length}: "
            f"it is cut or no {edition.title}"
        )
    records = data.reshape(-1, length)
    # CIFAR-100 has the coarse label before the fine one: the last byte is what is learned.
    labels = records[:, edition.label_bytes - 1]
    return _table(records[:, edition.label_bytes :], labels, path, edition)


def _python(path: AnyPath, edition: Edition) -> Table:
    with _explained(path, f"batch of {edition.title}"):
        content = _unpickled(path)
        pixels = np.asarray(content[b"data"])
        labels = np.asarray(content[edition.label_key])
        return _table(pixels, labels, path, edition)


def _table(pixels: NDArray[Any], labels: NDArray[Any], path: AnyPath, edition: Edition) -> Table:
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or not len(labels):
        raise DataError(
            f"data.path: {path} holds {pixels.shape} {pixels.dtype} with {len(labels)} labels, "
            f"no {edition.title}"
        )
    whole_numbers = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole_numbers or labels.min() < 0 or labels.max() >= len(edition.names):
        raise DataError(
            f"data.path: {path} has labels from {labels.min()} to {labels.max()}, "
            f"{edition.title} has whole numbers from 0 to {len(edition.names) - 1}"
        )
    # A copy: what numpy reads from bytes cannot be written to, and torch warns of such memory.
    return pixels.reshape(-1, 3, SIDE, SIDE).copy(), labels.astype(np.int64)


def _python_names(path: AnyPath) -> list[str]:
    with _explained(path, f"file with {FINE_NAMES.decode()}"):
        return [name.decode() for name in _unpickled(path)[FINE_NAMES]]


def _binary_names(path: AnyPath) -> list[str]:
    return list(read_names(path))


def _checked(names: list[str], edition: Edition, path: AnyPath) -> tuple[str, ...]:
    if len(names) != len(edition.names):
        raise DataError(
            f"data.path: {path} names {len(names)} classes, "
            f"{edition.title} has {len(edition.names)}; "
            "put the published file in its place, or remove it"
        )
    return tuple(names)


@contextmanager
def _explained(path: AnyPath, expected: str) -> Iterator[None]:
    """Raise DataError for whatever a file with other contents leads to."""
    try:
        yield
    except BROKEN as error:
        raise DataError(
            f"data.path: {path} is no {expected}: {type(error).__name__}: {error}"
        ) from None


def _unpickled(path: AnyPath) -> Any:
    with path.open("rb") as file:
        return _ArraysOnly(file, encoding="bytes").load()


_RECONSTRUCT = np.empty(0).__reduce__()[0]
# The published files name numpy's module as it was called in 2009; numpy 2 renamed it.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
    **{(module, "_reconstruct"): _RECONSTRUCT for module in _MULTIARRAY},
}


class _ArraysOnly(pickle.Unpickler):
    """Builds arrays and plain values; a pickle may ask for any function, and a data set has no
    business with others.
    """

    @override
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]
