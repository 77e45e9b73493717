"""How many images a training step has memory for, found by trying.

Sizes are doubled until a training step does not fit, then the gap is halved until it is an eighth
of what fits: the result is a power of two or one of the seven numbers evenly between two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import torch
from torch import nn

from inception_trainer.comm import Comm
from inception_trainer.config.normalization import IMAGENET
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Batch
from inception_trainer.data.sampler import BatchPlan
from inception_trainer.device import Accelerator
from inception_trainer.heartbeat import Heartbeat

from .step import Normalise, OptimizerStep, TrainStep

SMALLEST, LIMIT = 2, 65536
"""Batch norm needs two samples; the limit is that of ``batch.perDevice``."""
STEPS = 2
"""From the second step on the optimizer has its own state, and the memory is at its height."""
FULL = (
    # The allocators of CUDA, ROCm, Ascend, Cambricon, Moore Threads and others.
    "out of memory",
    # cuBLAS, cuDNN and their relatives; cuDNN from 9 on; MIOpen.
    "status_alloc_failed",
    "device_allocation_failed",
    "miopenstatusallocfailed",
    # Intel's Level Zero and the runtimes above it, of which the older one had a wider word.
    "out_of_device_memory",
    "pi_error_out_of_resources",
    # Gaudi, Neuron, XLA.
    "module:pt_devmem allocation failed",
    "nrt_tensor_allocate status=4",
    "resource_exhausted",
)
"""How the allocators of devices, and the libraries beside them, word it; in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device said that its memory is full, which vendors' plug-ins and PyTorch say in a
    RuntimeError.
    """
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in FULL)


def largest(fits: Callable[[int], bool]) -> int:
    """The largest size that ``fits``, to an eighth of itself; 0 when not even the smallest does."""
    low, high = 0, SMALLEST
    while high <= LIMIT and fits(high):
        low, high = high, 2 * high
    if low == LIMIT:
        return low
    while low and high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class Trial:
    """Makes training steps of any size on blank images, on this rank alone; they change
    ``network``.
    """

    def __init__(
        self,
        config: TrainingConfig,
        network: nn.Module,
        accelerator: Accelerator,
        world_size: int,
        heartbeat: Heartbeat,
    ) -> None:
        self._config = config
        self._network = network
        self._accelerator = accelerator
        self._heartbeat = heartbeat
        self._optimizer_step = OptimizerStep(config, network, accelerator)
        # Ranks share gradients in buckets of the same size as the weights, which a rank alone does
        # not have.
        weights = [*network.parameters()] if world_size > 1 else []
        self._buckets = [torch.empty_like(weight) for weight in weights]

    def fits(self, size: int) -> bool:
        """Whether a step of ``size`` images finds the memory that it needs."""
        self._heartbeat.beat()
        fits = self._try_steps(size)
        # Only here, when no exception holds the tensors of the step any more.
        self._optimizer_step.optimizer.zero_grad(set_to_none=True)
        # What the allocator keeps is cut into blocks of other sizes than the next trial needs.
        self._accelerator.release_memory()
        return fits

    def _try_steps(self, size: int) -> bool:
        side = self._config.data.image_size
        try:
            images = torch.zeros(size, 3, side, side, dtype=torch.uint8)
            batch = Batch(images, torch.zeros(size, dtype=torch.int64))
            train_step = self._train_step(size)
            for step in range(STEPS):
                train_step.step(repeat(batch), step, 0.0)
            # Waits for the device, which reports a lack of memory late.
            train_step.read()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _train_step(self, size: int) -> TrainStep:
        return TrainStep(
            self._network,
            self._optimizer_step,
            self._accelerator,
            Normalise(IMAGENET, self._accelerator.device, self._accelerator.compute_type),
            BatchPlan(size, 1, size),
            self._config,
            # This rank alone: the others may try another size at the moment.
            Comm(0, 1, self._accelerator.backend),
        )
