"""ImageNet-style folders: ``train/<class>/*`` and ``val/<class>/*`` (or ``validation_preprocess/``, or ``val.txt``).

The class index is the position in the sorted folder names of ``train/``. Loader processes decode and crop; the
crop of a training image is a pure function of (seed, epoch, index).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inception_trainer.config import DataConfig
from inception_trainer.data.augment import Augment
from inception_trainer.data.base import UNREADABLE, Batch, Indices, Splits
from inception_trainer.data.decode import BROKEN, Decoder, best_decoder
from inception_trainer.data.layout import found_tree
from inception_trainer.data.order import uniforms
from inception_trainer.data.workers import Key, Workers
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.log import logger

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
VALIDATION_FOLDERS = ("val", "validation_preprocess")
MOST_UNREADABLE, LEAST_UNREADABLE = 0.01, 10
"""Without ``data.maxCorrupt``: the share of unreadable images of a split, or their number, that is skipped."""

EXPECTED = "train/<class>/<image> and val/<class>/<image>"
Sample = tuple[str, int]


class ImageFolder:
    """One split as a list of (file, class index)."""

    def __init__(self, samples: list[Sample], config: DataConfig, seed: int, decoder: Decoder) -> None:
        self._samples, self._seed, self._decoder = samples, seed, decoder
        self._side, self._workers = config.image_size, config.workers or 0
        least = max(LEAST_UNREADABLE, int(MOST_UNREADABLE * len(samples)))
        self._most_unreadable = least if config.max_corrupt is None else config.max_corrupt
        self._unreadable: set[str] = set()
        self.augment: Augment | None = None
        self._kept: Workers | None = None
        """Those of the epoch before."""

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """The file of a sample."""
        return self._samples[index][0]

    def sample(self, index: int, epoch: int | None) -> tuple[Tensor, int]:
        """One uint8 image ``[3, side, side]`` and its label, UNREADABLE for a broken file."""
        path, label = self._samples[index]
        draws = None
        if epoch is not None:
            draws = uniforms(np.array([index]), self._seed, epoch, 5)[0].tolist()
        try:
            image = self._decoder(path, self._side, draws)
        except FileNotFoundError:
            raise InputMissing(f"data.path: {path} was there at the start and is gone") from None
        except BROKEN:
            return torch.full((3, self._side, self._side), 128, dtype=torch.uint8), UNREADABLE
        if epoch is not None and self.augment is not None:
            image = self.augment(image[None], np.array([index]), epoch)[0]
        return image, label

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Decode in this process."""
        return self._checked(_collate([self.sample(int(i), epoch) for i in indices], self._side), indices)

    @contextmanager
    def stream(self, batches: list[Indices], epoch: int | None) -> Iterator[Iterator[Batch]]:
        """Decode in ``data.workers`` processes, a few batches ahead."""
        if not self._workers or not batches:
            yield (self.batch(indices, epoch) for indices in batches)
            return
        keys: list[list[Key]] = [[(int(i), epoch) for i in indices] for indices in batches]
        workers, self._kept = self._kept or Workers(self.sample, self._join, self._workers), None
        try:
            loaded = workers.batches(keys)
            yield (self._checked(batch, indices) for batch, indices in zip(loaded, batches, strict=True))
            if epoch is not None and next(loaded, None) is None:
                # The next epoch is as large: its workers need not start again.
                self._kept = workers
        finally:
            if self._kept is None:
                workers.close()

    def close(self) -> None:
        """End the loader processes."""
        workers, self._kept = self._kept, None
        if workers is not None:
            workers.close()

    def _join(self, samples: list[tuple[Tensor, int]]) -> Batch:
        return _collate(samples, self._side)

    def _checked(self, batch: Batch, indices: Indices) -> Batch:
        for position in (batch.labels == UNREADABLE).nonzero().flatten().tolist():
            path = self._samples[int(indices[position])][0]
            if path not in self._unreadable:
                self._unreadable.add(path)
                logger.warning("%s cannot be read and is skipped", path)
        if len(self._unreadable) > self._most_unreadable:
            some = ", ".join(sorted(self._unreadable)[:3])
            raise DataError(
                f"more than {self._most_unreadable} images cannot be read (data.maxCorrupt), among them {some}"
            )
        return batch


def _collate(samples: list[tuple[Tensor, int]], side: int) -> Batch:
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    images = [image for image, _ in samples]
    return Batch(torch.stack(images) if images else torch.zeros(0, 3, side, side, dtype=torch.uint8), labels)


def open_image_folder(config: DataConfig, seed: int) -> Splits:
    """Both splits below ``data.path``; raises InputMissing with what was expected and what was found."""
    root = Path(config.path or "")
    if not root.is_dir():
        raise InputMissing(f"data.path: no folder {root}; expected {EXPECTED}")
    classes = _classes(_folder(root, ("train",)))
    train = _scan(root / "train", classes)
    val = _validation(root, classes)
    decoder = best_decoder(config.evaluation_crop_ratio)
    return Splits(
        ImageFolder(train, config, seed, decoder),
        ImageFolder(val, config, seed, decoder),
        max(len(classes), config.num_classes or 0),
        tuple(classes),
    )


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputMissing(
        f"data.path: {root} holds no folder {' or '.join(names)}; expected {EXPECTED}; found: {found_tree(root)}"
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _classes(folder: Path) -> list[str]:
    classes = [entry.name for entry in _entries(folder) if entry.is_dir()]
    if not classes:
        raise InputMissing(
            f"data.path: {folder} holds no class folders; expected {EXPECTED}; found: {found_tree(folder.parent)}"
        )
    return classes


def _scan(folder: Path, classes: list[str]) -> list[Sample]:
    numbers = {name: number for number, name in enumerate(classes)}
    samples: list[Sample] = []
    for entry in _entries(folder):
        if not entry.is_dir():
            continue
        if entry.name not in numbers:
            raise DataError(f"data.path: {entry.path} is a class that train/ does not have")
        names = sorted(name for name in os.listdir(entry.path) if name.lower().endswith(SUFFIXES))  # noqa: PTH208
        samples += [(f"{entry.path}/{name}", numbers[entry.name]) for name in names]
    if not samples:
        raise InputMissing(f"data.path: no images below {folder}; expected {folder}/<class>/*{'|*'.join(SUFFIXES)}")
    return samples


def _validation(root: Path, classes: list[str]) -> list[Sample]:
    folder = _folder(root, VALIDATION_FOLDERS)
    listing = root / "val.txt"
    if any(entry.is_dir() for entry in _entries(folder)) or not listing.is_file():
        return _scan(folder, classes)
    samples: list[Sample] = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdigit() or int(label) >= len(classes):
            raise DataError(f"data.path: {listing} line {number}: {line!r} is not `<file> <class index>`")
        samples.append((str(folder / name.removeprefix(f"{folder.name}/")), int(label)))
    return samples
