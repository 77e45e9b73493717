"""Encoded images (JPEG, PNG, ...) as a dataset, wherever their bytes lie.

Loader workers read, decode, crop and augment whole batches. What is drawn for a training image is
a pure function of (seed, epoch, index), so it does not matter which worker does it.
:class:`.base.Samples` is what a kind of data must bring: files in :mod:`.files`, members of tar
files in :mod:`.shards`.
"""

from __future__ import annotations

import errno
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
from inception_trainer.storage import describe, read_data

from .augment import Augment
from .base import UNREADABLE, Batch, Dataset, Samples, Splits, UnreadableImage
from .cache import cached, room
from .counter_rng import Indices, SampleUniforms
from .decode import ImageDecoder, say_decoder
from .workers import BatchKey, Workers

UNREADABLE_SHARE = 0.01
UNREADABLE_COUNT = 10
"""Without ``data.maxCorrupt``, this share of a split's images may be unreadable, or this number if
that is more.
"""
GREY = 128
"""What an unreadable image is filled with."""
NO_FILE = frozenset((errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO))
"""Errors of what is there and cannot be read as a file, now or later."""


class EncodedImages(Dataset):
    """One split of encoded images, decoded by ``data.workers`` loader workers."""

    def __init__(self, samples: Samples, config: DataConfig, seed: int) -> None:
        self._samples = samples
        self._seed = seed
        self._decoder = ImageDecoder(config)
        self._side = config.image_size
        self._worker_count = config.workers or 0
        allowed = max(UNREADABLE_COUNT, int(UNREADABLE_SHARE * len(samples)))
        self._most_unreadable = allowed if config.max_corrupt is None else config.max_corrupt
        self._unreadable: dict[str, str] = {}
        """By name, with the reason."""
        self.augment: Augment | None = None
        self._kept_workers: Workers | None = None
        """Those of the epoch or evaluation before, which wait for the next one."""

    @override
    def __len__(self) -> int:
        return len(self._samples)

    @override
    def name(self, index: int) -> str:
        """What messages call a sample: its path, or its place in a shard."""
        return self._samples.name(index)

    @property
    @override
    def classes(self) -> NDArray[np.int32]:
        return self._samples.classes

    @property
    def source(self) -> Samples:
        """Where the images lie."""
        return self._samples

    @property
    def most_unreadable(self) -> int:
        """How many images may be unreadable before the job ends."""
        return self._most_unreadable

    def encoded(self, index: int) -> bytes:
        """One image as it is stored; raises UnreadableImage for what is no file."""
        # What storage does not give for a while is no fault of the image.
        try:
            return read_data(lambda: self._samples.read(index), self._samples.name(index))
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise UnreadableImage(describe(error)) from error

    def decode(self, data: bytes) -> Tensor:
        """One image as evaluation sees it, uint8 ``[3, side, side]``; raises UnreadableImage."""
        return self._decoder(data, None)

    def header(self, data: bytes) -> tuple[int, int, str]:
        """Width, height and format of an image as it is stored; raises UnreadableImage."""
        return self._decoder.header(data)

    def read_batch(self, indices: Indices, epoch: int | None) -> Batch:
        """The samples in this order; runs in a loader worker.

        A broken file gives a grey image with the label UNREADABLE: only the rank, which sees what
        all its workers find, can tell when there are too many.
        """
        images = torch.empty((len(indices), 3, self._side, self._side), dtype=torch.uint8)
        labels = torch.empty(len(indices), dtype=torch.int64)
        for at, index in enumerate(indices.tolist()):
            draw = None if epoch is None else SampleUniforms(index, self._seed, epoch)
            try:
                images[at] = self._decoder(self.encoded(index), draw)
                labels[at] = self._samples.label(index)
            except UnreadableImage:
                images[at], labels[at] = GREY, UNREADABLE
        batch = Batch(images, labels)
        if epoch is not None and self.augment is not None and len(indices):
            return self._augmented(batch, indices, epoch, self.augment)
        return batch

    @staticmethod
    def _augmented(batch: Batch, indices: Indices, epoch: int, augment: Augment) -> Batch:
        """The batch, those images augmented that could be read."""
        images, readable = batch.images, batch.labels != UNREADABLE
        if augment.defers:
            return batch._replace(pending=augment.pending(images, indices, epoch, readable))
        if bool(readable.all()):
            return batch._replace(images=augment(images, indices, epoch))
        images = images.clone()
        chosen = readable.numpy()
        if chosen.any():
            images[readable] = augment(batch.images[readable], indices[chosen], epoch)
        return batch._replace(images=images)

    def _reason(self, index: int) -> str:
        """Why an image cannot be read: workers hand over pixels only, so it is read once more."""
        try:
            self.decode(self.encoded(index))
        except UnreadableImage as error:
            return str(error)
        return "it could not be a moment ago"

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
            index = int(indices[position])
            path = self._samples.name(index)
            if path not in self._unreadable:
                self._unreadable[path] = self._reason(index)
                logger.warning("%s cannot be read and is skipped: %s", path, self._unreadable[path])
        if len(self._unreadable) > self._most_unreadable:
            some = "; ".join(f"{path}: {why}" for path, why in sorted(self._unreadable.items())[:3])
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
    cache = room(config.cache)
    splits = Splits(
        EncodedImages(cached(train, cache, config.cache.fill), config, seed),
        EncodedImages(cached(val, cache, config.cache.fill), config, seed),
        max(len(names), config.num_classes or 0),
        names,
        ignored=ignored,
    )
    say_decoder()
    return splits
