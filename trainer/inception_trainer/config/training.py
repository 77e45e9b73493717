"""The training configuration: one schema for ``spec.training`` of the custom resource and for the
trainer's own file.

:func:`load` turns YAML or JSON text, a recipe and ``--set`` overrides into a
:class:`TrainingConfig` whose defaults are filled in. Every error is a ConfigError that names the
full key path. The sections are in :mod:`.model`, :mod:`.data`, :mod:`.augmentation`,
:mod:`.method`, :mod:`.modes`, :mod:`.tracking` and :mod:`.places`; here are the keys beside them
and the rules over several of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inception_trainer.errors import ConfigError, InputMissing

from . import catalog, sources
from .augmentation import AugmentationConfig, ColorJitterConfig, RandAugmentConfig
from .data import CIFAR, DATA_KINDS, IMAGE_FILES, BatchConfig, DataConfig
from .declare import (
    FORBIDDEN,
    FROM_SPEC,
    INVALID,
    NOT_A_KEY,
    REQUIRED,
    Api,
    Cel,
    camel,
    cel_list,
    key,
    listed,
    rule,
    rules,
)
from .method import (
    FALLING,
    WITH_SQUARES,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    WeightAverageConfig,
)
from .model import ModelConfig
from .model_facts import ModelFacts
from .modes import (
    BenchmarkConfig,
    EvaluationConfig,
    ExportConfig,
    InferenceConfig,
    PreflightConfig,
    ProfilerConfig,
)
from .places import AcceleratorConfig, CheckpointConfig, OutputConfig
from .schema import dump, parse
from .sources import flat, merge
from .tracking import TrackingConfig

__all__ = [
    "CIFAR",
    "FALLING",
    "AcceleratorConfig",
    "AugmentationConfig",
    "BatchConfig",
    "BenchmarkConfig",
    "CheckpointConfig",
    "ColorJitterConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "InferenceConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OutputConfig",
    "PreflightConfig",
    "ProfilerConfig",
    "RandAugmentConfig",
    "ScheduleConfig",
    "TrackingConfig",
    "TrainingConfig",
    "WeightAverageConfig",
    "flat",
    "from_mapping",
    "load",
    "load_file",
    "merge",
]

MODES = ("Train", "Evaluate", "Benchmark", "Infer", "Export", "Preflight")
MODES_WITH_STEPS = ("Train", "Benchmark")
"""Modes that compute gradients, whose steps ``profiler`` can record."""
MODES_BY_WEIGHTS = ("Infer", "Export")
"""Modes in which ``data.imageSize`` is 0 until the weights have said it."""


@dataclass(frozen=True)
class TrainingConfig:
    """Training is what the bundled trainer does: data, network, length and method. Decimal numbers
    are quoted strings. The trainer reads the same keys from its own YAML file outside Kubernetes.
    It is required, unless the container trainer of the template brings a command of its own.
    """

    mode: str = key("Train", choices=MODES)
    """Mode is what to do with the network. Train is the default. Evaluate measures a trained
    network on the validation data; Benchmark measures the speed of training steps; Infer classifies
    images with a trained network; Export writes it in forms that other programs run; Preflight
    tries devices, network, data and the place of checkpoints on every rank and leaves nothing
    behind. Modes other than Train change no checkpoint; all but Preflight write their summary.json
    below the output directory, in a directory named after the mode.
    """

    recipe: str | None = key(
        None,
        api=Api(pattern="^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$", min_length=1, max_length=63),
    )
    """Recipe is the name of a preset of the trainer, for example bninception-digits. It sets all
    keys; every key given here overrides it.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)

    # None, not 1: without epochs max_steps alone says how long the training and its schedule are.
    epochs: int | None = key(None, at_least=1, api=Api(maximum=100_000))
    """Epochs is how many times the training data is seen. The default is 1."""

    max_steps: int | None = key(None, at_least=1, api=Api(maximum=10**12))
    """MaxSteps ends the training after this many optimizer steps, if the epochs do not end it
    before.
    """

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    weight_average: WeightAverageConfig = field(default_factory=WeightAverageConfig)

    precision: str = key(
        "Auto", choices=("Auto", "FP32", "TF32", "BF16", "FP16"), api=Api(max_length=8)
    )
    """Precision of the computation. Auto, the default, takes what is best on the device and says
    so; FP32 computes in single precision, products of matrices and convolutions too; TF32 rounds
    the factors of these to ten bits behind the point (CUDA since Ampere); BF16 computes in bfloat16
    with FP32 weights; FP16 computes in half precision with FP32 weights and a loss scale that
    adjusts itself, or is loss.scale.
    """

    execution: str = key(
        "Eager", choices=("Eager", "Compiled", "CompiledGraphs"), api=Api(max_length=16)
    )
    """Execution is how the network runs. Eager, the default, runs it operation by operation;
    Compiled has PyTorch compile it at the first step, which takes a minute or more and needs a
    compiler and the headers of Python in the image; CompiledGraphs also records graphs of kernels,
    which saves their launches (CUDA and ROCm only, PyTorch's mode reduce-overhead). What is missing
    ends the job before its first step.
    """

    seed: int = key(0, at_least=0, at_most=2**32 - 1)
    """Seed of all random numbers. With the same seed the order of the samples is the same over
    restarts and numbers of ranks. The default is 0.
    """

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)

    # A choice and not a boolean: such keys grow (conventions of the Kubernetes API).
    cpu_affinity: str = key("Shared", choices=("Shared", "PerRank"), api=Api(max_length=8))
    """CpuAffinity is which CPUs a rank may use. With Shared, the default, all ranks of a pod share
    those of the pod; with PerRank each rank, its threads and its loader processes are pinned to a
    part of their own, in which the threads of a core and the cores of a package are neighbours.
    PerRank helps pods of several ranks that have their node, or by the kubelet's static CPU policy
    their CPUs, for themselves; two pods that share CPUs would be pinned to the same ones. It needs
    at least one CPU per rank.
    """

    log_every_steps: int = key(10, at_least=1, api=Api(maximum=1_000_000))
    """LogEverySteps is after how many steps figures are read back from the device and reported. The
    default is 10.
    """

    profiler: ProfilerConfig = field(default_factory=ProfilerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig, metadata=FROM_SPEC)
    output: OutputConfig = field(default_factory=OutputConfig, metadata=FROM_SPEC)
    accelerator: AcceleratorConfig = field(default_factory=AcceleratorConfig, metadata=FROM_SPEC)

    written: tuple[str, ...] = field(default=(), compare=False, metadata=NOT_A_KEY)
    """The keys that the user wrote, such as ``data.imageSize``: no default, nothing of a recipe."""

    @rule()
    def files_need_a_place(self) -> str | None:
        """In the cluster a rule of ``spec`` says it, which sees ``spec.checkpoint``."""
        if self.output.path is not None or self.checkpoint.path is not None:
            return None
        if self.mode in MODES_BY_WEIGHTS and not self.only_measures:
            return (
                f"output.path: missing; mode {self.mode} writes its files there (in the cluster: "
                "spec.checkpoint); mode Infer with inference.format None only measures"
            )
        if self.profiler.steps is not None and self.mode in MODES_WITH_STEPS:
            return (
                "output.path: missing; the steps that profiler.steps records are written there "
                "(in the cluster: spec.checkpoint)"
            )
        if self.tracking.wandb.project is not None and self.mode == "Train":
            return (
                "output.path: missing; the run of tracking.wandb is kept there (in the cluster: "
                "spec.checkpoint)"
            )
        return None

    @rule()
    def export_needs_a_format(self) -> str | None:
        """The API says this by minItems."""
        if self.mode != "Export" or self.export.formats:
            return None
        return "export.formats: empty; name at least one, for example PT2"

    @rule()
    def largest_batch_needs_ranks_apart(self) -> str | None:
        """A rank that seeks its batch alone would wait for the means of the others for ever."""
        if self.benchmark.batch != "Largest" or self.model.batch_norm != "Synchronized":
            return None
        return (
            "benchmark.batch: for Largest each rank seeks alone, against model.batchNorm "
            "Synchronized; choose PerRank"
        )

    @rule(
        Cel(
            "has(self.recipe) || (has(self.data) && has(self.data.kind)) || "
            "self.?mode.orValue('') in ['Export', 'Preflight'] || "
            "(self.?mode.orValue('') == 'Infer' && "
            "has(self.inference) && "
            "(has(self.inference.path) || self.inference.?format.orValue('') == 'None'))",
            message=(
                "spec.training needs a recipe or data.kind, because nothing says what to train on; "
                "mode Infer needs one of them or inference.path"
            ),
            field="data",
            reason=REQUIRED,
        )
    )
    def samples_need_a_kind(self) -> str | None:
        """Nothing is trained by accident: there is no default kind of data."""
        if self.data.kind or not self.reads_data:
            return None
        kinds = ", ".join(DATA_KINDS)
        return f"data.kind: missing; choose {kinds}, or name a recipe"

    # A recipe without a network of its own is one for inception_v3 as far as the API server knows.
    @rule(
        Cel(
            "!has(self.loss) || !has(self.loss.auxiliaryWeight) || "
            "double(self.loss.auxiliaryWeight) == 0.0 || "
            "self.?model.?name.orValue(has(self.recipe) ? 'inception_v3' : 'bninception') == "
            "'inception_v3'",
            message=(
                "spec.training.loss.auxiliaryWeight needs model.name inception_v3, the only "
                "network with an auxiliary head; leave it out"
            ),
            field="loss",
            reason=INVALID,
        )
    )
    def auxiliary_weight_needs_its_head(self) -> str | None:
        """A weight of 0 builds the network without that head, which suits every network."""
        weight = self.loss.auxiliary_weight
        name = self.model.name
        if not weight or catalog.facts(name).auxiliary_smallest is not None:
            return None
        return (
            f"loss.auxiliaryWeight: {weight:g} needs an auxiliary head, which {name} does not "
            "have; leave it out, or choose model.name inception_v3"
        )

    @rule(
        Cel(
            "self.?model.?batchNorm.orValue('') != 'Synchronized' || "
            "!(self.?execution.orValue('') in ['Compiled', 'CompiledGraphs'])",
            message=(
                "spec.training.execution Compiled does not go with model.batchNorm Synchronized; "
                "leave one out"
            ),
            field="execution",
            reason=FORBIDDEN,
        )
    )
    def compiled_ranks_do_not_synchronize(self) -> str | None:
        """Each layer would exchange its means in the middle of the compiled graph."""
        if self.model.batch_norm != "Synchronized" or self.execution == "Eager":
            return None
        both = f"execution: {self.execution} does not go with model.batchNorm Synchronized"
        return f"{both}; choose Eager"

    # Not a rule of the section: only from here is the recipe seen, which may choose the optimizer.
    @rule(
        Cel(
            "has(self.recipe) || !has(self.optimizer) || "
            f"self.optimizer.?name.orValue('') in {cel_list(WITH_SQUARES)} || "
            "!(has(self.optimizer.squareDecay) || has(self.optimizer.epsilon))",
            message=(
                "spec.training.optimizer.squareDecay and epsilon belong to "
                f"{listed(WITH_SQUARES)}; set name to one of them or leave them out"
            ),
            field="optimizer",
            reason=FORBIDDEN,
        )
    )
    def square_decay_and_epsilon_need_squares(self) -> str | None:
        """SGD takes no mean of squares."""
        values = {
            "squareDecay": self.optimizer.square_decay,
            "epsilon": self.optimizer.epsilon,
        }
        for name, value in values.items():
            if value is not None and self.optimizer.name not in WITH_SQUARES:
                return (
                    f"optimizer.{name}: only {listed(WITH_SQUARES)} have it; leave it out or set "
                    "optimizer.name to one of them"
                )
        return None

    @rule(
        Cel(
            "has(self.recipe) || !has(self.optimizer) || !has(self.optimizer.trustCoefficient) || "
            "self.optimizer.?name.orValue('') == 'LARS'",
            message=(
                "spec.training.optimizer.trustCoefficient belongs to LARS; set name to it or leave "
                "it out"
            ),
            field="optimizer",
            reason=FORBIDDEN,
        )
    )
    def trust_coefficient_needs_lars(self) -> str | None:
        """LAMB makes each change as long as the weights themselves."""
        if self.optimizer.trust_coefficient is None or self.optimizer.name == "LARS":
            return None
        return "optimizer.trustCoefficient: only LARS has it; leave it out"

    @rule(
        Cel(
            "self.?mode.orValue('') != 'Infer' || self.?inference.?format.orValue('') != 'None' || "
            "has(self.inference.batchSizes)",
            message=(
                "spec.training.inference.batchSizes is required with format None, because nothing "
                "else is left to do"
            ),
            field="inference",
            reason=REQUIRED,
        )
    )
    def measuring_needs_batch_sizes(self) -> str | None:
        """Mode Infer either writes predictions or measures latencies."""
        if not self.only_measures or self.inference.batch_sizes:
            return None
        return (
            "inference.batchSizes: missing; with inference.format None there is nothing else to do"
        )

    @rule(
        Cel(
            "!has(self.profiler) || !has(self.profiler.steps) || "
            f"self.?mode.orValue('Train') in {cel_list(MODES_WITH_STEPS)}",
            message=(
                f"spec.training.profiler needs mode {listed(MODES_WITH_STEPS, 'or')}, the only "
                "ones with steps; leave it out"
            ),
            field="profiler",
            reason=FORBIDDEN,
        )
    )
    def profiler_needs_steps(self) -> str | None:
        """Only optimizer steps are recorded."""
        if self.profiler.steps is None or self.mode in MODES_WITH_STEPS:
            return None
        return (
            f"profiler.steps: mode {self.mode} has no steps to record; leave it out or choose "
            f"{listed(MODES_WITH_STEPS, 'or')}"
        )

    # The API server would need the recipe's peak to compare with.
    @rule()
    def rates_stay_below_the_peak(self) -> str | None:
        """A schedule rises from its first rate to the peak and falls to its last one."""
        peak = self.optimizer.learning_rate
        ends = {
            "initial": self.schedule.initial_learning_rate,
            "final": self.schedule.final_learning_rate,
        }
        for which, rate in ends.items():
            if rate is not None and rate > peak:
                return (
                    f"schedule.{which}LearningRate: {rate:g} is above the peak of the schedule, "
                    f"optimizer.learningRate {peak:g}; choose a smaller one"
                )
        return None

    @property
    def only_measures(self) -> bool:
        """Whether latencies are all that is wanted: no image is classified, no file written."""
        return self.mode == "Infer" and self.inference.format == "None"

    @property
    def reads_data(self) -> bool:
        """Whether ``data`` must say what to read: images may come from elsewhere, or not at all."""
        if self.mode == "Infer":
            return self.inference.path is None and not self.only_measures
        if self.mode == "Preflight":
            # Of a program of one's own nobody knows what it reads; the rest is tried all the same.
            return bool(self.data.kind)
        return self.mode != "Export"

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the file."""
        plain: dict[str, Any] = dump(self)
        return plain

    def check(self) -> None:
        """Raise ConfigError for the first broken rule; rules over several sections come last."""
        for complaint in self._complaints():
            raise ConfigError(complaint)

    def _complaints(self) -> Iterator[str]:
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        parts = [value for value in values if dataclasses.is_dataclass(value)]
        if not self.reads_data:
            # Export of a recipe need not have the recipe's data on its machine.
            parts.remove(self.data)
        for part in (*parts, self):
            for entry in rules(type(part)).values():
                complaint = entry.check(part) if entry.check else None
                if complaint:
                    yield complaint

    def with_defaults(self) -> TrainingConfig:
        """Fill in the defaults that depend on other keys."""
        model = catalog.facts(self.model.name)
        weight = self.loss.auxiliary_weight
        if weight is None:
            weight = 0.0 if model.auxiliary_smallest is None else catalog.AUXILIARY_WEIGHT
        output = self.output
        if output.path is None and self.checkpoint.path is not None:
            # Not by pathlib, which would make s3:/ of s3://.
            output = OutputConfig(path=f"{self.checkpoint.path.rstrip('/')}/output")
        return replace(
            self,
            data=self.data.with_defaults(self._image_size(model, auxiliary=weight > 0)),
            loss=replace(self.loss, auxiliary_weight=weight),
            optimizer=self.optimizer.with_defaults(),
            epochs=self.epochs if self.epochs or self.max_steps else 1,
            evaluation=self.evaluation.with_defaults(),
            output=output,
        )

    def _image_size(self, model: ModelFacts, *, auxiliary: bool) -> int:
        # A network that is used and not trained takes images of the size that its weights say.
        if self.mode in MODES_BY_WEIGHTS:
            return 0
        if self.data.kind in ("Digits", *CIFAR):
            side = max(32, model.smallest_with(auxiliary))
            return side if model.fits(side) else model.image_size
        return model.image_size

    def as_the_network_evaluates(self, given: Collection[str]) -> TrainingConfig:
        """With what a network of timm was evaluated with, except for the keys that are given, by
        the user or a recipe.
        """
        if self.mode in MODES_BY_WEIGHTS or self.data.kind not in IMAGE_FILES:
            return self
        own = catalog.facts(self.model.name).evaluation
        changes = {name: own[name] for name in own if f"data.{camel(name)}" not in given}
        return replace(self, data=replace(self.data, **changes))


def from_mapping(data: Mapping[str, Any], image_folder: str | None = None) -> TrainingConfig:
    """Apply the recipe, check everything, fill in the defaults that depend on other keys.

    ``image_folder`` is the ``data.path`` of an ImageFolder that has none.
    """
    merged = sources.with_image_folder(sources.with_recipe(data), image_folder)
    config = parse(TrainingConfig, merged)
    config.check()
    written = tuple(name for name, value in flat(data).items() if value is not None)
    config = replace(config.with_defaults(), written=written)
    config = config.as_the_network_evaluates(flat(merged))
    if config.data.image_size:
        auxiliary = bool(config.loss.auxiliary_weight) and config.mode in MODES_WITH_STEPS
        catalog.check_image_size(config.model.name, config.data.image_size, auxiliary=auxiliary)
    return config


def load(
    text: str | None,
    overrides: Sequence[str] = (),
    source: str = "the configuration",
    image_folder: str | None = None,
) -> TrainingConfig:
    """Parse YAML or JSON text and ``key=value`` overrides (values are YAML); the rest as
    :func:`from_mapping`.
    """
    data = sources.read_text(text or "", source)
    for override in overrides:
        sources.override(data, override)
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
