"""Keys that only make sense together: what the types of single keys cannot say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inception_trainer.errors import ConfigError

if TYPE_CHECKING:
    from .training import EvaluationConfig, OptimizerConfig, TrainingConfig

BY_WEIGHTS = ("Infer", "Export")
"""Modes in which ``data.imageSize`` is 0 until the weights have said it."""
TRAINING = ("Train", "Benchmark")
"""Modes that compute gradients, whose steps ``profiler`` can record."""
SQUARE_DECAY, EPSILON = 0.9, 1.0
"""Defaults of RMSProp, those of the Inception papers."""
FALLING = ("Cosine", "Linear")
"""Schedules that end at a rate of their own."""
OF_ONE_METHOD = {
    "optimizer": ("nesterov", "squareDecay", "epsilon"),
    "schedule": ("milestones", "gamma", "stepEpochs", "finalLearningRate"),
}
"""Keys that belong to one ``name`` of their section."""
MADE_AT_SIZE = "Synthetic"
"""The kind of data whose images are never scaled."""


def check_mode(config: TrainingConfig) -> None:
    """Raise ConfigError for keys that leave the mode nothing to do, or no place for its result."""
    only_measures = config.mode == "Infer" and config.inference.format == "None"
    if only_measures and not config.inference.batch_sizes:
        raise ConfigError(
            "inference.batchSizes: missing; with inference.format None there is nothing else to do"
        )
    if config.benchmark.batch == "Largest" and config.model.batch_norm == "Synchronized":
        raise ConfigError(
            "benchmark.batch: for Largest each rank seeks alone, against model.batchNorm Synchronized; choose PerRank"
        )
    if config.mode == "Export" and not config.export.formats:
        raise ConfigError("export.formats: empty; name at least one, for example PT2")
    _check_profiler(config)
    if config.mode not in BY_WEIGHTS or only_measures:
        return
    if config.output.path is None and config.checkpoint.path is None:
        raise ConfigError(
            f"output.path: missing; mode {config.mode} writes its files there (in the cluster: spec.checkpoint); "
            "mode Infer with inference.format None only measures"
        )


def _check_profiler(config: TrainingConfig) -> None:
    if config.profiler.steps is None:
        return
    if config.mode not in TRAINING:
        raise ConfigError(
            f"profiler.steps: mode {config.mode} has no steps to record; leave it out or choose {' or '.join(TRAINING)}"
        )
    if config.output.path is None and config.checkpoint.path is None:
        raise ConfigError(
            "output.path: missing; the steps that profiler.steps records are written there (in the cluster: "
            "spec.checkpoint)"
        )


def reads_data(config: TrainingConfig) -> bool:
    """Whether ``data`` must say what to read: images may come from elsewhere, or not be needed."""
    if config.mode == "Infer":
        return config.inference.path is None and config.inference.format != "None"
    return config.mode != "Export"


def check_method(config: TrainingConfig) -> None:
    """Raise ConfigError for optimizer and schedule keys that contradict one another."""
    optimizer, schedule = config.optimizer, config.schedule
    if schedule.name == "Step" and not (schedule.milestones or schedule.step_epochs):
        raise ConfigError(
            "schedule.milestones: missing; schedule.name Step needs milestones or stepEpochs"
        )
    if optimizer.nesterov and optimizer.momentum == 0:
        raise ConfigError("optimizer.nesterov: true needs optimizer.momentum above 0")
    if optimizer.nesterov and optimizer.name != "SGD":
        raise ConfigError(
            f"optimizer.nesterov: {optimizer.name} has no Nesterov form; leave it out"
        )
    for key, value in (("squareDecay", optimizer.square_decay), ("epsilon", optimizer.epsilon)):
        if value is not None and optimizer.name != "RMSProp":
            raise ConfigError(
                f"optimizer.{key}: only RMSProp has it; leave it out or set optimizer.name to RMSProp"
            )


def check_rates(config: TrainingConfig) -> None:
    """Raise ConfigError for first and last learning rates that the schedule does not have."""
    schedule, peak = config.schedule, config.optimizer.learning_rate
    if schedule.initial_learning_rate is not None and not schedule.warmup_epochs:
        raise ConfigError(
            "schedule.initialLearningRate: needs schedule.warmupEpochs above 0, which rise from it"
        )
    if schedule.final_learning_rate is not None and schedule.name not in FALLING:
        raise ConfigError(
            f"schedule.finalLearningRate: only {' and '.join(FALLING)} have it; leave it out"
        )
    ends = {"initial": schedule.initial_learning_rate, "final": schedule.final_learning_rate}
    for which, rate in ends.items():
        if rate is not None and rate > peak:
            raise ConfigError(
                f"schedule.{which}LearningRate: {rate:g} is above the peak of the schedule, "
                f"optimizer.learningRate {peak:g}; choose a smaller one"
            )


def check_evaluation(evaluation: EvaluationConfig) -> None:
    """Raise ConfigError for two rhythms of evaluation."""
    if evaluation.every_steps is not None and evaluation.every_epochs is not None:
        raise ConfigError(
            "evaluation.everySteps: does not go with everyEpochs; leave one of them out"
        )


def with_defaults(optimizer: OptimizerConfig) -> OptimizerConfig:
    """Fill in what the named method needs."""
    if optimizer.name != "RMSProp":
        return optimizer
    decay = SQUARE_DECAY if optimizer.square_decay is None else optimizer.square_decay
    epsilon = EPSILON if optimizer.epsilon is None else optimizer.epsilon
    return dataclasses.replace(optimizer, square_decay=decay, epsilon=epsilon)


def without_other_methods(recipe: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe less the keys of a method, or of the scaling of images, that ``own`` replaces by
    another.
    """
    result = dict(recipe)
    for section, keys in OF_ONE_METHOD.items():
        theirs, ours = recipe.get(section), own.get(section)
        if isinstance(theirs, Mapping) and _renames(theirs, ours):
            result[section] = {name: value for name, value in theirs.items() if name not in keys}
    data, own_data = recipe.get("data"), own.get("data")
    if (
        isinstance(data, Mapping)
        and isinstance(own_data, Mapping)
        and own_data.get("kind") == MADE_AT_SIZE
    ):
        result["data"] = {name: value for name, value in data.items() if name != "interpolation"}
    return result


def _renames(theirs: Mapping[str, Any], ours: Any) -> bool:
    return isinstance(ours, Mapping) and ours.get("name", theirs.get("name")) != theirs.get("name")
