"""The configuration: every mistake names the key, the value and the remedy."""

import dataclasses
import json

import pytest

from inception_trainer import recipes
from inception_trainer.config import catalog
from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import (
    TrainingConfig,
    from_mapping,
    load,
    load_file,
)
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.errors import ConfigError, InputMissing
from inception_trainer.train.schedule import learning_rate

DIGITS = {"data": {"kind": "Digits"}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"data": {"kind": "Digits"}, "epoch": 3}, ["epoch: unknown key", "did you mean epochs?"]),
        ({**DIGITS, "batch": {"globl": 3}}, ["batch.globl: unknown key", "did you mean global?"]),
        ({**DIGITS, "optimizer": {"learningrate": 1}}, ["optimizer.learningrate", "learningRate"]),
        (
            {**DIGITS, "optimizer": {"learningRate": "fast"}},
            ["optimizer.learningRate", "'fast'", "decimal"],
        ),
        (
            {**DIGITS, "optimizer": {"learningRate": 0}},
            ["optimizer.learningRate", "greater than 0"],
        ),
        ({**DIGITS, "optimizer": {"learningRate": ".nan"}}, ["optimizer.learningRate"]),
        ({**DIGITS, "optimizer": {"momentum": 1}}, ["optimizer.momentum", "less than 1"]),
        (
            {**DIGITS, "optimizer": {"nesterov": "yes"}},
            ["optimizer.nesterov", "'yes'", "true nor false"],
        ),
        (
            {**DIGITS, "optimizer": {"nesterov": True, "momentum": 0}},
            ["optimizer.nesterov", "momentum"],
        ),
        ({**DIGITS, "optimizer": []}, ["optimizer", "not a mapping"]),
        ({**DIGITS, "epochs": 1.5}, ["epochs", "1.5", "whole number"]),
        ({**DIGITS, "epochs": True}, ["epochs", "True", "whole number"]),
        ({**DIGITS, "epochs": 0}, ["epochs", "at least 1"]),
        ({**DIGITS, "seed": -1}, ["seed", "at least 0"]),
        (
            {**DIGITS, "precision": "bf16"},
            ["precision", "'bf16'", "did you mean BF16?", "Auto, FP32, TF32, BF16"],
        ),
        ({**DIGITS, "schedule": {"name": "Cosin"}}, ["schedule.name", "did you mean Cosine?"]),
        ({**DIGITS, "schedule": {"name": "Step"}}, ["schedule.milestones", "stepEpochs"]),
        ({**DIGITS, "schedule": {"milestones": 3}}, ["schedule.milestones", "not a list"]),
        ({**DIGITS, "schedule": {"milestones": [1, "x"]}}, ["schedule.milestones[1]", "'x'"]),
        (
            {**DIGITS, "mode": "Evaluat"},
            ["mode", "did you mean Evaluate?", "Train, Evaluate, Benchmark"],
        ),
        ({**DIGITS, "data": {"kind": "digits"}}, ["data.kind", "did you mean Digits?"]),
        (
            {"mode": "Infer", "inference": {"format": "None"}},
            ["inference.batchSizes", "nothing else to do"],
        ),
        (
            {"mode": "Infer", "inference": {"path": "/p"}},
            ["output.path", "mode Infer", "spec.checkpoint"],
        ),
        ({"mode": "Infer", "output": {"path": "/o"}}, ["data.kind: missing"]),
        ({"mode": "Export"}, ["output.path", "mode Export"]),
        (
            {"mode": "Export", "output": {"path": "/o"}, "export": {"formats": []}},
            ["export.formats: empty"],
        ),
        (
            {"mode": "Export", "output": {"path": "/o"}, "export": {"formats": ["MINDIR"]}},
            ["export.formats[0]", "PT2, ONNX, TorchScript, Safetensors"],
        ),
        ({**DIGITS, "data": {"kind": "Digits", "workers": 65}}, ["data.workers", "at most 64"]),
        ({"data": {"kind": "ImageFolder"}}, ["data.path", "train/", "IMAGENET_TRAIN_DATASET"]),
        (
            {**DIGITS, "model": {"name": "resnet"}},
            ["model.name", "'resnet'", "did you mean resnet50?"],
        ),
        ({**DIGITS, "model": {"classifier": "New"}}, ["model.classifier", "model.weights"]),
        (
            {"data": {"kind": "Digits", "normalization": "imagenet"}},
            ["data.normalization", "ImageNet"],
        ),
        (
            {**DIGITS, "loss": {"auxiliaryWeight": "0.4"}},
            ["loss.auxiliaryWeight", "bninception", "inception_v3"],
        ),
        ({**DIGITS, "loss": {"auxiliaryWeight": -1}}, ["loss.auxiliaryWeight", "at least 0"]),
        ({"data": {"kind": "Digits", "imageSize": 31}}, ["data.imageSize", "31", "bninception"]),
        (
            {"data": {"kind": "Digits", "imageSize": 75}, "model": {"name": "inception_v3"}},
            ["data.imageSize", "75", "auxiliary head", "loss.auxiliaryWeight to 0"],
        ),
        ({**DIGITS, "model": {"dropout": "0.3"}}, ["model.dropout", "bninception has no dropout"]),
        (
            {"data": {"kind": "Digits", "evaluationCropRatio": 0}},
            ["data.evaluationCropRatio", "greater than 0"],
        ),
        (
            {"data": {"kind": "Digits", "interpolation": "Cubic"}},
            ["data.interpolation", "did you mean Bicubic?"],
        ),
        (
            {"data": {"kind": "Synthetic", "interpolation": "Nearest"}},
            ["data.interpolation", "Synthetic are made at their size", "leave it out"],
        ),
        (
            {**DIGITS, "schedule": {"initialLearningRate": 0.01}},
            ["schedule.initialLearningRate", "warmupEpochs"],
        ),
        (
            {**DIGITS, "schedule": {"name": "Constant", "finalLearningRate": 0.01}},
            ["schedule.finalLearningRate", "only Cosine, Linear and Polynomial"],
        ),
        (
            {**DIGITS, "evaluation": {"everyEpochs": 2, "everySteps": 9}},
            ["evaluation.everySteps", "everyEpochs"],
        ),
        (
            {**DIGITS, "benchmark": {"batch": "Largest"}, "model": {"batchNorm": "Synchronized"}},
            ["benchmark.batch", "PerRank"],
        ),
        (
            {**DIGITS, "schedule": {"finalLearningRate": 0.2}},
            ["schedule.finalLearningRate: 0.2 is above", "optimizer.learningRate 0.1"],
        ),
        (
            {**DIGITS, "augmentation": {"colorJitter": {"contrast": 1.5}}},
            ["augmentation.colorJitter.contrast"],
        ),
        (
            {**DIGITS, "augmentation": {"randAugment": {"magnitude": 11}}},
            ["augmentation.randAugment.magnitude", "10"],
        ),
        ({}, ["data.kind", "missing", "recipe"]),
        (
            {"recipe": "bninception-digit"},
            ["recipe", "did you mean bninception-digits?", "bninception-imagenet"],
        ),
        ({"recipe": 3}, ["recipe", "not a text"]),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_mistakes(data, words) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(data)
    assert caught.value.exit_code == 78
    for word in words:
        assert word in str(caught.value)


