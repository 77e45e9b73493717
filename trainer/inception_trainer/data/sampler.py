"""Which samples each rank takes at each step. Mid-epoch resume is this.

The order of an epoch is a permutation computed from (seed, epoch) alone. It is cut into global
batches, one per optimizer step, each global batch into one slice per rank, and each slice into
micro-batches. No state of a sampler or loader is saved anywhere: to continue at step s is to
compute the same permutation and to begin at the slice of s, at any number of ranks, with every
sample of the epoch seen exactly once.

Neighbours: :mod:`.counter_rng` has the random numbers, ``train/batches.py`` asks for the batches of
an epoch, ``train/schedule.py`` has the learning rate of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from inception_trainer.config.training import BatchConfig, EvaluationConfig, TrainingConfig
from inception_trainer.errors import ConfigError

from .counter_rng import Indices, hashes, stream_key

ORDER_STREAM = 1
"""Counter of :func:`.counter_rng.stream_key` for the order of an epoch."""


def permutation(length: int, seed: int, epoch: int) -> Indices:
    """The order of the ``length`` samples in this epoch, int64 ``[length]``."""
    values = hashes(stream_key(seed, epoch, ORDER_STREAM), np.arange(length, dtype=np.int64))
    # Stable, so that two samples with the same 64 bits would not depend on numpy's sort.
    return np.argsort(values, kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True)
class BatchPlan:
    """How the samples of one optimizer step are divided over ranks and micro-batches.

    The global batch is cut into one slice of samples per rank, and each slice into micro-batches.
    Without ``per_device`` a rank has one micro-batch and the slices differ by at most one sample,
    so any number of ranks up to the batch size can share a step.
    """

    global_batch: int
    """Samples of one optimizer step, over all ranks."""
    world_size: int
    per_device: int | None = None
    """Samples of one micro-batch."""

    def __post_init__(self) -> None:
        if self.per_device is None:
            # Batch norm over a single value per channel is undefined, so a rank needs two.
            if self.global_batch < 2 * self.world_size:
                self._refuse(
                    f"give every rank at least two samples: batch.global >= {2 * self.world_size}"
                )
        elif self.global_batch % (self.per_device * self.world_size):
            unit = self.per_device * self.world_size
            nearest = unit * max(1, round(self.global_batch / unit))
            self._refuse(
                f"leave batch.perDevice out or set batch.global to a multiple such as {nearest}"
            )

    def _refuse(self, remedy: str) -> None:
        raise ConfigError(
            f"batch.global: {self.global_batch} does not divide over {self.world_size} ranks"
            + (f" x batch.perDevice {self.per_device}" if self.per_device else "")
            + f"; {remedy}"
        )

    @property
    def micro_batches(self) -> int:
        """Micro-batches of each rank in one step."""
        if self.per_device is None:
            return 1
        return self.global_batch // (self.per_device * self.world_size)

    @property
    def largest_micro_batch(self) -> int:
        """Samples of the largest micro-batch of any rank."""
        # Where the division leaves a remainder, the last rank has one of the larger slices.
        sizes: list[int] = [
            part.stop - part.start for part in self.micro_slices(self.world_size - 1)
        ]
        return max(sizes)

    @property
    def smallest_micro_batch(self) -> int:
        """Samples of the smallest micro-batch of any rank."""
        # The first rank has one of the smaller slices.
        sizes: list[int] = [part.stop - part.start for part in self.micro_slices(0)]
        return min(sizes)

    def rank_slice(self, rank: int) -> slice:
        """The positions inside the global batch that ``rank`` takes."""
        start = self.global_batch * rank // self.world_size
        stop = self.global_batch * (rank + 1) // self.world_size
        return slice(start, stop)

    def samples_of(self, ranks: range) -> int:
        """Samples of one step that ``ranks`` take together."""
        slices = [self.rank_slice(rank) for rank in ranks]
        return sum(part.stop - part.start for part in slices)

    def micro_slices(self, rank: int) -> list[slice]:
        """The slice of ``rank``, cut into its micro-batches."""
        whole = self.rank_slice(rank)
        size = self.per_device or (whole.stop - whole.start)
        return [slice(start, start + size) for start in range(whole.start, whole.stop, size)]


def batch_plan(config: BatchConfig, world_size: int) -> BatchPlan:
    """The plan for ``world_size`` ranks; raises ConfigError when the batch does not divide."""
    return BatchPlan(config.global_, world_size, config.per_device)


@dataclass(frozen=True)
class LengthPlan:
    """How long a run is, in optimizer steps; the last incomplete step of an epoch is dropped."""

    steps_per_epoch: int
    total_steps: int
    """Where this run ends."""
    horizon: int
    """Where the schedule ends.

    maxSteps below epochs interrupts a run without bending the schedule of its learning rate.
    """
    first_step: int = 0
    """Where a run without a checkpoint begins."""

    @classmethod
    def of(cls, config: TrainingConfig, samples: int) -> LengthPlan:
        """The plan for a training split of ``samples``.

        Raises ConfigError when it has not even one step.
        """
        steps_per_epoch = samples // config.batch.global_
        if not steps_per_epoch:
            raise ConfigError(
                f"batch.global: {config.batch.global_} is more than the {samples} training samples"
            )
        if config.epochs:
            horizon = steps_per_epoch * config.epochs
        else:
            horizon = config.max_steps or steps_per_epoch
        total = min(horizon, config.max_steps or horizon)
        first = steps_per_epoch * (config.schedule.start_epoch or 0)
        if first >= total:
            raise ConfigError(
                f"schedule.startEpoch: {config.schedule.start_epoch} leaves no step of the {total} "
                "to do; choose a smaller one"
            )
        return cls(steps_per_epoch, total, horizon, first)

    @classmethod
    def one_epoch(cls, steps: int) -> LengthPlan:
        """The plan of a mode that does not train: ``steps`` batches in a row, at least one."""
        steps = max(1, steps)
        return cls(steps, steps, steps)

    @property
    def epochs(self) -> int:
        """Epochs begun by the whole schedule."""
        return math.ceil(self.horizon / self.steps_per_epoch)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch and step within it of the step number ``step``, both from 0."""
        return divmod(step, self.steps_per_epoch)

    def last_step_of(self, epoch: int) -> int:
        """The step within ``epoch`` before which this run leaves it."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)

    def evaluates_at(self, step: int, rhythm: EvaluationConfig) -> bool:
        """Whether the validation set is measured once ``step`` steps are done."""
        every = rhythm.every_steps or self.steps_per_epoch * (rhythm.every_epochs or 1)
        # More than all are done where the configuration was made shorter meanwhile.
        return step >= self.total_steps or (step > 0 and step % every == 0)


def micro_batches_of_epoch(
    plan: BatchPlan, rank: int, samples: int, seed: int, epoch: int, first_step: int, last_step: int
) -> list[Indices]:
    """The sample numbers of every micro-batch of ``rank``, for steps [first_step, last_step) of
    ``epoch``.
    """
    order = permutation(samples, seed, epoch)
    size = plan.global_batch
    slices = plan.micro_slices(rank)
    return [
        order[step * size : (step + 1) * size][part]
        for step in range(first_step, last_step)
        for part in slices
    ]


def evaluation_indices(samples: int, rank: int, world_size: int) -> Indices:
    """The validation samples of ``rank``: every sample on exactly one rank, no padding, possibly
    none.
    """
    # Samplers that pad the last batch count some images twice, which changes the accuracy.
    first = samples * rank // world_size
    last = samples * (rank + 1) // world_size
    return np.arange(first, last, dtype=np.int64)
