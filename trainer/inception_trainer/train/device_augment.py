"""Colour jitter, and erasing after it, on the device instead of in the loader workers.

Nobody asks for it: what a device computes along the way, a loader worker needs a core for. It is
done where the images come from loader workers, and where the device computes what the host does,
which is tried before.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from inception_trainer.config.data import IMAGE_FILES
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Batch, Dataset
from inception_trainer.data.augment import Augment, finish
from inception_trainer.log import logger

from .prefetch import on_device

TRIAL_SIDE = 24
"""Of the images that are tried, in pixels."""
TRIAL_IMAGES = 4


def defer_to_device(dataset: Dataset, config: TrainingConfig, device: torch.device) -> None:
    """Have the loader of the training split leave to ``device`` what that can do; says so.

    Called before the loader workers start, which know what the dataset knew then.
    """
    augment = dataset.augment
    if augment is None or not augment.jitters or config.data.kind not in IMAGE_FILES:
        return
    if device.type == "cpu":
        # It has no time to spare: the workers do it beside the training.
        return
    if augment.changes_pictures:
        logger.info(
            "colour jitter is done by the loader workers: RandAugment, TrivialAugment or "
            "AutoAugment come after it, which the device does not do"
        )
        return
    deferring = dataclasses.replace(augment, defers=True)
    problem = _problem(augment, deferring, device)
    if problem is not None:
        logger.info("colour jitter is done by the loader workers, as %s %s", device, problem)
        return
    dataset.augment = deferring
    what = "colour jitter and random erasing are" if augment.erasing else "colour jitter is"
    logger.info("%s done on the device, not by the loader workers", what)


def _problem(augment: Augment, deferring: Augment, device: torch.device) -> str | None:
    """What is wrong with the device's images of a small batch; None where nothing is."""
    side = TRIAL_SIDE
    count = 3 * TRIAL_IMAGES * side * side
    # Every byte, in an order in which neighbours differ.
    images = (torch.arange(count) * 37 % 256).to(torch.uint8).view(TRIAL_IMAGES, 3, side, side)
    # As if all were to be erased, whatever the share is.
    augment, deferring = (
        dataclasses.replace(each, erasing=1.0 if each.erasing else 0.0)
        for each in (augment, deferring)
    )
    indices = np.arange(TRIAL_IMAGES, dtype=np.int64)
    pending = deferring.pending(images, indices, 0, torch.ones(TRIAL_IMAGES, dtype=torch.bool))
    try:
        batch = on_device(Batch(images, torch.zeros(0), pending), device)
        found = finish(batch.images, batch.pending).cpu()
    except Exception as error:
        # Vendors raise what they like.
        return f"cannot: {type(error).__name__}: {error}".partition("\n")[0]
    difference = (found.int() - augment(images, indices, 0).int()).abs().max().item()
    return None if difference <= 1 else f"makes images that differ by {difference:.0f} of 255"
