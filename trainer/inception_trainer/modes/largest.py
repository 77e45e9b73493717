"""Finds the largest micro-batch that a device has memory for, by trying (``benchmark.batch:
Largest``).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from inception_trainer.config.training import BatchConfig, TrainingConfig
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.train.fitting import SMALLEST, Trial, largest

from .common import Run


def with_largest_batch(run: Run, network: nn.Module) -> TrainingConfig:
    """The configuration with the largest batch that every rank has memory for; ConfigError where
    that has no answer.

    ``network`` is trained on blank images meanwhile. Every rank must call it.
    """
    config, comm = run.config, run.comm
    if run.accelerator.is_cpu:
        raise ConfigError(
            "benchmark.batch: Largest needs an accelerator; the CPU has no memory of its own "
            "whose end could be found"
        )
    trial = Trial(config, network, run.accelerator, comm.world_size, run.heartbeat)
    fitting = largest(trial.fits)
    # Devices of one job may have other memory, or others may use some of it.
    size = int(comm.gather(torch.tensor(fitting)).min())
    if not size:
        raise ConfigError(
            f"benchmark.batch: not even {SMALLEST} images of {config.data.image_size} px "
            "fit into the memory"
        )
    logger.info("the largest micro-batch that fits is %d", size)
    batch = BatchConfig(global_=size * comm.world_size, per_device=size)
    data = dataclasses.replace(config.data, samples=max(config.data.samples, batch.global_))
    return dataclasses.replace(config, batch=batch, data=data)
