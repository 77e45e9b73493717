"""For each rule of the trainer's configuration trainings that break it, each beside the nearest one
that does not. Trainer and API server are both asked about them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from inception_trainer.config.declare import Rule, camel, rules
from inception_trainer.config.training import TrainingConfig

Training = dict[str, Any]


def _sections() -> dict[str, type[Any]]:
    """The classes that hold rules, by the key that they are written below."""
    whole = TrainingConfig()
    values = {camel(field.name): getattr(whole, field.name) for field in dataclasses.fields(whole)}
    parts = {name: type(value) for name, value in values.items() if dataclasses.is_dataclass(value)}
    return {"": TrainingConfig, **parts}


SECTIONS = _sections()
RULES: dict[str, tuple[str, Rule[Any]]] = {
    name: (section, rule)
    for section, kind in SECTIONS.items()
    for name, rule in rules(kind).items()
}
"""Section and rule, by the name of the rule."""


def part_of(section: str, training: Training) -> Any:
    """What a rule of the section looks at; None where the section is not there."""
    return training.get(section) if section else training


@dataclass(frozen=True)
class Example:
    rule: str
    broken: Training
    mended: Training

    def __str__(self) -> str:
        keys = (str(key) for key in self.broken)
        return f"{self.rule}-{'-'.join(keys)}"


def _keys(rule: str, broken: Training, mended: Training) -> Example:
    """Keys of the rule's section beside data that are there."""
    section, _ = RULES[rule]
    digits = {"data": {"kind": "Digits"}}
    return Example(rule, {**digits, section: broken}, {**digits, section: mended})


def _beside(rule: str, broken: Training, mended: Training) -> Example:
    """Keys of several sections beside data that are there."""
    digits = {"data": {"kind": "Digits"}}
    return Example(rule, digits | broken, digits | mended)


def _data(rule: str, broken: Training, mended: Training) -> Example:
    return Example(rule, {"data": broken}, {"data": mended})


def _synchronized(key: str, broken: Any, mended: Any) -> tuple[Training, Training]:
    model = {"model": {"batchNorm": "Synchronized"}}
    return {**model, key: broken}, {**model, key: mended}


def _latencies(inference: Training) -> Training:
    return {"mode": "Infer", "inference": {"format": "None", **inference}}


