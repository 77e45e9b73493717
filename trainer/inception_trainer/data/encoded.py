"""Encoded images (JPEG, PNG, ...) as a dataset, wherever their bytes lie.

Loader workers read, decode, crop and augment one image at a time. What is drawn for a training
image is a pure function of (seed, epoch, index), so it does not matter which worker does it.
:class:`.base.Samples` is what a kind of data must bring: files in :mod:`.files`, members of tar
files in :mod:`.shards`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError
from inception_trainer.log import logger
from inception_trainer.storage import patiently

from .augment import Augment
from .base import UNREADABLE, Batch, Dataset, Samples, Splits
from .counter_rng import Indices, uniforms
from .decode import BROKEN, Decoder, best_decoder
from .workers import Key, Workers

UNREADABLE_SHARE = 0.01
UNREADABLE_COUNT = 10
"""Without ``data.maxCorrupt``, this share of a split's images may be unreadable, or this number if
that is more.
"""
GREY = 128
"""What an unreadable image is filled with."""


class EncodedImages(Dataset):
    """One split of encoded images, decoded by ``data.workers`` loader workers."""

    def __init__(self, samples: Samples, config: DataConfig, seed: int, decoder: Decoder) -> None:
        self._samples = samples
        self._seed = seed
        self._decoder = decoder
        self._side = config.image_size
        self._worker_count = config.workers or 0
        allowed = max(UNREADABLE_COUNT, int(UNREADABLE_SHARE * len(samples)))
        self._most_unreadable = allowed if config.max_corrupt is None else config.max_corrupt
        self._unreadable: set[str] = set()
        self.augment: Augment | None = None
        self._kept_workers: Workers | None = None
        """Those of the epoch before, which wait for the next one."""

    @override
    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """What messages call a sample: its path, or its place in a shard."""
        return self._samples.name(index)

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._samples.classes

    @property
    def most_unreadable(self) -> int:
        """How many images may be unreadable before the job ends."""
        return self._most_unreadable

    def encoded(self, index: int) -> bytes:
        """One image as it is stored."""
        return patiently(lambda: self._samples.read(index), self._samples.name(index))

    def decode(self, data: bytes) -> Tensor:
        """One image as evaluation sees it, uint8 ``[3, side, side]``; raises BROKEN."""
        return self._decoder(data, self._side, None)

    def sample(self, index: int, epoch: int | None) -> tuple[Tensor, int]:
        """One uint8 image ``[3, side, side]`` and its label; runs in a loader worker.

        A broken file gives a grey image with the label UNREADABLE: only the rank, which sees what
        all its workers find, can tell when there are too many.
        """
        draws = None
        if epoch is not None:
            draws = uniforms(np.array([index]), self._seed, epoch, 5)[0].tolist()
        # What storage does not give is no fault of the image: only what was read can be broken.
        data = self.encoded(index)
        try:
            image = self._decoder(data, self._side, draws)
        except BROKEN:
            return torch.full((3, self._side, self._side), GREY, dtype=torch.uint8), UNREADABLE
        if epoch is not None and self.augment is not None:
            image = self.augment(image[None], np.array([index]), epoch)[0]
        return image, self._samples.label(index)

    @override
    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Decode in this process."""
        samples = [self.sample(int(index), epoch) for index in indices]
        return self._checked(self._collate(samples), indices)

    @override
    @contextmanager
    def stream(self, batches: list[Indices], epoch: int | None) -> Iterator[Iterator[Batch]]:
        """Decode in ``data.workers`` processes, a few batches ahead."""
        if not self._worker_count or not batches:
            yield (self.batch(indices, epoch) for indices in batches)
            return
        keys: list[list[Key]] = [[(int(index), epoch) for index in batch] for batch in batches]
        workers = self._kept_workers or Workers(self.sample, self._collate, self._worker_count)
        # Not kept unless this epoch ends well: workers with batches in flight serve no other.
        self._kept_workers = None
        try:
            loaded = workers.batches(keys)
            pairs = zip(loaded, batches, strict=True)
            yield (self._checked(batch, indices) for batch, indices in pairs)
            # An evaluation's workers would sit idle for an epoch, so only training keeps them.
            if epoch is not None and next(loaded, None) is None:
                self._kept_workers = workers
        finally:
            if self._kept_workers is None:
                workers.close()

    @override
    def close(self) -> None:
        workers = self._kept_workers
        self._kept_workers = None
        if workers is not None:
            workers.close()

    def _collate(self, samples: list[tuple[Tensor, int]]) -> Batch:
        """Samples ``[3, side, side]`` to a batch ``[n, 3, side, side]``."""
        labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        if not samples:
            return Batch(torch.zeros(0, 3, self._side, self._side, dtype=torch.uint8), labels)
        return Batch(torch.stack([image for image, _ in samples]), labels)

    def _checked(self, batch: Batch, indices: Indices) -> Batch:
        """The batch, once its unreadable images are named and counted.

        Raises DataError when they are more than ``data.maxCorrupt``.
        """
        for position in (batch.labels == UNREADABLE).nonzero().flatten().tolist():
            path = self._samples.name(int(indices[position]))
            if path not in self._unreadable:
                self._unreadable.add(path)
                logger.warning("%s cannot be read and is skipped", path)
        if len(self._unreadable) > self._most_unreadable:
            some = ", ".join(sorted(self._unreadable)[:3])
            raise DataError(
                f"more than {self._most_unreadable} images cannot be read (data.maxCorrupt), "
                f"among them {some}"
            )
        return batch


def both_splits(
    train: Samples,
    val: Samples,
    names: tuple[str, ...],
    config: DataConfig,
    seed: int,
    ignored: tuple[str, ...] = (),
) -> Splits:
    """Training and validation images of the classes ``names``; ``data.numClasses`` may ask for more
    classes. ``ignored`` says what was left out.
    """
    decoder = best_decoder(config.evaluation_crop_ratio, config.interpolation)
    return Splits(
        EncodedImages(train, config, seed, decoder),
        EncodedImages(val, config, seed, decoder),
        max(len(names), config.num_classes or 0),
        names,
        ignored=ignored,
    )
