"""CIFAR-10 as it is published, in the python or the binary layout; nothing is downloaded.

``data.path`` is the folder with the batches, or the one above it. Training images are shifted by up to 4 pixels,
flipped at random and turned by up to 15 degrees, each a function of (seed, epoch, index).
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config import DataConfig
from inception_trainer.data.base import Batch, Indices, Splits
from inception_trainer.data.layout import found_tree
from inception_trainer.data.memory import InMemory
from inception_trainer.data.order import uniforms
from inception_trainer.data.scaling import scaled
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.normalization import CIFAR10
from inception_trainer.stores import AnyPath, place

SIDE, PIXELS = 32, 3 * 32 * 32
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
REACH, DEGREES = 4, 15.0
PYTHON_FOLDERS = ("", "cifar-10-batches-py")
BINARY_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-verify-bin")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
EXPECTED = "data_batch_1 to data_batch_5 and test_batch (python), or the same names with .bin (binary)"
Table = tuple[NDArray[np.uint8], Indices]


class Cifar10(InMemory):
    """One split: ``images`` uint8 ``[n, 3, 32, 32]``, scaled to ``data.imageSize`` when they are read."""

    def __init__(self, table: Table, config: DataConfig, seed: int) -> None:
        images, labels = table
        super().__init__(len(labels), seed, shifts=False)
        self._images, self._labels = torch.from_numpy(images), torch.from_numpy(labels)
        self._side, self._interpolation = config.image_size, config.interpolation

    def _read(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices)
        return Batch(self._images[index], self._labels[index])

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Index, augment when an epoch is given, scale."""
        images, labels = super().batch(indices, epoch)
        if epoch is not None and len(indices):
            images = augmented(images, uniforms(indices, self._seed, epoch, 4))
        return Batch(images if self._side == SIDE else scaled(images, self._side, self._interpolation), labels)


def augmented(images: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Shift, flip and turn each image by its row of four uniform numbers; what comes from outside is black."""
    drawn = torch.from_numpy(draws)[:, :, None, None]
    offsets = (drawn[:, :2] * (2 * REACH + 1)).floor() - REACH
    flips = torch.where(drawn[:, 2] < 0.5, -1.0, 1.0)
    angles = torch.deg2rad((2 * drawn[:, 3] - 1) * DEGREES)
    centre = (SIDE - 1) / 2
    y, x = torch.meshgrid(*(torch.arange(SIDE, dtype=torch.float64) - centre,) * 2, indexing="ij")
    # Where each pixel comes from, computed element by element: the rest of the batch has no influence.
    rows = (x * angles.sin() + y * angles.cos() + offsets[:, 0] + centre).round().long()
    columns = ((x * angles.cos() - y * angles.sin()) * flips + offsets[:, 1] + centre).round().long()
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    sample = torch.arange(len(images))[:, None, None]
    moved = images[sample, :, rows.clamp(0, SIDE - 1), columns.clamp(0, SIDE - 1)]
    return (moved * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def open_cifar10(config: DataConfig, seed: int) -> Splits:
    """Both splits; raises InputMissing with what was found, DataError for files that are none of CIFAR-10's."""
    root = place(config.path or "")
    files, read = _files(root)
    parts = [read(path) for path in files[:-1]]
    train = np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
    test = read(files[-1])
    return Splits(Cifar10(train, config, seed), Cifar10(test, config, seed), len(NAMES), NAMES, CIFAR10)


def _files(root: AnyPath) -> tuple[list[AnyPath], Callable[[AnyPath], Table]]:
    for folders, suffix, read in ((PYTHON_FOLDERS, "", _python), (BINARY_FOLDERS, ".bin", _binary)):
        found = [_first(root, folders, f"{name}{suffix}") for name in (*TRAIN, TEST)]
        whole = [path for path in found if path is not None]
        if len(whole) == len(found):
            return whole, read
        if whole:
            missing = [f"{name}{suffix}" for name, path in zip((*TRAIN, TEST), found, strict=True) if path is None]
            raise InputMissing(f"data.path: {root} lacks {', '.join(missing)}; found {found_tree(root)}")
    raise InputMissing(f"data.path: no CIFAR-10 in {root}; expected {EXPECTED}; found {found_tree(root)}")


def _first(root: AnyPath, folders: tuple[str, ...], name: str) -> AnyPath | None:
    return next((root / folder / name for folder in folders if (root / folder / name).is_file()), None)


def _binary(path: AnyPath) -> Table:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(data) or len(data) % (PIXELS + 1):
        raise DataError(
            f"data.path: {path} has {len(data)} bytes, no multiple of {PIXELS + 1}: it is cut or no CIFAR-10"
        )
    records = data.reshape(-1, PIXELS + 1)
    return _table(records[:, 1:], records[:, 0], path)


def _python(path: AnyPath) -> Table:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        return _table(np.asarray(content[b"data"]), np.asarray(content[b"labels"]), path)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"data.path: {path} is no batch of CIFAR-10: {type(error).__name__}: {error}") from None


def _table(pixels: NDArray[Any], labels: NDArray[Any], path: AnyPath) -> Table:
    right = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape == (len(labels), PIXELS)
    if not right or not len(labels) or labels.min() < 0 or labels.max() >= len(NAMES):
        raise DataError(f"data.path: {path} holds {pixels.shape} {pixels.dtype} with {len(labels)} labels, no CIFAR-10")
    return pixels.reshape(-1, 3, SIDE, SIDE).copy(), labels.astype(np.int64)


_MULTIARRAY, _RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray"), np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
    **{(module, "_reconstruct"): _RECONSTRUCT for module in _MULTIARRAY},
}


class _ArraysOnly(pickle.Unpickler):
    """Builds arrays and plain values; a pickle may ask for any function, and a data set has no business with others."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse all but what numpy needs."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]
