"""Reads the published files of CIFAR-10 and CIFAR-100, in the python and the binary layout.

The python layout is pickled. Its reader builds arrays and plain values only, so that a data set
cannot run code here.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.normalization import CIFAR10, CIFAR100, Normalization
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath

from .folder_listing import describe_folder

SIDE = 32
PIXELS = 3 * SIDE * SIDE
"""Bytes of one image."""
FINE_NAMES = b"fine_label_names"
BROKEN = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a file with other contents raises."""
Table = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]``."""


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
    python: Layout
    binary: Layout
    label_key: bytes
    """In the python layout."""
    label_bytes: int
    """Before the pixels in the binary layout; the last of them is the label."""


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
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
        python=Layout(("", "cifar-10-batches-py"), _BATCHES, "test_batch"),
        binary=Layout(
            ("", "cifar-10-batches-bin", "cifar-10-verify-bin"),
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
        python=Layout(("", "cifar-100-python"), ("train",), "test", "meta"),
        binary=Layout(("", "cifar-100-binary"), ("train.bin",), "test.bin", "fine_label_names.txt"),
        label_key=b"fine_labels",
        label_bytes=2,
    ),
}
"""By ``data.kind``."""


def read_edition(root: AnyPath, edition: Edition) -> tuple[Table, Table, tuple[str, ...]]:
    """Training and test images and the classes' names; InputMissing or DataError for files that are
    not as published.

    The python layout is preferred where both are there.
    """
    for layout, read, read_names in (
        (edition.python, _python, _python_names),
        (edition.binary, _binary, _binary_names),
    ):
        paths = {name: layout.find(root, name) for name in (*layout.train, layout.test)}
        missing = [name for name, path in paths.items() if path is None]
        files = [path for path in paths.values() if path is not None]
        if files and missing:
            # Some but not all: an unpacking that was cut short, and no reason to try the other.
            raise InputMissing(
                f"data.path: {root} lacks {', '.join(missing)}; found {describe_folder(root)}"
            )
        if files:
            tables = [read(path, edition) for path in files]
            names = edition.names
            listing = layout.find(root, layout.names) if layout.names else None
            if listing is not None:
                names = _checked(read_names(listing), edition, listing)
            return _joined(tables[:-1]), tables[-1], names
    raise InputMissing(
        f"data.path: no {edition.title} in {root}; expected {edition.expected}; "
        f"found {describe_folder(root)}"
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
    with _explained(path, "list of names"):
        lines = path.read_bytes().decode().splitlines()
    return [line.strip() for line in lines if line.strip()]


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
