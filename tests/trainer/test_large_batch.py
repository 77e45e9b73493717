"""LARS and LAMB: by hand, beside timm's, what is adapted, and what a checkpoint keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.optim.lamb import Lamb
from timm.optim.lars import Lars
from torch import nn

from inception_trainer import device, models
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping
from inception_trainer.train.large_batch import LAMB, LARS
from inception_trainer.train.optimizers import STATE_PARTS, make_optimizer
from inception_trainer.train.step import OptimizerStep

DIGITS: dict[str, Any] = {"data": {"kind": "Digits"}}
CPU = torch.device("cpu")
SHAPES = ((5, 3), (7,), (2, 3, 3, 3))


def optimizer_config(name: str, **keys: Any) -> Any:
    return from_mapping({**DIGITS, "optimizer": {"name": name, **keys}})


def test_lars_by_hand() -> None:
    """The rate changes, which tells the paper's momentum from torch's."""
    config = optimizer_config("LARS", momentum=0.9, weightDecay=0.5)
    assert config.optimizer.trust_coefficient == 0.001
    network = nn.Linear(2, 1, bias=False)
    step = OptimizerStep(config, network, device.resolve(config.accelerator, "FP32", Settings()))
    weight, buffer = network.weight[0].tolist(), [0.0, 0.0]
    gradients = ((3.0, -4.0), (0.5, 1.0), (-2.0, 0.0))
    for number, (gradient, rate) in enumerate(zip(gradients, (10.0, 5.0, 20.0), strict=True), 1):
        step.backward(network(torch.tensor([gradient])).sum())
        step.apply(rate, number)
        length = math.hypot(*weight)
        ratio = 0.001 * length / (math.hypot(*gradient) + 0.5 * length)
        for at in (0, 1):
            buffer[at] = 0.9 * buffer[at] + rate * ratio * (gradient[at] + 0.5 * weight[at])
        weight = [value - change for value, change in zip(weight, buffer, strict=True)]
        assert network.weight[0].tolist() == pytest.approx(weight, rel=1e-5)


def test_lamb_by_hand() -> None:
    config = optimizer_config("LAMB", weightDecay=0.5)
    assert (config.optimizer.square_decay, config.optimizer.epsilon) == (0.999, 1e-6)
    network = nn.Linear(2, 1, bias=False)
    step = OptimizerStep(config, network, device.resolve(config.accelerator, "FP32", Settings()))
    weight, mean, square = network.weight[0].tolist(), [0.0, 0.0], [0.0, 0.0]
    gradients = ((3.0, -4.0), (0.5, 1.0), (-2.0, 0.0))
    for number, (gradient, rate) in enumerate(zip(gradients, (0.1, 0.05, 0.2), strict=True), 1):
        step.backward(network(torch.tensor([gradient])).sum())
        step.apply(rate, number)
        change = [0.0, 0.0]
        for at in (0, 1):
            mean[at] = 0.9 * mean[at] + 0.1 * gradient[at]
            square[at] = 0.999 * square[at] + 0.001 * gradient[at] ** 2
            root = math.sqrt(square[at] / (1 - 0.999**number)) + 1e-6
            change[at] = mean[at] / (1 - 0.9**number) / root + 0.5 * weight[at]
        ratio = math.hypot(*weight) / math.hypot(*change)
        weight = [value - rate * ratio * by for value, by in zip(weight, change, strict=True)]
        assert network.weight[0].tolist() == pytest.approx(weight, rel=1e-5)


def both(ours: Any, theirs: Any, zeros: bool) -> None:
    """Ten steps of either with the same gradients, some of them and one tensor zero."""
    generator = torch.Generator().manual_seed(0)
    begun = [torch.randn(shape, generator=generator) for shape in SHAPES]
    if zeros:
        begun[1].zero_()
    copies = [[nn.Parameter(value.clone()) for value in begun] for _ in range(2)]
    pair = ours(copies[0]), theirs(copies[1])
    for number in range(10):
        gradients = [torch.randn(shape, generator=generator) for shape in SHAPES]
        if zeros and number % 3 == 0:
            gradients[2].zero_()
        for parameters, optimizer in zip(copies, pair, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for one, two in zip(*copies, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_lars_is_timms_where_the_rate_stays(zeros: bool, decay: float) -> None:
    both(
        lambda params: LARS(params, 2.0, 0.9, 0.001, decay),
        lambda params: Lars(
            params, 2.0, momentum=0.9, weight_decay=decay, eps=0.0, always_adapt=True
        ),
        zeros,
    )


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_lamb_is_timms(decay: float) -> None:
    both(
        lambda params: LAMB(params, 0.01, (0.9, 0.999), 1e-6, decay),
        lambda params: Lamb(
            params, 0.01, weight_decay=decay, max_grad_norm=None, always_adapt=True
        ),
        zeros=False,
    )


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_norms_and_biases_take_the_plain_step_whatever_decays(name: str) -> None:
    with torch.device("meta"):
        network = models.create("resnet50", 5)
    config = optimizer_config(name, weightDecay=0.1, decayExempt="Norm")
    optimizer = make_optimizer(config.optimizer, network, CPU)
    kinds = {
        id(parameter): (group["adapted"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {kinds[id(p)] for n, p in network.named_parameters() if p.ndim > 1} == {(True, 0.1)}
    # The bias of the classifier decays in MLPerf's reference, too.
    assert kinds[id(network.fc.bias)] == (False, 0.1)
    norms = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    norms = [parameter for parameter in norms if parameter is not network.fc.bias]
    assert {kinds[id(parameter)] for parameter in norms} == {(False, 0.0)}
    assert len(kinds) == len(list(network.parameters()))


def test_what_is_not_adapted_moves_by_the_rate_itself() -> None:
    group = {"adapted": False}
    weight = nn.Parameter(torch.tensor([2.0]))
    lars = LARS([{"params": [weight], **group}], 0.5, 0.0, 0.001)
    weight.grad = torch.tensor([1.0])
    lars.step()
    assert weight.item() == 1.5
    lamb = LAMB([{"params": [weight], **group}], 0.5, (0.9, 0.999), 1e-6)
    weight.grad = torch.tensor([3.0])
    lamb.step()
    assert weight.item() == pytest.approx(1.0)


def test_a_group_keeps_other_optimizers_groups_as_they_are() -> None:
    """Their checkpoints and tests know no such key."""
    with torch.device("meta"):
        network = models.create("resnet50", 5)
    optimizer = make_optimizer(optimizer_config("SGD").optimizer, network, CPU)
    assert len(optimizer.param_groups) == 1
    assert "adapted" not in optimizer.param_groups[0]


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_what_a_checkpoint_keeps_of_the_state_is_enough_to_go_on(name: str) -> None:
    """Six steps are three, and three more with a new optimizer that gets these tensors."""
    generator = torch.Generator().manual_seed(0)
    begun = torch.randn(4, 3, generator=generator)
    gradients = [torch.randn(4, 3, generator=generator) for _ in range(6)]
    whole, parts = nn.Parameter(begun.clone()), nn.Parameter(begun.clone())

    def optimizer(parameter: nn.Parameter) -> torch.optim.Optimizer:
        if name == "LARS":
            return LARS([parameter], 2.0, 0.9, 0.001, 0.01)
        return LAMB([parameter], 0.01, (0.9, 0.999), 1e-6, 0.01)

    def steps(parameter: nn.Parameter, used: torch.optim.Optimizer, some: list[Any]) -> None:
        for gradient in some:
            parameter.grad = gradient.clone()
            used.step()

    steps(whole, optimizer(whole), gradients)
    first, second = optimizer(parts), optimizer(parts)
    steps(parts, first, gradients[:3])
    for key in STATE_PARTS[name].values():
        second.state[parts][key] = first.state[parts][key].clone()
    steps(parts, second, gradients[3:])
    assert torch.equal(whole, parts)
