"""The data set Digits: 1,797 handwritten digits (8x8, grey, 10 classes) that scikit-learn ships.

The file is read without importing scikit-learn, which would hold up the start of every rank.

Within each class every fifth sample, in the order of the file, is held out for validation.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.normalization import Normalization
from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing

from .base import Batch, Splits
from .counter_rng import Indices
from .decode import scale_images
from .memory import InMemory

SIDE = 8
CLASSES = 10
BRIGHTEST = 16
"""Value of a white pixel in the file."""
NORMALIZATION = Normalization("Digits", (0.31,) * 3, (0.34,) * 3)
"""Of the upsampled training digits, rounded."""


class Digits(InMemory):
    """One split: ``images`` uint8 ``[n, 1, side, side]``."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
        super().__init__(len(labels), seed, shifts=True)
        self._images = images
        self._labels = labels

    @property
    @override
    def classes(self) -> NDArray[np.int64]:
        return self._labels.numpy()

    @override
    def _read(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices)
        return Batch(self._images[index], self._labels[index])


def open_digits(config: DataConfig, seed: int) -> Splits:
    """Both splits at ``imageSize``; raises InputMissing when scikit-learn's file is not there."""
    table = _table(_file(config))
    labels = table[:, -1].astype(np.int64)
    held_out = held_out_fifth(labels)
    # Scaled once, here: at 1,797 images the larger ones fit into memory too.
    pixels = torch.from_numpy(table[:, :-1].reshape(-1, 1, SIDE, SIDE)) * (255.0 / BRIGHTEST)
    images = scale_images(pixels, config.image_size, config.interpolation)
    train, val = (
        Digits(images[torch.from_numpy(chosen)], torch.from_numpy(labels[chosen]), seed)
        for chosen in (~held_out, held_out)
    )
    return Splits(train, val, CLASSES, tuple(map(str, range(CLASSES))), NORMALIZATION)


def held_out_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for every fifth sample of each class, counted from its first."""
    held_out = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[::5]] = True
    return held_out


def _file(config: DataConfig) -> Path:
    if config.path is not None:
        path = Path(config.path)
        if path.is_dir():
            path = path / "digits.csv.gz"
        remedy = "leave data.path out to read the copy inside scikit-learn"
    else:
        spec = importlib.util.find_spec("sklearn")
        roots = list(spec.submodule_search_locations or ()) if spec else []
        if not roots:
            raise InputMissing(
                "data.kind Digits reads the digits inside scikit-learn, which is not installed here"
            )
        path = Path(roots[0], "datasets", "data", "digits.csv.gz")
        remedy = "reinstall scikit-learn"
    if not path.is_file():
        raise InputMissing(f"data.kind Digits: no file {path}; {remedy}")
    return path


def _table(path: Path) -> NDArray[np.float32]:
    """Rows of 64 pixels and the label, float32 ``[1797, 65]``."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        # One flat list of numbers: numpy's own readers of text take the lines one by one.
        values = text.replace("\n", ",").rstrip(",").split(",")
        return np.array(values, np.float32).reshape(-1, SIDE * SIDE + 1)
    # No other OSError: what the storage does not give just now is no fault of the file.
    except (gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"data.kind Digits: {path} is no table of 65 columns: {error}") from None