def test_decimals_may_be_strings() -> None:
    text = from_mapping({**DIGITS, "optimizer": {"learningRate": "0.05"}, "epochs": "3"})
    number = from_mapping({**DIGITS, "optimizer": {"learningRate": 0.05}, "epochs": 3})
    assert text == number


def test_defaults_follow_the_table() -> None:
    config = from_mapping(DIGITS)
    assert (config.mode, config.model.name, config.precision, config.seed) == (
        "Train",
        "bninception",
        "Auto",
        0,
    )
    assert (config.data.image_size, config.data.workers, config.data.samples) == (32, 0, 1024)
    assert (config.batch.global_, config.batch.per_device, config.epochs, config.max_steps) == (
        64,
        None,
        1,
        None,
    )
    optimizer = config.optimizer
    assert (
        optimizer.name,
        optimizer.learning_rate,
        optimizer.momentum,
        optimizer.weight_decay,
    ) == (
        "SGD",
        0.1,
        0.9,
        0.0001,
    )
    assert (config.schedule.name, config.schedule.warmup_epochs, config.loss.label_smoothing) == (
        "Cosine",
        0,
        0,
    )
    assert (config.evaluation.every_epochs, config.log_every_steps) == (1, 10)
    checkpoint = config.checkpoint
    assert (checkpoint.path, checkpoint.every_steps, checkpoint.every_seconds, checkpoint.keep) == (
        None,
        None,
        60,
        3,
    )
    accelerator = config.accelerator
    assert (accelerator.profile, accelerator.module, accelerator.device, accelerator.backend) == (
        None,
        None,
        None,
        None,
    )
    assert from_mapping({"data": {"kind": "Synthetic"}}).data.image_size == 224
    assert from_mapping({"data": {"kind": "ImageFolder", "path": "/data"}}).data.workers is None


