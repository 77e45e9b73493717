"""Encoded images (JPEG, PNG, ...) as a dataset, wherever their bytes lie.

Loader workers read, decode, crop and augment whole batches. What is drawn for a training image is
a pure function of (seed, epoch, index), so it does not matter which worker does it.
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
from .cache import areas, cached
from .counter_rng import Indices, uniforms
from .decode import BROKEN, Decoder, best_decoder
from .workers import BatchKey, Workers

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
        """Those of the epoch or evaluation before, which wait for the next one."""

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

    def read_batch(self, indices: Indices, epoch: int | None) -> Batch:
        """The samples in this order; runs in a loader worker.

        A broken file gives a grey image with the label UNREADABLE: only the rank, which sees what
        all its workers find, can tell when there are too many.
        """
        # For all samples in one call: drawing for each alone takes as long as a small image.
        draws = None if epoch is None else uniforms(indices, self._seed, epoch, 5).tolist()
        images = torch.empty((len(indices), 3, self._side, self._side), dtype=torch.uint8)
        labels = torch.empty(len(indices), dtype=torch.int64)
        for at, index in enumerate(indices.tolist()):
            image = self._decoded(index, draws and draws[at])
            images[at] = GREY if image is None else image
            labels[at] = UNREADABLE if image is None else self._samples.label(index)
        if epoch is not None and self.augment is not None:
            images = self._augmented(Batch(images, labels), indices, epoch, self.augment)
        return Batch(images, labels)

    def _decoded(self, index: int, draws: list[float] | None) -> Tensor | None:
        """One image ``[3, side, side]``, None where its file is broken."""
        # What storage does not give is no fault of the image: only what was read can be broken.
        data = self.encoded(index)
        try:
            return self._decoder(data, self._side, draws)
        except BROKEN:
            return None

    @staticmethod
    def _augmented(batch: Batch, indices: Indices, epoch: int, augment: Augment) -> Tensor:
        """The images, those that could be read augmented."""
        readable = batch.labels != UNREADABLE
        if bool(readable.all()):
            return augment(batch.images, indices, epoch) if len(indices) else batch.images
        images = batch.images.clone()
        chosen = readable.numpy()
        if chosen.any():
            images[readable] = augment(batch.images[readable], indices[chosen], epoch)
        return images

    @override
    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """Decode in this process."""
        return self._checked(self.read_batch(indices, epoch), indices)

    @override
    @contextmanager
    def stream(self, batches: list[Indices], epoch: int | None) -> Iterator[Iterator[Batch]]:
        """Decode in ``data.workers`` processes, a few batches ahead."""
        if not self._worker_count or not batches:
            yield (self.batch(indices, epoch) for indices in batches)
            return
        keys = [BatchKey(indices, epoch) for indices in batches]
        workers = self._kept_workers or Workers(self.read_batch, self._worker_count)
        # Not kept unless this one ends well: workers with batches in flight serve no other.
        self._kept_workers = None
        try:
            loaded = workers.batches(keys)
            pairs = zip(loaded, batches, strict=True)
            yield (self._checked(batch, indices) for batch, indices in pairs)
            if next(loaded, None) is None:
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
    room = areas(config.cache)
    return Splits(
        EncodedImages(cached(train, room), config, seed, decoder),
        EncodedImages(cached(val, room), config, seed, decoder),
        max(len(names), config.num_classes or 0),
        names,
        ignored=ignored,
    )
