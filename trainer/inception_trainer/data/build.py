"""From ``data.kind`` to the two splits."""

from __future__ import annotations

import dataclasses

from inception_trainer.config.training import CIFAR, TrainingConfig
from inception_trainer.errors import ConfigError

from .augment import Augment
from .base import Splits
from .part import Part

EVALUATING = ("Train", "Evaluate")
"""Modes whose validation split ``evaluation.maxSamples`` makes smaller."""


def open_splits(config: TrainingConfig) -> Splits:
    """Open what ``data`` names; raises InputMissing, DataError, or ConfigError for too few classes."""
    splits = _open(config)
    splits.train.augment = Augment.of(config.augmentation, config.seed)
    most = config.evaluation.max_samples
    if most is not None and most < len(splits.val) and config.mode in EVALUATING:
        splits = dataclasses.replace(splits, val=Part(splits.val, most))
    wanted = config.data.num_classes
    if wanted is not None and wanted < splits.num_classes:
        raise ConfigError(
            f"data.numClasses: {wanted} is less than the {splits.num_classes} classes in the data"
        )
    return splits


def _open(config: TrainingConfig) -> Splits:
    if config.data.kind == "Digits":
        from .digits import open_digits

        return open_digits(config.data, config.seed)
    if config.data.kind == "Synthetic":
        from .synthetic import open_synthetic

        return open_synthetic(config.data, config.seed)
    if config.data.kind in CIFAR:
        from .cifar import open_cifar

        return open_cifar(config.data, config.seed)
    if config.data.kind == "ImageList":
        from .imagelist import open_image_list

        return open_image_list(config.data, config.seed)
    if config.data.kind == "WebDataset":
        from .shards import open_shards

        return open_shards(config.data, config.seed)
    from .imagefolder import open_image_folder

    return open_image_folder(config.data, config.seed)