@pytest.mark.parametrize(
    ("name", "photo", "digit"),
    [
        ("bninception", 224, 32),
        ("inception_v2", 224, 32),
        ("inception_v3", 299, 299),
        ("inception_v4", 299, 75),
        ("inceptionv3_cifar", 32, 32),
        ("resnet50", 224, 32),
    ],
)
def test_image_size_follows_the_network(name, photo, digit) -> None:
    for kind, side in (("Synthetic", photo), ("Digits", digit)):
        config = from_mapping({"model": {"name": name}, "data": {"kind": kind}})
        assert config.data.image_size == side
        assert config.loss.auxiliary_weight == (0.4 if name == "inception_v3" else 0)


def test_without_its_auxiliary_head_inception_v3_takes_small_images() -> None:
    config = from_mapping(
        {"model": {"name": "inception_v3"}, **DIGITS, "loss": {"auxiliaryWeight": "0"}}
    )
    assert (config.data.image_size, config.loss.auxiliary_weight) == (75, 0)


def test_output_goes_below_the_checkpoints() -> None:
    assert from_mapping({**DIGITS, "checkpoint": {"path": "/job"}}).output.path == "/job/output"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"data": {"kind": "ImageFolder"}}, "/variable"),
        ({"data": {"kind": "ImageFolder", "path": None}}, "/variable"),
        ({"recipe": "bninception-imagenet"}, "/variable"),
        ({"recipe": "bninception-imagenet", "data": {"path": "/own"}}, "/own"),
        ({"recipe": "bninception-imagenet", "data": {"kind": "Synthetic"}}, None),
        ({"data": {"kind": "Digits"}}, None),
    ],
    ids=["kind", "null", "recipe", "own-path", "another-kind", "digits"],
)
def test_the_variable_names_the_image_folder_where_nothing_else_does(data, path) -> None:
    assert load(json.dumps(data), image_folder="/variable").as_dict()["data"].get("path") == path


@pytest.mark.parametrize("kind", ["ImageList", "WebDataset", "Cifar10"])
def test_the_variable_is_for_image_folders_only(kind) -> None:
    with pytest.raises(ConfigError, match=r"data\.path: missing"):
        load(json.dumps({"data": {"kind": kind}}), image_folder="/variable")


def test_a_training_goes_on_when_the_variable_takes_the_place_of_the_path() -> None:
    named = from_mapping({"data": {"kind": "ImageFolder", "path": "/images"}})
    assert fingerprint(named) == fingerprint(
        from_mapping({"data": {"kind": "ImageFolder"}}, "/images")
    )


def test_round_trip() -> None:
    config = from_mapping({"recipe": "bninception-imagenet", "data": {"path": "/data"}, "seed": 4})
    assert from_mapping(json.loads(json.dumps(config.as_dict()))) == config


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_mapping(DIGITS).seed = 3  # type: ignore[misc]


def test_recipe_is_a_base_that_keys_override() -> None:
    config = load(
        "recipe: bninception-imagenet\ndata: {path: /data}\noptimizer: {learningRate: 0.1}",
        ["epochs=3"],
    )
    assert (config.epochs, config.optimizer.learning_rate, config.optimizer.momentum) == (
        3,
        0.1,
        0.9,
    )
    assert (config.batch.global_, config.schedule.step_epochs, config.data.kind) == (
        512,
        30,
        "ImageFolder",
    )


