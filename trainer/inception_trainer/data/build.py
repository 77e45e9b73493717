"""Opens the two splits that ``data`` names: from ``data.kind`` to datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from inception_trainer.config.training import CIFAR, TrainingConfig
from inception_trainer.errors import ConfigError
from inception_trainer.storage import read_data
from inception_trainer.stores import check_answers

from .augment import Augment
from .base import Batch, Dataset, Splits
from .counter_rng import Indices
from .found import log_found

EVALUATING = ("Train", "Evaluate")
"""Modes whose validation split ``evaluation.maxSamples`` makes smaller."""


def open_splits(config: TrainingConfig) -> Splits:
    """Open what ``data`` names.

    Raises InputMissing and DataError for its files, ConfigError for too few classes.
    """
    splits = _open(config)
    splits.train.augment = Augment.of(config.augmentation, config.seed)
    most = config.evaluation.max_samples
    if most is not None and most < len(splits.val) and config.mode in EVALUATING:
        splits = dataclasses.replace(splits, val=EvenSubset(splits.val, most))
    num_classes = config.data.num_classes
    if num_classes is not None and num_classes < splits.num_classes:
        raise ConfigError(
            f"data.numClasses: {num_classes} is less than the {splits.num_classes} classes "
            "in the data"
        )
    log_found(splits)
    return splits


def _open(config: TrainingConfig) -> Splits:
    path = config.data.path or ""
    # All of it again, lists and indices included: opening leaves nothing behind.
    return read_data(lambda: _open_kind(config), f"data.path: {path}")


def _open_kind(config: TrainingConfig) -> Splits:
    if config.data.path is not None:
        check_answers(config.data.path)
    # Imported where they are used: each kind needs other packages, and a job uses one kind.
    if config.data.kind == "Digits":
        from .digits import open_digits

        return open_digits(config.data, config.seed)
    if config.data.kind == "Synthetic":
        from .synthetic import open_synthetic

        return open_synthetic(config.data, config.seed)
    if config.data.kind in CIFAR:
        from .cifar import open_cifar

        return open_cifar(config.data, config.seed, config.augmentation.rotation)
    if config.data.kind == "ImageList":
        from .imagelist import open_image_list

        return open_image_list(config.data, config.seed)
    if config.data.kind == "WebDataset":
        from .shards import open_shards

        return open_shards(config.data, config.seed)
    from .imagefolder import open_image_folder

    return open_image_folder(config.data, config.seed)


class EvenSubset(Dataset):
    """``count`` samples of ``whole``, in its order and spread evenly over it.

    Most splits are sorted by class: the first samples would be of few classes.
    """

    def __init__(self, whole: Dataset, count: int) -> None:
        self._whole = whole
        self._chosen: Indices = np.arange(count, dtype=np.int64) * len(whole) // count
        self.augment: Augment | None = None

    @override
    def __len__(self) -> int:
        return len(self._chosen)

    @property
    @override
    def classes(self) -> NDArray[np.integer[Any]] | None:
        whole = self._whole.classes
        return None if whole is None else whole[self._chosen]

    @override
    def name(self, index: int) -> str:
        return self._whole.name(int(self._chosen[index]))

    @override
    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        return self._whole.batch(self._chosen[indices], epoch)

    @override
    def stream(
        self, batches: list[Indices], epoch: int | None
    ) -> AbstractContextManager[Iterator[Batch]]:
        return self._whole.stream([self._chosen[indices] for indices in batches], epoch)

    @override
    def close(self) -> None:
        self._whole.close()
