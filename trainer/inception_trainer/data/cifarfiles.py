"""The published files of CIFAR-10 and CIFAR-100, in the python and the binary layout."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception_trainer.config.normalization import CIFAR10, CIFAR100, Normalization
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath

from .base import Indices
from .layout import found_tree

SIDE, PIXELS = 32, 3 * 32 * 32
FINE_NAMES = b"fine_label_names"
Table = tuple[NDArray[np.uint8], Indices]
"""Images ``[n, 3, 32, 32]`` and their labels."""


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
        expected="data_batch_1 to data_batch_5 and test_batch (python), or the same names with .bin (binary)",
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
        found = {name: layout.find(root, name) for name in (*layout.train, layout.test)}
        files = [path for path in found.values() if path is not None]
        if len(files) == len(found):
            *parts, test = (read(path, edition) for path in files)
            train = (
                np.concatenate([images for images, _ in parts]),
                np.concatenate([labels for _, labels in parts]),
            )
            names = layout.find(root, layout.names) if layout.names else None
            return (
                train,
                test,
                _checked(read_names(names), edition, names) if names else edition.names,
            )
        if files:
            missing = ", ".join(name for name, path in found.items() if path is None)
            raise InputMissing(f"data.path: {root} lacks {missing}; found {found_tree(root)}")
    raise InputMissing(
        f"data.path: no {edition.title} in {root}; expected {edition.expected}; found {found_tree(root)}"
    )


def _binary(path: AnyPath, edition: Edition) -> Table:
    data, length = np.frombuffer(path.read_bytes(), np.uint8), edition.label_bytes + PIXELS
    if not len(data) or len(data) % length:
        raise DataError(
            f"data.path: {path} has {len(data)} bytes, no multiple of {length}: it is cut or no {edition.title}"
        )
    records = data.reshape(-1, length)
    return _table(
        records[:, edition.label_bytes :], records[:, edition.label_bytes - 1], path, edition
    )


def _python(path: AnyPath, edition: Edition) -> Table:
    with _explained(path, f"batch of {edition.title}"):
        content = _unpickled(path)
        return _table(
            np.asarray(content[b"data"]), np.asarray(content[edition.label_key]), path, edition
        )


def _table(pixels: NDArray[Any], labels: NDArray[Any], path: AnyPath, edition: Edition) -> Table:
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or not len(labels):
        raise DataError(
            f"data.path: {path} holds {pixels.shape} {pixels.dtype} with {len(labels)} labels, no {edition.title}"
        )
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or labels.min() < 0
        or labels.max() >= len(edition.names)
    ):
        raise DataError(
            f"data.path: {path} has labels from {labels.min()} to {labels.max()}, {edition.title} has whole numbers "
            f"from 0 to {len(edition.names) - 1}"
        )
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
            f"data.path: {path} names {len(names)} classes, {edition.title} has {len(edition.names)}; "
            "put the published file in its place, or remove it"
        )
    return tuple(names)


@contextmanager
def _explained(path: AnyPath, wanted: str) -> Iterator[None]:
    """Raise DataError for whatever a file with other contents leads to."""
    try:
        yield
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
    ) as error:
        raise DataError(
            f"data.path: {path} is no {wanted}: {type(error).__name__}: {error}"
        ) from None


def _unpickled(path: AnyPath) -> Any:
    with path.open("rb") as file:
        return _ArraysOnly(file, encoding="bytes").load()


_MULTIARRAY, _RECONSTRUCT = (
    ("numpy.core.multiarray", "numpy._core.multiarray"),
    np.empty(0).__reduce__()[0],
)
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

    def find_class(self, module: str, name: str) -> Any:
        """Refuse all but what numpy needs."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]