@pytest.mark.parametrize(
    ("name", "epochs", "drops"),
    [("inceptionv3-cifar10", 50, (14, 29, 39)), ("inceptionv3-cifar10-200", 200, (59, 119, 159))],
)
def test_cifar10_recipes_have_the_published_values(name, epochs, drops) -> None:
    config = from_mapping({"recipe": name, "data": {"path": "/data"}})
    assert (config.model.name, config.data.kind, config.data.image_size) == (
        "inceptionv3_cifar",
        "Cifar10",
        32,
    )
    assert (config.batch.global_, config.epochs, config.schedule.milestones) == (128, epochs, drops)
    assert (config.schedule.name, config.schedule.gamma, config.schedule.warmup_epochs) == (
        "Step",
        0.2,
        1,
    )
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (
        0.1,
        0.9,
        0.0005,
    )
    assert not optimizer.nesterov
    assert "pytorch-cifar100" in recipes.summary(name)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_valid(name) -> None:
    assert isinstance(from_mapping({"recipe": name, "data": {"path": "/data"}}), TrainingConfig)
    assert recipes.summary(name)


def test_every_network_has_a_recipe_for_digits() -> None:
    configs = [
        from_mapping({"recipe": name}) for name in recipes.names() if name.endswith("-digits")
    ]
    assert {config.data.kind for config in configs} == {"Digits"}
    assert sorted(config.model.name for config in configs) == sorted(catalog.MODELS)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just text"])
def test_documents_that_are_no_mapping(text) -> None:
    with pytest.raises(ConfigError, match=r"INCEPTION_CONFIG"):
        load(text, source="INCEPTION_CONFIG")


@pytest.mark.parametrize("override", ["epochs", "=3", "epochs.x=3"])
def test_bad_overrides(override) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load("recipe: bninception-digits\nepochs: 2", [override])


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputMissing, match=r"none\.yaml"):
        load_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"seed": 1}, True),
        ({"epochs": 9}, True),
        ({"batch": {"global": 32}}, True),
        ({"model": {"name": "inception_v2"}}, True),
        ({"loss": {"labelSmoothing": 0.1}}, True),
        ({"data": {"kind": "Digits", "normalization": "ImageNet"}}, True),
        ({"schedule": {"warmupEpochs": 1}}, True),
        ({"schedule": {"finalLearningRate": 0.01}}, True),
        ({"augmentation": {"colorJitter": {"brightness": 0.1}}}, True),
        ({"data": {"kind": "Digits", "imageSize": 64}}, True),
        ({"data": {"kind": "Digits", "workers": 3}}, False),
        ({"batch": {"perDevice": 8}}, False),
        ({"logEverySteps": 3}, False),
        ({"checkpoint": {"keep": 9}}, False),
        ({"evaluation": {"everySteps": 9, "maxSamples": 5}}, False),
        ({"precision": "BF16"}, False),
        ({"maxSteps": 5, "epochs": 1}, False),
    ],
    ids=str,
)
def test_fingerprint(change, counts) -> None:
    assert (
        fingerprint(from_mapping(DIGITS)) != fingerprint(from_mapping(DIGITS | change))
    ) == counts


@pytest.mark.parametrize(
    ("name", "epochs", "mixup"),
    [
        ("resnet50-imagenet", 90, None),
        ("resnet50-imagenet-50e", 50, None),
        ("resnet50-imagenet-250e", 250, 0.2),
    ],
)
def test_resnet_recipes_have_the_values_of_the_scripts(name, epochs, mixup) -> None:
    config = from_mapping({"recipe": name, "data": {"path": "/data"}})
    assert (config.model.name, config.data.image_size, config.batch.global_) == (
        "resnet50",
        224,
        2048,
    )
    assert (config.epochs, config.augmentation.mixup, config.loss.label_smoothing) == (
        epochs,
        mixup,
        0.1,
    )
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.nesterov) == (
        2.048,
        0.875,
        False,
    )
    assert (optimizer.weight_decay, optimizer.decay_exempt) == (1 / 32768, "Norm")
    length = LengthPlan.of(config, 1_281_167)
    assert length.steps_per_epoch == 625
    rates = [
        learning_rate(optimizer.learning_rate, config.schedule, length, epoch * 625)
        for epoch in (8, epochs)
    ]
    assert rates == pytest.approx([2.048, 0.0])


