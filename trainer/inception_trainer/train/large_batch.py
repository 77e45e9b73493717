"""LARS and LAMB, for batches of thousands: each tensor of weights gets a rate of its own, by the
ratio of its length to that of its change.

What is adapted is what MLPerf's reference for ResNet-50 adapts: all but the parameters of
normalization layers and biases, which take the plain step. Weight decay is a choice of its own
(``optimizer.decayExempt``; the reference has ``Norm``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from .foreach_optimizer import ForeachOptimizer

ADAPTED = "adapted"
"""The key of a group of parameters that says whether its tensors get rates of their own."""


class LARS(ForeachOptimizer):
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv:1708.03888), the
    learning rate inside the momentum as in the paper and in MLPerf's reference::

        ratio = trust * |weight| / (|grad| + decay * |weight|), or 1 where one of them is zero
        buffer = momentum * buffer + lr * ratio * (grad + decay * weight)
        weight = weight - buffer
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float,
        trust: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "trust": trust,
                "weight_decay": weight_decay,
                ADAPTED: True,
            },
        )

    @override
    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> None:
        decay = group["weight_decay"]
        ratios: list[Tensor] = []
        if group[ADAPTED]:
            weights = torch._foreach_norm(parameters)  # noqa: SLF001
            lengths = torch._foreach_norm(gradients)  # noqa: SLF001
            for weight, length in zip(weights, lengths, strict=True):
                ratio = group["trust"] * weight / (length + decay * weight)
                ratios.append(_or_one(ratio, weight, length))
        if decay:
            torch._foreach_add_(gradients, parameters, alpha=decay)
        torch._foreach_mul_(gradients, group["lr"])
        if ratios:
            torch._foreach_mul_(gradients, ratios)
        self._subtract(parameters, gradients, group)


class LAMB(ForeachOptimizer):
    """LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2 with the identity for phi): Adam's
    change with its weight decay, made as long as the weights themselves::

        mean = beta1 * mean + (1 - beta1) * grad
        square = beta2 * square + (1 - beta2) * grad**2
        change = unbiased(mean) / (sqrt(unbiased(square)) + epsilon) + decay * weight
        weight = weight - lr * |weight| / |change| * change, or lr * change where one is zero
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "epsilon": epsilon,
                "weight_decay": weight_decay,
                ADAPTED: True,
            },
        )

    @override
    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> None:
        first, second = group["betas"]
        means = self._state(parameters, "exp_avg")
        squares = self._state(parameters, "exp_avg_sq")
        number = self._count(parameters)
        torch._foreach_mul_(means, first)
        torch._foreach_add_(means, gradients, alpha=1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        roots = torch._foreach_sqrt(squares)  # noqa: SLF001
        torch._foreach_div_(roots, (1 - second**number) ** 0.5)
        torch._foreach_add_(roots, group["epsilon"])
        changes = torch._foreach_div(means, 1 - first**number)  # noqa: SLF001
        torch._foreach_div_(changes, roots)
        if group["weight_decay"]:
            torch._foreach_add_(changes, parameters, alpha=group["weight_decay"])
        if group[ADAPTED]:
            weights = torch._foreach_norm(parameters)  # noqa: SLF001
            lengths = torch._foreach_norm(changes)  # noqa: SLF001
            pairs = zip(weights, lengths, strict=True)
            ratios = [_or_one(weight / length, weight, length) for weight, length in pairs]
            torch._foreach_mul_(changes, ratios)
        torch._foreach_add_(parameters, changes, alpha=-group["lr"])

    def _count(self, parameters: list[Tensor]) -> float:
        """The number of this step. Kept for each parameter, in the host's memory as torch's Adam
        does, so that checkpoints of both look alike; the parameters of a group are never apart.
        """
        for parameter in parameters:
            state = self.state[parameter]
            state["step"] = state.get("step", torch.zeros(())) + 1
        return float(self.state[parameters[0]]["step"])


def _or_one(ratio: Tensor, weight: Tensor, length: Tensor) -> Tensor:
    """The ratio, 1 where weights or change are zero; without asking the device."""
    return torch.where((weight > 0) & (length > 0), ratio, torch.ones_like(ratio))
