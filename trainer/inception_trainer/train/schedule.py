"""How long a run is, who takes which samples of a step, and the learning rate of each step: pure
functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from inception_trainer.config.method import FALLING
from inception_trainer.config.training import (
    BatchConfig,
    EvaluationConfig,
    ScheduleConfig,
    TrainingConfig,
)
from inception_trainer.data.base import Indices
from inception_trainer.data.order import permutation
from inception_trainer.errors import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    """How the samples of one optimizer step are divided.

    The global batch is cut into one run of samples per rank, and each run into micro-batches.
    Without ``per_device`` a rank has one micro-batch and the runs differ by at most one sample, so
    any number of ranks up to the batch size can share a step.
    """

    global_batch: int
    world_size: int
    per_device: int | None = None

    def __post_init__(self) -> None:
        if self.per_device is None:
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
        return (
            1
            if self.per_device is None
            else self.global_batch // (self.per_device * self.world_size)
        )

    def share(self, rank: int) -> slice:
        """The positions inside the global batch that ``rank`` takes."""
        start, stop = (self.global_batch * r // self.world_size for r in (rank, rank + 1))
        return slice(start, stop)

    def micro_slices(self, rank: int) -> list[slice]:
        """The share of ``rank``, cut into its micro-batches."""
        share = self.share(rank)
        size = self.per_device or (share.stop - share.start)
        return [slice(start, start + size) for start in range(share.start, share.stop, size)]


@dataclass(frozen=True)
class LengthPlan:
    """Steps of the run; the last incomplete step of an epoch is dropped."""

    steps_per_epoch: int
    total_steps: int
    """Where this run ends."""
    horizon: int
    """Where the schedule ends: maxSteps below epochs interrupts a run without bending its schedule.
    """

    @classmethod
    def of(cls, config: TrainingConfig, samples: int) -> LengthPlan:
        """Plan for a training split of ``samples``; raises ConfigError when it has not even one
        step.
        """
        steps_per_epoch = samples // config.batch.global_
        if not steps_per_epoch:
            raise ConfigError(
                f"batch.global: {config.batch.global_} is more than the {samples} training samples"
            )
        horizon = (
            steps_per_epoch * config.epochs
            if config.epochs
            else config.max_steps or steps_per_epoch
        )
        return cls(steps_per_epoch, min(horizon, config.max_steps or horizon), horizon)

    @property
    def epochs(self) -> int:
        """Epochs begun by the whole schedule."""
        return math.ceil(self.horizon / self.steps_per_epoch)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch and step within it of the step number ``step``, both from 0."""
        return divmod(step, self.steps_per_epoch)

    def evaluates_at(self, step: int, rhythm: EvaluationConfig) -> bool:
        """Whether the validation set is measured once ``step`` steps are done."""
        every = rhythm.every_steps or self.steps_per_epoch * (rhythm.every_epochs or 1)
        return step == self.total_steps or (step > 0 and step % every == 0)


def micro_batches_of_epoch(
    plan: BatchPlan, rank: int, samples: int, seed: int, epoch: int, first_step: int, last_step: int
) -> list[Indices]:
    """The sample numbers of every micro-batch of ``rank``, for steps [first_step, last_step) of
    ``epoch``.
    """
    order = permutation(samples, seed, epoch)
    slices = plan.micro_slices(rank)
    batch = plan.global_batch
    return [
        order[step * batch : (step + 1) * batch][part]
        for step in range(first_step, last_step)
        for part in slices
    ]


def evaluation_share(samples: int, rank: int, world_size: int) -> Indices:
    """The validation samples of ``rank``: every sample on exactly one rank, no padding, possibly
    none.
    """
    return np.arange(
        samples * rank // world_size, samples * (rank + 1) // world_size, dtype=np.int64
    )


def batch_plan(config: BatchConfig, world_size: int) -> BatchPlan:
    """The plan for ``world_size`` ranks; raises ConfigError when the batch does not divide."""
    return BatchPlan(config.global_, world_size, config.per_device)


def learning_rate(peak: float, schedule: ScheduleConfig, length: LengthPlan, step: int) -> float:
    """Rate of ``step``: a linear warm-up that reaches the peak at its last step, then the named
    curve.
    """
    warmup = round(schedule.warmup_epochs * length.steps_per_epoch)
    if step < warmup:
        first = schedule.initial_learning_rate or 0.0
        return first + (peak - first) * (step + 1) / warmup
    if schedule.name in FALLING:
        progress = min(1.0, (step - warmup) / max(1, length.horizon - warmup))
        last = schedule.final_learning_rate or 0.0
        left = (
            1 - progress if schedule.name == "Linear" else 0.5 * (1 + math.cos(math.pi * progress))
        )
        return last + (peak - last) * left
    if schedule.name == "Step":
        epoch = step // length.steps_per_epoch
        drops = sum(epoch >= milestone for milestone in schedule.milestones)
        drops += epoch // schedule.step_epochs if schedule.step_epochs else 0
        return peak * schedule.gamma**drops
    if schedule.name == "Exponential":
        steps = length.steps_per_epoch * (schedule.step_epochs or 1)
        return peak * math.pow(schedule.gamma, (step - warmup) / steps)
    return peak
