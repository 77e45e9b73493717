"""AdamW, frozen layers and slower layers: each against a plain calculation, and exact resume."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainer_ranks
from inception_trainer import device, models
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import ModelConfig, from_mapping, merge
from inception_trainer.errors import ConfigError
from inception_trainer.models.blocks import depths
from inception_trainer.train.freezing import FrozenBatchNorm, freeze
from inception_trainer.train.optimizers import STATE_PARTS, make_optimizer, parameter_groups
from inception_trainer.train.step import OptimizerStep
from inception_trainer.train.syncnorm import synchronize_batch_norms
from trainer_ranks import TINY, assert_equal, final

ALONE, CPU = Comm(0, 1, "gloo"), torch.device("cpu")
DIGITS: dict[str, Any] = {"data": {"kind": "Digits"}}


def test_adamw_by_hand() -> None:
    config = from_mapping(
        {**DIGITS, "optimizer": {"name": "AdamW", "learningRate": 0.1, "weightDecay": 0.5}}
    )
    assert (config.optimizer.square_decay, config.optimizer.epsilon) == (0.999, 1e-8)
    network = nn.Linear(1, 1, bias=False)
    full = device.resolve(config.accelerator, "FP32", Settings())
    step = OptimizerStep(config, network, full)
    weight, mean, square = network.weight.item(), 0.0, 0.0
    for number, gradient in enumerate((2.0, -1.0, 0.5), 1):
        step.backward(network(torch.ones(1, 1)).sum() * gradient)
        step.apply(0.1, number)
        weight *= 1 - 0.1 * 0.5
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**number), square / (1 - 0.999**number)
        weight -= 0.1 * unbiased[0] / (math.sqrt(unbiased[1]) + 1e-8)
        assert network.weight.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("name", ["bninception", "inception_v3", "inception_v4", "resnet50"])
def test_blocks_go_from_the_first_layer_to_the_classifier(name) -> None:
    with torch.device("meta"):
        network = models.create(name, 5, auxiliary=name == "inception_v3")
    found = depths(network)
    names = [key for key, _ in network.named_parameters() if not key.startswith("AuxLogits")]
    order = [found[key] for key in names]
    assert order == sorted(order, reverse=True)
    expected = {"bninception": 13, "inception_v3": 17, "inception_v4": 23, "resnet50": 6}
    # Without gaps.
    assert sorted(set(order)) == list(range(expected[name]))
    heads = {key.partition(".")[0] for key, depth in found.items() if depth == 0}
    assert heads <= {"last_linear", "fc", "AuxLogits"}


def test_blocks_learn_more_slowly_the_earlier_they_are() -> None:
    config = from_mapping(
        {**DIGITS, "model": {"name": "resnet50"}, "optimizer": {"layerDecay": "0.5"}}
    )
    with torch.device("meta"):
        network = models.create("resnet50", 5)
    optimizer = make_optimizer(config.optimizer, network, CPU)
    factors = {
        id(parameter): group["rate_factor"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {name: factors[id(value)] for name, value in network.named_parameters()}
    assert by_name["fc.bias"] == 1
    assert by_name["layer4.2.conv3.weight"] == 0.5
    assert by_name["layer1.0.bn1.weight"] == 0.5**4
    assert by_name["conv1.weight"] == by_name["bn1.bias"] == 0.5**5


def test_the_rate_of_a_block_is_its_share_of_the_schedules() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.first(x) + self.last(x)
            return out

    optimizer = {"layerDecay": "0.25", "momentum": 0, "weightDecay": 0}
    config = from_mapping({**DIGITS, "optimizer": optimizer})
    network = Two()
    before = [value.item() for value in network.parameters()]
    step = OptimizerStep(config, network, device.resolve(config.accelerator, "FP32", Settings()))
    step.backward(network(torch.ones(1, 1)).sum())
    step.apply(0.8, 1)
    moved = [old - new.item() for old, new in zip(before, network.parameters(), strict=True)]
    assert moved == pytest.approx([0.2, 0.8])


def frozen_resnet(**keys: Any) -> nn.Module:
    network = models.create("resnet50", 5)
    freeze(network, ModelConfig(name="resnet50", weights="/w", **keys))
    return network


def test_what_is_frozen_has_no_gradient_and_keeps_its_statistics() -> None:
    network = frozen_resnet(freeze=("conv1", "bn1", "layer1"))
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    assert frozen == {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("conv1.", "bn1.", "layer1."))
    }
    groups = parameter_groups(network, 0.1, "Norm")
    assert sum(len(group["params"]) for group in groups) == 161 - len(frozen)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.eval()
    network.train()
    network(torch.randn(2, 3, 32, 32))
    changed = {
        name for name, value in network.named_buffers() if not torch.equal(value, before[name])
    }
    assert changed
    assert not any(name.startswith(("bn1.", "layer1.")) for name in changed)


def test_batch_norm_that_is_frozen_computes_what_evaluation_does() -> None:
    network = frozen_resnet(batch_norm="Frozen")
    assert all(value.requires_grad for value in network.parameters())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.train()(images), network.eval()(images))


def test_a_frozen_norm_that_holds_an_activation_keeps_it() -> None:
    network = models.create("timm/test_efficientnet", 5)
    images = torch.randn(2, 3, 160, 160)
    expected = network.eval()(images)
    freeze(network, ModelConfig(name="timm/test_efficientnet", batch_norm="Frozen"))
    network.train()
    assert not any(norm.training for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
    # Nothing else of it differs between training and evaluation.
    assert torch.equal(copy.deepcopy(network)(images), expected)


def test_a_frozen_norm_is_not_synchronized() -> None:
    network = frozen_resnet(batch_norm="Frozen")
    synchronize_batch_norms(network, torch.device("cpu"))
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {FrozenBatchNorm}


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [(("layre1",), "layer1"), (("conv", "bn", "layer", "fc"), "nothing is left")],
)
def test_wrong_names_are_refused(prefixes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        frozen_resnet(freeze=prefixes)


def config(path: Path, **changes: Any) -> dict[str, Any]:
    return merge(TINY, {"checkpoint": {"path": str(path), "everySeconds": 0}, **changes})


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "bninception.pth"
    torch.save(models.create("bninception", 4).state_dict(), path)
    return path


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_four_steps_and_four_more_are_eight(tmp_path, weights) -> None:
    world = 2
    model = {"weights": str(weights), "freeze": ["conv", "inception_3"]}
    change = {
        "optimizer": {"name": "AdamW", "layerDecay": 0.9, "learningRate": 0.001},
        "model": model,
        "data": {"samples": 32},
        "augmentation": {"cutMix": 1, "mixup": 0.4, "mixOffEpochs": 1, "trivialAugment": True},
        "loss": {"name": "BinaryCrossEntropy", "classWeights": [1, 2, 0.5, 1]},
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for attempt, path, steps in ((1, whole, 8), (1, parts, 4), (2, parts, 8)):
        job = config(path, maxSteps=steps, **change)
        gang = trainer_ranks.start(path, job, world, attempt, small=False)
        assert gang.wait() == [0] * world, gang.output()
    assert "continuing at step 4" in gang.output()
    one, two = final(whole), final(parts)
    for key in ("model", "optimizer", "rank_statistics"):
        assert_equal(one[key], two[key], key)
    assert {value.item() for value in one["optimizer"]["steps"].values()} == {8.0}
    begun = torch.load(weights, weights_only=True)
    for name, value in one["model"].items():
        is_frozen = name.startswith(("conv", "inception_3"))
        assert torch.equal(value, begun[name]) == is_frozen, name
    losses = [row[1] for row in one["progress"]["history"]["train"]]
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("name", ["SGD", "RMSProp", "AdamW"])
def test_layers_may_be_unfrozen_when_a_training_goes_on(tmp_path, name) -> None:
    optimizer = {"name": name, "learningRate": 0.001}
    first = tmp_path / "first"
    assert trainer_ranks.run(first, config(first, maxSteps=1)) == [0]
    weights = first / "checkpoints" / "final.pt"
    path = tmp_path / "tuned"
    for attempt, steps, frozen in ((1, 2, ["wide.conv"]), (2, 4, None)):
        model = {"weights": str(weights), "freeze": frozen}
        job = config(path, maxSteps=steps, optimizer=optimizer, model=model)
        gang = trainer_ranks.start(path, job, 2, attempt)
        assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step 2" in gang.output()
    begun, content = final(first), final(path)
    tuned = "wide.conv.weight"
    assert not torch.equal(content["model"][tuned], begun["model"][tuned])
    for part in STATE_PARTS[name]:
        assert tuned in content["optimizer"][part]
        assert all(value.isfinite().all() for value in content["optimizer"][part].values())


@pytest.fixture
def pods() -> Iterator[list[Path]]:
    """The shared memory of two pods."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield [Path(folder, name) for name in ("a", "b")]