FILES: Training = {"kind": "ImageFolder", "path": "/d"}
EXAMPLES = [
    Example(
        "filling_needs_room",
        {"data": {"kind": "WebDataset", "path": "/d", "cache": {"fill": "Shards"}}},
        {
            "data": {
                "kind": "WebDataset",
                "path": "/d",
                "cache": {"fill": "Shards", "diskMebibytes": 5},
            }
        },
    ),
    Example(
        "only_shards_are_fetched_whole",
        {"data": FILES | {"cache": {"fill": "Shards", "memoryMebibytes": 5}}},
        {"data": FILES | {"cache": {"fill": "OnRead", "memoryMebibytes": 5}}},
    ),
    Example(
        "files_need_a_place",
        {"mode": "Export", "output": {"path": None}},
        {"mode": "Export", "output": {"path": "/o"}},
    ),
    _beside(
        "files_need_a_place",
        {"profiler": {"steps": 1}, "output": {"path": None}},
        {"profiler": {"steps": 1}, "checkpoint": {"path": "/c"}},
    ),
    _beside(
        "files_need_a_place",
        {"tracking": {"wandb": {"project": "p"}}, "output": {"path": None}},
        {"tracking": {"wandb": {"project": "p"}}, "checkpoint": {"path": "/c"}},
    ),
    _keys(
        "mlflow_is_a_server_or_a_folder",
        {"mlflow": {"uri": "https://me:secret@mlflow"}},
        {"mlflow": {"uri": "https://mlflow"}},
    ),
    Example(
        "export_needs_a_format",
        {"mode": "Export", "export": {"formats": []}},
        {"mode": "Export", "export": {"formats": ["ONNX"]}},
    ),
    _beside(
        "largest_batch_needs_ranks_apart",
        *_synchronized("benchmark", {"batch": "Largest"}, {"batch": "Configured"}),
    ),
    Example("samples_need_a_kind", {}, {"data": {"kind": "Digits"}}),
    Example(
        "samples_need_a_kind",
        {"mode": "Infer", "inference": {"topClasses": 3}},
        {"mode": "Infer", "inference": {"path": "/images"}},
    ),
    _beside(
        "auxiliary_weight_needs_its_head",
        {"model": {"name": "resnet50"}, "loss": {"auxiliaryWeight": "0.3"}},
        {"model": {"name": "inception_v3"}, "loss": {"auxiliaryWeight": "0.3"}},
    ),
    _beside(
        "auxiliary_weight_needs_its_head",
        {"loss": {"auxiliaryWeight": "0.3"}},
        {"loss": {"auxiliaryWeight": "0"}},
    ),
    _beside(
        "compiled_ranks_do_not_synchronize",
        *_synchronized("execution", "Compiled", "Eager"),
    ),
    _beside(
        "square_decay_and_epsilon_need_squares",
        {"optimizer": {"epsilon": "1.0"}},
        {"optimizer": {"epsilon": "1.0", "name": "RMSProp"}},
    ),
    _beside(
        "square_decay_and_epsilon_need_squares",
        {"optimizer": {"squareDecay": "0.9", "name": "SGD"}},
        {"optimizer": {"squareDecay": "0.9", "name": "AdamW"}},
    ),
    _beside(
        "trust_coefficient_needs_lars",
        {"optimizer": {"trustCoefficient": "0.001", "name": "LAMB"}},
        {"optimizer": {"trustCoefficient": "0.001", "name": "LARS"}},
    ),
    Example("measuring_needs_batch_sizes", _latencies({}), _latencies({"batchSizes": [1]})),
    _beside(
        "profiler_needs_steps",
        {"mode": "Evaluate", "profiler": {"steps": 3}},
        {"mode": "Benchmark", "profiler": {"steps": 3}},
    ),
    _beside(
        "rates_stay_below_the_peak",
        {"schedule": {"finalLearningRate": "0.2"}},
        {"schedule": {"finalLearningRate": "0.2"}, "optimizer": {"learningRate": "0.3"}},
    ),
    _keys(
        "new_classifier_needs_weights",
        {"classifier": "New"},
        {"classifier": "New", "weights": "/w.pt"},
    ),
    _keys(
        "frozen_layers_need_weights",
        {"batchNorm": "Frozen"},
        {"batchNorm": "Frozen", "weights": "/w.pt"},
    ),
    _keys("frozen_layers_need_weights", {"freeze": ["conv1"]}, {}),
    _keys(
        "dropout_needs_a_network_with_it",
        {"name": "resnet50", "dropout": "0.3"},
        {"name": "inception_v3", "dropout": "0.3"},
    ),
    *(
        _data("files_need_a_path", {"kind": kind}, {"kind": kind, "path": "/data"})
        for kind in ("ImageFolder", "ImageList", "WebDataset", "Cifar10", "Cifar100")
    ),
    _data(
        "shards_belong_to_webdataset",
        {"kind": "ImageFolder", "path": "/d", "trainShards": "a.tar"},
        {"kind": "WebDataset", "path": "/d", "trainShards": "a.tar"},
    ),
    _data(
        "shards_belong_to_webdataset",
        {"kind": "Digits", "labelKey": "label"},
        {"kind": "WebDataset", "path": "/d", "labelKey": "label"},
    ),
    _data(
        "shards_have_a_name",
        {"kind": "WebDataset", "path": "/d", "valShards": ""},
        {"kind": "WebDataset", "path": "/d"},
    ),
    _data(
        "only_files_are_held_out",
        {"kind": "Digits", "heldOutShare": "0.1"},
        {"kind": "Cifar10", "path": "/d", "heldOutShare": "0.1"},
    ),
    _data(
        "one_key_says_what_is_evaluated",
        {"kind": "WebDataset", "path": "/d", "heldOutShare": "0.1", "valShards": "b.tar"},
        {"kind": "WebDataset", "path": "/d", "heldOutShare": "0.1", "trainShards": "b.tar"},
    ),
    _data(
        "synthetic_images_are_not_scaled",
        {"kind": "Synthetic", "interpolation": "Nearest"},
        {"kind": "Synthetic", "interpolation": "Bilinear"},
    ),
    _keys(
        "nesterov_needs_momentum",
        {"nesterov": True, "momentum": "0"},
        {"nesterov": True, "momentum": "0.1"},
    ),
    _keys(
        "nesterov_needs_sgd",
        {"name": "RMSProp", "nesterov": True},
        {"name": "RMSProp", "nesterov": False},
    ),
    _keys(
        "nesterov_needs_sgd",
        {"name": "AdamW", "nesterov": True},
        {"name": "SGD", "nesterov": True},
    ),
    _keys("steps_need_epochs", {"name": "Step"}, {"name": "Step", "stepEpochs": 3}),
    _keys(
        "one_kind_of_steps",
        {"name": "Step", "milestones": [3], "stepEpochs": 3},
        {"name": "Step", "milestones": [3]},
    ),
    _keys(
        "final_rate_needs_a_falling_schedule",
        {"name": "Constant", "finalLearningRate": "0.001"},
        {"name": "Linear", "finalLearningRate": "0.001"},
    ),
    _keys(
        "initial_rate_needs_a_warmup",
        {"initialLearningRate": "0.001"},
        {"initialLearningRate": "0.001", "warmupEpochs": 1},
    ),
    _keys("one_rhythm", {"everyEpochs": 2, "everySteps": 100}, {"everySteps": 100}),
    _keys("after_steps_needs_steps", {"afterSteps": 3}, {"afterSteps": 3, "steps": 1}),
]
API_EXAMPLES = [example for example in EXAMPLES if RULES[example.rule][1].api is not None]
