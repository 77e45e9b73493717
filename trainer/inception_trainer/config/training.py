"""The training configuration: one schema for ``spec.training`` of the custom resource and for the
trainer's own file.

:func:`load` turns YAML or JSON text, a recipe and ``--set`` overrides into a
:class:`TrainingConfig` whose defaults are filled in. Every error is a ConfigError that names the
full key path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inception_trainer import recipes
from inception_trainer.errors import ConfigError, InputMissing

from . import catalog, checks, normalization
from .schema import camel, dump, key, parse

MODES = ("Train", "Evaluate", "Benchmark", "Infer", "Export")
CIFAR = ("Cifar10", "Cifar100")
DATA_KINDS = ("Digits", "Synthetic", "ImageFolder", "ImageList", "WebDataset", *CIFAR)
IN_MEMORY = ("Digits", "Synthetic", *CIFAR)
PRECISION_RULES = ("FP32", "BF16", "FP16", "ComputeCapability", "AskDevice", "CPUFlags")
NEEDS_PATH = {
    "ImageFolder": "holds train/ and val/, here or in the variable IMAGENET_TRAIN_DATASET",
    "ImageList": "holds train.txt and val.txt",
    "WebDataset": "holds the shards",
    "Cifar10": "holds the batches of CIFAR-10",
    "Cifar100": "holds the files of CIFAR-100",
}


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and where its weights start from."""

    name: str = key("bninception")
    weights: str | None = key(None)
    classifier: str = key("Load", choices=("Load", "New"))
    dropout: float | None = key(None, at_least=0, below=1)
    batch_norm: str = key("PerRank", choices=("PerRank", "Synchronized"))


@dataclass(frozen=True)
class DataConfig:
    """Where the samples come from."""

    kind: str = key("", choices=DATA_KINDS)
    path: str | None = key(None)
    image_size: int = key(0, at_least=8, at_most=2048)
    num_classes: int | None = key(None, at_least=2)
    samples: int = key(1024, at_least=1)
    workers: int | None = key(None, at_least=0, at_most=64)
    normalization: str = key("Auto", choices=normalization.CHOICES)
    max_corrupt: int | None = key(None, at_least=0)
    evaluation_crop_ratio: float = key(0.875, above=0, at_most=1)
    interpolation: str = key("Bilinear", choices=("Bilinear", "Bicubic", "Nearest"))
    train_shards: str | None = key(None)
    val_shards: str | None = key(None)
    label_key: str | None = key(None)


@dataclass(frozen=True)
class BatchConfig:
    """Samples per optimizer step over all ranks (``global``), and per micro-batch of one rank."""

    global_: int = key(64, at_least=1)
    per_device: int | None = key(None, at_least=1)


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD in torch's sense or RMSProp in TensorFlow's; the rate is the peak of the schedule."""

    name: str = key("SGD", choices=("SGD", "RMSProp"))
    learning_rate: float = key(0.1, above=0)
    momentum: float = key(0.9, at_least=0, below=1)
    weight_decay: float = key(0.0001, at_least=0)
    nesterov: bool = key(False)
    square_decay: float | None = key(None, at_least=0, below=1)
    epsilon: float | None = key(None, above=0)
    clip_norm: float | None = key(None, above=0)
    decay_exempt: str = key("Nothing", choices=("Nothing", "Norm", "NormAndBias"))


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves, step by step; epochs count from 0."""

    name: str = key("Cosine", choices=("Cosine", "Linear", "Step", "Exponential", "Constant"))
    warmup_epochs: float = key(0.0, at_least=0)
    milestones: tuple[int, ...] = key((), at_least=0)
    gamma: float = key(0.1, above=0, at_most=1)
    step_epochs: int | None = key(None, at_least=1)
    initial_learning_rate: float | None = key(None, at_least=0)
    final_learning_rate: float | None = key(None, at_least=0)