MINDSPORE = {
    "decay_exempt": "NormAndBias",
    "weight_decay": 4e-5,
    "square_decay": 0.9,
    "epsilon": 1.0,
    "momentum": 0.9,
}


@pytest.mark.parametrize(
    ("name", "model", "norm", "precision", "loss"),
    [
        ("inceptionv4-imagenet", "inception_v4", (1e-5, 0.003), "FP16", (0.0, 0.0, 1024)),
        ("inceptionv4-imagenet-gpu", "inception_v4", (1e-5, 0.003), "FP32", (0.0, 0.0, None)),
        ("inceptionv3-imagenet", "inception_v3", (1e-3, 0.0003), "FP16", (0.1, 0.2, 1024)),
    ],
)
def test_mindspore_recipes_have_the_published_values(name, model, norm, precision, loss) -> None:
    config = from_mapping({"recipe": name, "data": {"path": "/data"}})
    assert (config.model.batch_norm_epsilon, config.model.batch_norm_momentum) == norm
    assert (config.model.name, config.precision, config.batch.global_, config.epochs) == (
        model,
        precision,
        1024,
        250,
    )
    assert (config.data.image_size, config.data.evaluation_crop_ratio) == (299, 1)
    assert (
        config.loss.label_smoothing,
        config.loss.auxiliary_weight,
        config.loss.scale,
    ) == loss
    assert {key: getattr(config.optimizer, key) for key in MINDSPORE} == MINDSPORE
    jitter = config.augmentation.color_jitter
    assert (jitter.brightness, jitter.contrast, jitter.saturation) == (0.4, 0.4, 0.4)
    length = LengthPlan.of(config, 1_281_167)
    per_epoch = length.steps_per_epoch
    assert per_epoch == 1251
    steps = (0, per_epoch - 1, per_epoch, per_epoch * 250)
    rates = [
        learning_rate(config.optimizer.learning_rate, config.schedule, length, step)
        for step in steps
    ]
    assert rates == pytest.approx([4e-5 + (0.4 - 4e-5) / per_epoch, 0.4, 0.4, 4e-6])


def test_timm_recipes_have_the_values_of_the_scripts() -> None:
    three, four = (
        from_mapping({"recipe": f"inception{name}-imagenet-timm", "data": {"path": "/data"}})
        for name in ("v3", "v4")
    )
    assert (three.model.dropout, three.batch.global_, three.epochs, three.optimizer.nesterov) == (
        0,
        4 * 64,
        200,
        True,
    )
    assert (three.optimizer.learning_rate, three.optimizer.weight_decay) == (0.045, 4e-5)
    assert (four.batch.global_, four.epochs, four.weight_average.decay) == (8 * 200, 300, 0.9999)
    assert (four.optimizer.name, four.optimizer.epsilon, four.optimizer.weight_decay) == (
        "RMSProp",
        0.001,
        1e-5,
    )
    assert (three.model.initialization, four.model.initialization) == ("TruncatedNormal", "PyTorch")
    for config in (three, four):
        changes = config.augmentation.rand_augment
        assert (changes.magnitude, changes.deviation, config.data.normalization) == (
            9,
            0.5,
            "Inception",
        )
        assert config.data.interpolation == "Bicubic"
        # A benchmark of the recipe on synthetic data has nothing to scale.
        synthetic = from_mapping({"recipe": config.recipe, "data": {"kind": "Synthetic"}})
        assert synthetic.data.interpolation == "Bilinear"
    assert (three.augmentation.random_erasing, four.augmentation.random_erasing) == (None, 0.2)
    length = LengthPlan.of(four, 1_281_167)
    after = [3 * length.steps_per_epoch, round(5.4 * length.steps_per_epoch)]
    rates = [learning_rate(0.0224, four.schedule, length, step) for step in after]
    assert rates == pytest.approx([0.0224, 0.0224 * 0.973], rel=1e-4)
