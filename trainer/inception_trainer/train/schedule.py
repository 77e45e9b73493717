"""The learning rate of each optimizer step: a pure function of the step.

No scheduler object, whose state a checkpoint would have to hold: a resumed run computes the rate of
the step that it continues at.
"""

from __future__ import annotations

import math

from inception_trainer.config.method import FALLING
from inception_trainer.config.training import ScheduleConfig
from inception_trainer.data.sampler import LengthPlan


def learning_rate(peak: float, schedule: ScheduleConfig, length: LengthPlan, step: int) -> float:
    """Rate of ``step``, counted from 0: a linear warm-up that reaches ``peak`` at its last step,
    then the named curve.
    """
    warmup = round(schedule.warmup_epochs * length.steps_per_epoch)
    if step < warmup:
        first = schedule.initial_learning_rate or 0.0
        # + 1: the first step must not have rate 0, which would waste it.
        return first + (peak - first) * (step + 1) / warmup
    if schedule.name in FALLING:
        last = schedule.final_learning_rate or 0.0
        return last + (peak - last) * _part_left(schedule, step - warmup, warmup, length)
    if schedule.name == "Step":
        epoch = step // length.steps_per_epoch
        drops = sum(epoch >= milestone for milestone in schedule.milestones)
        drops += epoch // schedule.step_epochs if schedule.step_epochs else 0
        return peak * schedule.gamma**drops
    if schedule.name == "Exponential":
        # A fraction of gamma at every step, gamma itself after stepEpochs epochs.
        steps = length.steps_per_epoch * (schedule.step_epochs or 1)
        return peak * math.pow(schedule.gamma, (step - warmup) / steps)
    return peak


def _part_left(schedule: ScheduleConfig, done: int, warmup: int, length: LengthPlan) -> float:
    """How much of the way from the peak to the final rate is left, 1 to 0, ``done`` steps after the
    warm-up.
    """
    # The horizon, not the end of this run: maxSteps must not bend the curve.
    falling = length.horizon - warmup
    if schedule.name == "Polynomial":
        # MLPerf's reference for ResNet-50, one step ahead of it as the warm-up is: there the first
        # step has rate 0.
        return math.pow(max(0, falling - done) / (falling + 1), schedule.power)
    progress = min(1.0, done / max(1, falling))
    if schedule.name == "Linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress))
