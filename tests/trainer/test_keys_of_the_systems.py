"""Keys by which a training computes what the four systems of docs/recipes.md compute."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import trainer_ranks
from inception_trainer import device, models
from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.checkpoint.safetensors_file import encode_weights
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import IMAGENET
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping, load, merge
from inception_trainer.data.cifar import move_images
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.errors import ConfigError
from inception_trainer.train.network import build_network
from inception_trainer.train.schedule import learning_rate
from inception_trainer.train.step import OptimizerStep
from inception_trainer.weights.average import write_mean
from inception_trainer.weights.trained_network import open_trained
from trainer_ranks import TINY

DIGITS: dict[str, Any] = {"data": {"kind": "Digits"}}
ALONE, CPU = Comm(0, 1, "gloo"), torch.device("cpu")
# 48 samples in steps of 8: six steps in an epoch.
STEPS_PER_EPOCH = 6


def job(path: Path, **changes: Any) -> dict[str, Any]:
    place = {"path": str(path), "everySeconds": 0}
    return merge(merge(TINY, {"checkpoint": place}), changes)


def run_small(path: Path, config: dict[str, Any], attempt: int = 1, **options: Any) -> None:
    gang = trainer_ranks.start(path, config, 1, attempt, **options)
    assert gang.wait() == [0], gang.output()


def norms(network: nn.Module) -> set[tuple[float, float | None]]:
    return {
        (module.eps, module.momentum)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    }


def test_epsilon_and_momentum_reach_every_batch_norm() -> None:
    synthetic = {"data": {"kind": "Synthetic"}}
    network, _ = build_network(from_mapping(synthetic), 5, ALONE, CPU)
    assert norms(network) == {(1e-5, 0.1)}
    model = {"batchNormEpsilon": "0.25", "batchNormMomentum": "0.003"}
    network, _ = build_network(from_mapping({**synthetic, "model": model}), 5, ALONE, CPU)
    assert norms(network) == {(0.25, 0.003)}
    with torch.device("meta"):
        made = [models.create(name, 5) for name in ("inception_v3", "inception_v4")]
    for network in made:
        assert norms(network) == {(1e-3, 0.1)}
        models.set_batch_norm(network, epsilon=1e-5)
        assert norms(network) == {(1e-5, 0.1)}


def test_a_trained_network_has_the_epsilon_that_it_was_trained_with(tmp_path) -> None:
    """Whatever file it comes out of, unless the configuration asks for another."""
    checkpoint = {
        "format": FORMAT,
        "model": models.create("bninception", 3).state_dict(),
        "preprocessing": {**IMAGENET.as_dict(), "imageSize": 32},
        "class_names": [],
        "progress": {"step": 3},
        "batch_norm_epsilon": 0.5,
    }
    content = encode_weights(checkpoint)
    assert content is not None
    for name in ("one.pt", "two.pt"):
        torch.save(checkpoint, tmp_path / name)
    (tmp_path / "one.safetensors").write_bytes(content)
    for name in ("mean.pt", "mean.safetensors"):
        write_mean([tmp_path / "one.pt", tmp_path / "two.pt"], tmp_path / name)
    torch.save(checkpoint["model"], tmp_path / "plain.pt")
    expected = {path.name: 0.5 for path in tmp_path.iterdir()} | {"plain.pt": 1e-5}
    assert len(expected) == 6
    for name, epsilon in expected.items():
        model = {"weights": str(tmp_path / name)}
        config = from_mapping({**DIGITS, "mode": "Evaluate", "model": model})
        network, _ = open_trained(config, ALONE, CPU)
        assert norms(network) == {(epsilon, 0.1)}, name
    model = {"weights": str(tmp_path / "one.pt"), "batchNormEpsilon": "0.25"}
    config = from_mapping({**DIGITS, "mode": "Evaluate", "model": model})
    assert norms(open_trained(config, ALONE, CPU)[0]) == {(0.25, 0.1)}


def test_a_recipe_says_nothing_of_the_epsilon_of_weights_that_are_brought() -> None:
    recipe = {"recipe": "inceptionv4-imagenet", "data": {"path": "/data"}}
    assert from_mapping(recipe).model.batch_norm_epsilon == 1e-5
    brought = {**recipe, "model": {"weights": "/weights.pth"}}
    assert from_mapping(brought).model.batch_norm_epsilon is None
    assert load(json.dumps(recipe), ["mode=Evaluate"]).model.batch_norm_epsilon is None
    own = {**recipe, "model": {"weights": "/weights.pth", "batchNormEpsilon": "0.1"}}
    assert from_mapping(own).model.batch_norm_epsilon == 0.1


def deviations(network: nn.Module) -> dict[str, float]:
    return {
        name: value.std().item()
        for name, value in network.named_parameters()
        if name.endswith("weight") and value.numel() > 2000
    }


def test_timms_recipe_begins_with_timms_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = timm.create_model("inception_v3", num_classes=10)
    config = from_mapping({"recipe": "inceptionv3-imagenet-timm", "data": {"path": "/data"}})
    network, _ = build_network(config, 10, ALONE, CPU)
    own, expected = deviations(network), deviations(published)
    assert own.keys() == expected.keys()
    for weight, deviation in own.items():
        assert deviation == pytest.approx(expected[weight], rel=0.08), weight


def test_every_initialization_differs_and_none_is_the_networks_own() -> None:
    def first(initialization: str | None) -> torch.Tensor:
        torch.manual_seed(0)
        network = models.create("resnet50", 4, initialization=initialization)
        return network.get_parameter("layer1.0.conv2.weight").detach()

    drawn = {name: first(name) for name in ("PyTorch", "XavierUniform", "TruncatedNormal")}
    assert drawn["TruncatedNormal"].std().item() == pytest.approx(0.1, rel=0.02)
    assert drawn["PyTorch"].abs().max().item() <= (1 / (64 * 9)) ** 0.5
    assert drawn["XavierUniform"].abs().max().item() <= (6 / (2 * 64 * 9)) ** 0.5
    for name in (None, "KaimingNormal"):
        assert first(name).std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_a_fixed_loss_scale_stays_after_an_overflow() -> None:
    config = from_mapping({**DIGITS, "loss": {"scale": "1024"}, "optimizer": {"momentum": 0}})
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    half = device.resolve(config.accelerator, "FP16", Settings())
    step = OptimizerStep(config, network, half)
    before = network.weight.detach().clone()
    assert step.read_loss_scale() == 1024
    step.backward(network(torch.ones(1, 3)).sum() * 1e38)
    step.apply(1.0, 1)
    assert torch.equal(network.weight, before)
    assert (step.read_skipped(), step.read_loss_scale()) == (1, 1024)
    step.backward(network(torch.ones(1, 3)).sum())
    step.apply(0.5, 2)
    # The scale is taken off again: each weight's gradient is its input, 1, and the decay 0.0001.
    assert torch.allclose(network.weight, before - 0.5 * (1 + 0.0001 * before), atol=1e-6)
    assert step.read_loss_scale() == 1024
    full = device.resolve(config.accelerator, "FP32", Settings())
    assert OptimizerStep(config, network, full).read_loss_scale() is None


@pytest.mark.parametrize("name", ["inceptionv3-cifar10", "inceptionv3-cifar10-200"])
def test_the_rate_drops_in_the_epochs_in_which_the_original_drops_it(name) -> None:
    """The original calls MultiStepLR with the number of each epoch, from 1, before that epoch."""
    config = from_mapping({"recipe": name, "data": {"path": "/data"}})
    published = [round(config.epochs * share) for share in (0.3, 0.6, 0.8)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, published, gamma=0.2)
    length = LengthPlan.of(config, 50_000)
    with warnings.catch_warnings():
        # Of the order of optimizer and scheduler, and of the number that the original hands over.
        warnings.simplefilter("ignore")
        for epoch in range(2, config.epochs + 1):
            scheduler.step(epoch)
            expected = optimizer.param_groups[0]["lr"]
            for step in ((epoch - 1) * length.steps_per_epoch, epoch * length.steps_per_epoch - 1):
                assert learning_rate(0.1, config.schedule, length, step) == pytest.approx(expected)


def test_a_start_epoch_counts_the_ones_before_as_done(tmp_path) -> None:
    config = job(tmp_path, epochs=3, schedule={"startEpoch": 2})
    seen = tmp_path / "seen"
    run_small(tmp_path, config, seen=seen)
    assert sorted(trainer_ranks.seen_samples(seen)) == [(2, index) for index in range(48)]
    final = torch.load(tmp_path / "checkpoints" / "final.pt", weights_only=True)
    rates = [row[3] for row in final["progress"]["history"]["train"]]
    parsed = from_mapping(config)
    length = LengthPlan.of(parsed, 48)
    expected = [learning_rate(0.01, parsed.schedule, length, step) for step in range(12, 18)]
    assert rates == pytest.approx(expected)
    # A checkpoint knows where it is: nothing is left to do.
    run_small(tmp_path, config, attempt=2, seen=seen)
    assert len(list(trainer_ranks.seen_samples(seen))) == 48


@pytest.mark.parametrize("length", [{"epochs": 2}, {"epochs": 9, "maxSteps": 12}])
def test_a_start_epoch_that_leaves_nothing_to_do_is_refused(length) -> None:
    config = from_mapping(merge(TINY, {**length, "schedule": {"startEpoch": 2}}))
    with pytest.raises(ConfigError, match=r"schedule\.startEpoch: 2"):
        LengthPlan.of(config, 48)


def test_cifar_images_are_turned_as_far_as_asked() -> None:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8))
    draws = generator.random((64, 4))
    level = draws.copy()
    level[:, 3] = 0.5
    straight = move_images(images, draws, 0)
    assert torch.equal(straight, move_images(images, level))
    assert not torch.equal(straight, move_images(images, draws))
    assert torch.equal(move_images(images, draws), move_images(images, draws, 15))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*.pt"))


@pytest.mark.timeout(200)
def test_checkpoints_of_every_nth_epoch_are_kept(tmp_path) -> None:
    keys = {"keep": 1, "everyEpochs": 1, "keepEveryEpochs": 2}
    config = job(tmp_path, epochs=5, evaluation={"everySteps": 1000})
    config = merge(config, {"checkpoint": keys, "model": {"batchNormEpsilon": 0.01}})
    run_small(tmp_path, {**config, "maxSteps": 3 * STEPS_PER_EPOCH})
    assert names(tmp_path) == ["best.pt", "epoch-000002.pt", "final.pt", "step-000000018.pt"]
    run_small(tmp_path, config, attempt=2)
    kept = ["best.pt", "epoch-000002.pt", "epoch-000004.pt", "final.pt", "step-000000030.pt"]
    assert names(tmp_path) == kept
    for epoch in (2, 4):
        path = tmp_path / "checkpoints" / f"epoch-{epoch:06d}.pt"
        saved = torch.load(path, weights_only=True)
        assert saved["progress"]["step"] == epoch * STEPS_PER_EPOCH
        assert saved["batch_norm_epsilon"] == 0.01
        assert path.with_name(f"{path.name}.sha256").read_text().split()[1] == path.name


@pytest.mark.timeout(200)
def test_every_epoch_is_saved_where_that_is_asked_for(tmp_path) -> None:
    config = job(tmp_path, epochs=4, evaluation={"everySteps": 1000})
    config = merge(config, {"checkpoint": {"keep": 9, "everyEpochs": 2}})
    run_small(tmp_path, config)
    assert names(tmp_path) == ["best.pt", "final.pt", "step-000000012.pt", "step-000000024.pt"]
