"""Colour jitter and erasing on the stub of a device, in a process of its own: a device type that is
added to torch stays.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import torch

import stub_plugin
from inception_trainer.config.training import from_mapping
from inception_trainer.data import Batch
from inception_trainer.data.augment import Augment, finish
from inception_trainer.train.prefetch import on_device


def compare(library: str, log: str, stub: stub_plugin.Stub, augmentation: dict) -> None:
    """Ends with an error where the device's images are not those of the loader."""
    os.environ |= {"STUB_LIBRARY": library, "STUB_LOG": log, "RANK": "0"}
    stub_plugin.install("torch_stub", stub)
    config = from_mapping({"data": {"kind": "Digits"}, "augmentation": augmentation})
    augment = Augment.of(config.augmentation, 0)
    assert augment is not None
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (24, 3, 32, 32), generator=generator).byte()
    indices = np.arange(24)
    expected = augment(images, indices, 1)
    later = dataclasses.replace(augment, defers=True)
    pending = later.pending(images, indices, 1, torch.ones(24, dtype=torch.bool))
    device = torch.device(stub.type, 0)
    batch = on_device(Batch(images, torch.arange(24), pending), device)
    found = finish(batch.images, batch.pending)
    assert found.device == device
    # One level at most, where a sum of another order falls on the other side of a border.
    assert (found.cpu().int() - expected.int()).abs().max() <= 1
    assert (found.cpu() != images).any()