@pytest.mark.timeout(300)
def test_adamw_goes_on_from_the_memory_of_a_pod(tmp_path, pods) -> None:
    """Rank 0 is killed in its sixth step; its peer has the five before it."""
    change = {"maxSteps": 8, "optimizer": {"name": "AdamW", "learningRate": 0.001}}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    gang = trainer_ranks.start(whole, config(whole, **change), 2)
    assert gang.wait() == [0, 0], gang.output()
    job = config(parts, **change)
    faults = {0: "exchange 6"}
    assert 0 not in trainer_ranks.start(parts, job, 2, pods=pods, faults=faults).wait()
    gang = trainer_ranks.start(parts, job, 2, attempt=2, pods=pods)
    assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step 5 " in gang.output()
    assert "memory of rank 1's pod" in gang.output()
    one, two = final(whole), final(parts)
    for key in ("model", "optimizer", "rank_statistics"):
        assert_equal(one[key], two[key], key)


@pytest.mark.timeout(200)
def test_an_fp16_step_that_overflows_does_not_count_for_adamw() -> None:
    settings = from_mapping({**DIGITS, "optimizer": {"name": "AdamW"}})
    network = nn.Linear(3, 2)
    step = OptimizerStep(
        settings, network, device.resolve(settings.accelerator, "FP16", Settings())
    )
    before = network.weight.detach().clone()
    step.backward(network(torch.ones(1, 3)).sum() * 1e38)
    step.apply(1.0, 1)
    assert torch.equal(network.weight, before)
    step.backward(network(torch.ones(1, 3)).sum())
    step.apply(1.0, 2)
    assert not torch.equal(network.weight, before)
    assert {state["step"].item() for state in step.optimizer.state.values()} == {1.0}