@dataclass(frozen=True)
class LossConfig:
    """Cross entropy; smoothing as torch defines it. An auxiliary weight of 0 builds the network
    without that head.
    """

    label_smoothing: float = key(0.0, at_least=0, below=1)
    auxiliary_weight: float | None = key(None, at_least=0, at_most=10)


@dataclass(frozen=True)
class ColorJitterConfig:
    """Factors drawn from 1 - x to 1 + x for each image."""

    brightness: float = key(0.0, at_least=0, at_most=1)
    contrast: float = key(0.0, at_least=0, at_most=1)
    saturation: float = key(0.0, at_least=0, at_most=1)


@dataclass(frozen=True)
class RandAugmentConfig:
    """Two random changes of each image; without a magnitude there are none."""

    magnitude: int | None = key(None, at_least=1, at_most=10)
    deviation: float = key(0.5, at_least=0, at_most=10)


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to training images beyond what their kind of data always does."""

    mixup: float | None = key(None, above=0, at_most=1)
    color_jitter: ColorJitterConfig = field(default_factory=ColorJitterConfig)
    rand_augment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    random_erasing: float | None = key(None, above=0, at_most=1)


@dataclass(frozen=True)
class WeightAverageConfig:
    """Running average of the weights (EMA); without a decay there is none."""

    decay: float | None = key(None, above=0, below=1)
    every_steps: int = key(1, at_least=1)


@dataclass(frozen=True)
class EvaluationConfig:
    """When the validation set is measured, always at the end too, and how much of it."""

    every_epochs: int | None = key(None, at_least=1)
    every_steps: int | None = key(None, at_least=1)
    max_samples: int | None = key(None, at_least=1)


@dataclass(frozen=True)
class BenchmarkConfig:
    """How many steps mode Benchmark measures, after how many that nothing counts, and whether it
    seeks its batch.
    """

    warmup_steps: int = key(10, at_least=1)
    steps: int = key(50, at_least=1)
    batch: str = key("Configured", choices=("Configured", "Largest"))


@dataclass(frozen=True)
class ProfilerConfig:
    """How many optimizer steps are recorded, after how many of this process; without a number none
    is.
    """

    steps: int | None = key(None, at_least=1, at_most=1000)
    after_steps: int = key(10, at_least=0)


@dataclass(frozen=True)
class InferenceConfig:
    """What mode Infer classifies, what it writes, and at which batch sizes it measures latencies."""

    path: str | None = key(None)
    format: str = key("CSV", choices=("CSV", "JSONL", "None"))
    top_classes: int = key(5, at_least=1, at_most=1000)
    class_names: str | None = key(None)
    batch_sizes: tuple[int, ...] = key((), at_least=1, at_most=65536)


@dataclass(frozen=True)
class ExportConfig:
    """Which files mode Export writes; without a batch size they take any."""

    formats: tuple[str, ...] = key(("PT2",), choices=("PT2", "ONNX", "TorchScript", "Safetensors"))
    batch_size: int | None = key(None, at_least=1, at_most=65536)


@dataclass(frozen=True)
class CheckpointConfig:
    """Where and how often state survives; no path, no checkpoints."""

    path: str | None = key(None)
    every_steps: int | None = key(None, at_least=1)
    every_seconds: float = key(60.0, at_least=0)
    keep: int = key(3, at_least=1)


@dataclass(frozen=True)
class OutputConfig:
    """Where summary, curves and TensorBoard files go."""

    path: str | None = key(None)


@dataclass(frozen=True)
class AcceleratorConfig:
    """One row of the accelerator table; what it leaves out is found out (``device.choice``)."""

    profile: str | None = key(None)
    module: str | None = key(None)
    device: str | None = key(None)
    backend: str | None = key(None)
    precision_rule: str | None = key(None, choices=PRECISION_RULES)
    visible: tuple[str, ...] = key(())
    devices: int | None = key(None, at_least=1)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a training is made of (table in docs/architecture/configuration.md)."""

    mode: str = key("Train", choices=MODES)
    recipe: str | None = key(None)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    epochs: int | None = key(None, at_least=1)
    max_steps: int | None = key(None, at_least=1)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    weight_average: WeightAverageConfig = field(default_factory=WeightAverageConfig)
    precision: str = key("Auto", choices=("Auto", "FP32", "BF16", "FP16"))
    execution: str = key("Eager", choices=("Eager", "Compiled"))
    cpu_affinity: str = key("Shared", choices=("Shared", "PerRank"))
    seed: int = key(0, at_least=0, at_most=2**32 - 1)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    log_every_steps: int = key(10, at_least=1)
    profiler: ProfilerConfig = field(default_factory=ProfilerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    accelerator: AcceleratorConfig = field(default_factory=AcceleratorConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the file."""
        plain: dict[str, Any] = dump(self)
        return plain


def from_mapping(data: Mapping[str, Any], image_folder: str | None = None) -> TrainingConfig:
    """Apply the recipe, check everything, fill in the defaults that depend on other keys.

    ``image_folder`` is the ``data.path`` of an ImageFolder that has none.
    """
    merged = _with_image_folder(_with_recipe(data), image_folder)
    config = parse(TrainingConfig, merged)
    checks.check_mode(config)
    if checks.reads_data(config):
        _check_data(config.data)
    checks.check_method(config)
    checks.check_rates(config)
    checks.check_evaluation(config.evaluation)
    if config.model.batch_norm == "Synchronized" and config.execution == "Compiled":
        raise ConfigError(
            "execution: Compiled does not go with model.batchNorm Synchronized; choose Eager"
        )
    if config.model.classifier == "New" and config.model.weights is None:
        raise ConfigError(
            "model.classifier: New needs model.weights; without it every layer starts afresh anyway"
        )
    config = _resolved(config)
    _check_model(config)
    return config


def _check_data(data: DataConfig) -> None:
    if not data.kind:
        raise ConfigError(f"data.kind: missing; choose {', '.join(DATA_KINDS)}, or name a recipe")
    if data.kind in NEEDS_PATH and data.path is None:
        raise ConfigError(
            f"data.path: missing; data.kind {data.kind} needs the folder that {NEEDS_PATH[data.kind]}"
        )
    if data.kind == checks.MADE_AT_SIZE and data.interpolation != "Bilinear":
        raise ConfigError(
            f"data.interpolation: images of data.kind {data.kind} are made at their size; leave it out"
        )
    for name in ("train_shards", "val_shards", "label_key"):
        value = getattr(data, name)
        if value is not None and data.kind != "WebDataset":
            raise ConfigError(f"data.{camel(name)}: only data.kind WebDataset has it; leave it out")
        if value == "":
            raise ConfigError(f"data.{camel(name)}: empty; leave it out")


def _check_model(config: TrainingConfig) -> None:
    name, auxiliary = config.model.name, bool(config.loss.auxiliary_weight)
    if auxiliary and catalog.facts(name).auxiliary_smallest is None:
        raise ConfigError(
            f"loss.auxiliaryWeight: {config.loss.auxiliary_weight:g} needs an auxiliary head, which {name} does not "
            "have; leave it out, or choose model.name inception_v3"
        )
    if config.model.dropout is not None and not catalog.facts(name).has_dropout:
        raise ConfigError(f"model.dropout: {name} has no dropout; leave it out")
    if config.data.image_size:
        catalog.check_image_size(
            name, config.data.image_size, auxiliary=auxiliary and config.mode in checks.TRAINING
        )


def load(
    text: str | None,
    overrides: Sequence[str] = (),
    source: str = "the configuration",
    image_folder: str | None = None,
) -> TrainingConfig:
    """Parse YAML or JSON text and ``key=value`` overrides (values are YAML); the rest as
    :func:`from_mapping`.
    """
    data = _document(text or "", source)
    for override in overrides:
        _override(data, override)
    return from_mapping(data, image_folder)


def load_file(
    path: Path, overrides: Sequence[str] = (), image_folder: str | None = None
) -> TrainingConfig:
    """Like :func:`load`; raises InputMissing when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputMissing(f"configuration file {path} cannot be read: {error.strerror}") from None
    return load(text, overrides, str(path), image_folder)


FINGERPRINTED = (
    "model",
    "optimizer",
    "schedule",
    "loss",
    "augmentation",
    "weightAverage",
    "epochs",
    "seed",
)


def fingerprint(config: TrainingConfig) -> dict[str, Any]:
    """What decides the result of a training: a checkpoint continues only under the same values."""
    plain = config.as_dict()
    counted = {name: plain.get(name) for name in FINGERPRINTED}
    counted["data"] = {
        name: value
        for name, value in plain["data"].items()
        if name not in ("workers", "maxCorrupt")
    }
    counted["batch"] = {"global": config.batch.global_}
    if config.epochs is None:
        counted["maxSteps"] = config.max_steps
    return flat(counted)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"batch": {"global": 64}}`` to ``{"batch.global": 64}``."""
    result: dict[str, Any] = {}
    for name, item in value.items():
        full = f"{prefix}{name}"
        result.update(flat(item, f"{full}.") if isinstance(item, Mapping) else {full: item})
    return result


def _resolved(config: TrainingConfig) -> TrainingConfig:
    known = catalog.facts(config.model.name)
    weight = config.loss.auxiliary_weight
    if weight is None:
        weight = 0.0 if known.auxiliary_smallest is None else catalog.AUXILIARY_WEIGHT
    data = config.data
    small = data.kind in IN_MEMORY
    tiny = data.kind in ("Digits", *CIFAR)
    side = max(32, known.smallest_with(weight > 0)) if tiny else known.image_size
    # A network that is used and not trained takes images of the size that its weights say.
    side = 0 if config.mode in checks.BY_WEIGHTS else side
    data = dataclasses.replace(
        data,
        image_size=data.image_size or side,
        workers=data.workers if data.workers is not None else (0 if small else 2),
    )
    epochs = config.epochs if config.epochs or config.max_steps else 1
    output = config.output
    if output.path is None and config.checkpoint.path is not None:
        # Not by pathlib, which would make s3:/ of s3://.
        output = OutputConfig(path=f"{config.checkpoint.path.rstrip('/')}/output")
    loss = dataclasses.replace(config.loss, auxiliary_weight=weight)
    optimizer, evaluation = checks.with_defaults(config.optimizer), config.evaluation
    if evaluation.every_steps is None:
        evaluation = dataclasses.replace(evaluation, every_epochs=evaluation.every_epochs or 1)
    return dataclasses.replace(
        config,
        data=data,
        loss=loss,
        optimizer=optimizer,
        epochs=epochs,
        evaluation=evaluation,
        output=output,
    )


def _with_recipe(data: Mapping[str, Any]) -> dict[str, Any]:
    name = data.get("recipe")
    if name is None:
        return dict(data)
    if not isinstance(name, str):
        raise ConfigError(f"recipe: {name!r} is not a text; choose {', '.join(recipes.names())}")
    return merge(checks.without_other_methods(recipes.read(name), data), data)


def _with_image_folder(data: dict[str, Any], folder: str | None) -> dict[str, Any]:
    section = data.get("data")
    if folder is None or not isinstance(section, Mapping) or section.get("kind") != "ImageFolder":
        return data
    return (
        data if section.get("path") is not None else {**data, "data": {**section, "path": folder}}
    )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``; mappings merge, everything else is replaced."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{source}: neither YAML nor JSON: {' '.join(str(error).split())}"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: {type(data).__name__} instead of a mapping; write keys such as `recipe: ...`"
        )
    return data


def _override(data: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"--set {override}: write it as key=value, for example --set batch.global=128"
        )
    *parents, last = name.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {parent} is {inner!r}, not a mapping")
        data = inner
    data[last] = yaml.safe_load(text)
