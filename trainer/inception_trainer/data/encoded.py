"""Encoded images (JPEG, PNG, ...) as a dataset, wherever their bytes lie.

Loader processes decode and crop; the crop of a training image is a pure function of (seed, epoch,
index).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.log import logger
from inception_trainer.stores import Remote, is_url

from .augment import Augment
from .base import UNREADABLE, Batch, Indices, Splits
from .decode import BROKEN, Decoder, best_decoder
from .order import uniforms
from .workers import Key, Workers

MOST_UNREADABLE, LEAST_UNREADABLE = 0.01, 10
"""Without ``data.maxCorrupt``: the share of unreadable images of a split, or their number, that is
skipped.
"""


class Samples(Protocol):
    """Where encoded images and their labels are; used by several processes after a fork."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages call the image."""
        ...

    def label(self, index: int) -> int:
        """Its class."""
        ...

    def read(self, index: int) -> bytes:
        """Its encoded bytes."""
        ...


class Files:
    """Samples from a list of (file, class index)."""

    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """The path."""
        return self._samples[index][0]

    def label(self, index: int) -> int:
        """The class index of the list."""
        return self._samples[index][1]

    def read(self, index: int) -> bytes:
        """The file; InputMissing when it is gone."""
        path = self._samples[index][0]
        try:
            if is_url(path):
                return Remote(path).read_bytes()
            with open(path, "rb") as file:  # noqa: PTH123 - one call per image
                return file.read()
        except FileNotFoundError:
            raise InputMissing(f"data.path: {path} was there at the start and is gone") from None


class EncodedImages:
    """One split of encoded images."""

    def __init__(self, samples: Samples, config: DataConfig, seed: int, decoder: Decoder) -> None:
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
        """What messages call a sample."""
        return self._samples.name(index)

    def sample(self, index: int, epoch: int | None) -> tuple[Tensor, int]:
        """One uint8 image ``[3, side, side]`` and its label, UNREADABLE for a broken file."""
        draws = None
        if epoch is not None:
            draws = uniforms(np.array([index]), self._seed, epoch, 5)[0].tolist()
        try:
            image = self._decoder(self._samples.read(index), self._side, draws)
        except BROKEN:
            return torch.full((3, self._side, self._side), 128, dtype=torch.uint8), UNREADABLE
        if epoch is not None and self.augment is not None:
            image = self.augment(image[None], np.array([index]), epoch)[0]
        return image, self._samples.label(index)

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Decode in this process."""
        return self._checked(
            _collate([self.sample(int(i), epoch) for i in indices], self._side), indices
        )

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
            yield (
                self._checked(batch, indices)
                for batch, indices in zip(loaded, batches, strict=True)
            )
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
            path = self._samples.name(int(indices[position]))
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
    return Batch(
        torch.stack(images) if images else torch.zeros(0, 3, side, side, dtype=torch.uint8), labels
    )


def both_splits(
    train: Samples, val: Samples, names: tuple[str, ...], config: DataConfig, seed: int
) -> Splits:
    """Training and validation images of the classes ``names``; ``data.numClasses`` may ask for more
    classes.
    """
    decoder = best_decoder(config.evaluation_crop_ratio, config.interpolation)
    first, second = (EncodedImages(samples, config, seed, decoder) for samples in (train, val))
    return Splits(first, second, max(len(names), config.num_classes or 0), names)
