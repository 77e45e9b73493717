"""Optimizers by name, and which parameters weight decay leaves alone.

SGD and AdamW are torch's own. RMSProp is TensorFlow's, which torch and timm do not have in this
form; LARS and LAMB are in :mod:`.large_batch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from inception_trainer.config.method import LAYERWISE, WITH_SQUARES
from inception_trainer.config.training import OptimizerConfig
from inception_trainer.device import supports_fused_sgd
from inception_trainer.models.blocks import depths as block_depths

from .foreach_optimizer import MOMENTUM, ForeachOptimizer
from .large_batch import ADAPTED, LAMB, LARS

SQUARES = "square_avg"
"""Key of RMSProp's state."""
STEPS = "steps"
"""The part of a checkpoint that holds a number, and no tensor like it, for each parameter."""
STATE_PARTS = {
    "SGD": {"momentum": MOMENTUM},
    "RMSProp": {"momentum": MOMENTUM, "squares": SQUARES},
    "AdamW": {"momentum": "exp_avg", "squares": "exp_avg_sq", STEPS: "step"},
    "LARS": {"momentum": MOMENTUM},
    "LAMB": {"momentum": "exp_avg", "squares": "exp_avg_sq", STEPS: "step"},
}
"""For each optimizer what a checkpoint keeps of its state, and the key that torch has for it."""
BEGIN_WITH_ONES = (("RMSProp", "squares"),)
"""Parts of the state that begin with ones, as TensorFlow's; all others begin with zeros."""
# _BatchNorm is the common base of all batch norms, synchronized ones included.
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)  # noqa: SLF001


class RMSProp(ForeachOptimizer):
    """RMSProp as TensorFlow defines it, which the Inception papers' learning rates are made for.

    Other than torch's: epsilon inside the root, mean squares that begin at one, a momentum buffer
    that holds the learning rate of its time::

        square = decay * square + (1 - decay) * grad**2
        buffer = momentum * buffer + lr * grad / sqrt(square + epsilon)
        weight = weight - buffer
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float,
        decay: float,
        epsilon: float,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "decay": decay,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @override
    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            torch._foreach_add_(gradients, parameters, alpha=group["weight_decay"])
        squares = self._state(parameters, SQUARES, torch.ones_like)
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
        roots = torch._foreach_add(squares, group["epsilon"])  # noqa: SLF001
        torch._foreach_sqrt_(roots)
        torch._foreach_div_(gradients, roots)
        torch._foreach_mul_(gradients, group["lr"])
        self._subtract(parameters, gradients, group)


def make_optimizer(
    config: OptimizerConfig, model: nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer over all parameters; SGD as one fused kernel where the device has it, else many
    at a time.
    """
    groups = parameter_groups(
        model,
        config.weight_decay,
        config.decay_exempt,
        config.layer_decay or 1.0,
        adapts=config.name in LAYERWISE,
    )
    if config.name == "LARS":
        # Filled in with the configuration, as are those below.
        assert config.trust_coefficient is not None  # noqa: S101
        return LARS(groups, config.learning_rate, config.momentum, config.trust_coefficient)
    if config.name in WITH_SQUARES:
        assert config.square_decay is not None  # noqa: S101
        assert config.epsilon is not None  # noqa: S101
        if config.name == "RMSProp":
            return RMSProp(
                groups,
                config.learning_rate,
                config.momentum,
                config.square_decay,
                config.epsilon,
            )
        betas = (config.momentum, config.square_decay)
        if config.name == "LAMB":
            return LAMB(groups, config.learning_rate, betas, config.epsilon)
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, foreach=True
        )
    # Before 2.3, torch's SGD does not know the word "fused".
    kernel = "fused" if supports_fused_sgd(device) else "foreach"
    optimizer = torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        **{kernel: True},
    )
    if kernel == "fused" and config.momentum:
        # Torch takes memory for them in the first step and leaves in it what was there before,
        # where that step's FP16 gradients overflow. Zeros are what the first step begins with.
        for group in groups:
            for parameter in group["params"]:
                optimizer.state[parameter][MOMENTUM] = torch.zeros_like(parameter)
    return optimizer


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    exempt: str,
    layer_decay: float = 1.0,
    *,
    adapts: bool = False,
) -> list[dict[str, Any]]:
    """Groups of parameters that are not frozen: one that decays, and one that does not where
    ``exempt`` (``optimizer.decayExempt``) names any; with a ``layer_decay`` below 1 two for each
    block of layers, of which ``rate_factor`` is the share of the learning rate. For an optimizer
    that ``adapts`` rates, norms and biases are apart, which it does not adapt.
    """
    # By identity: comparing parameters with == would compare their values.
    exempt_ids = {id(parameter) for parameter in _exempt(model, exempt)}
    plain_ids = {id(parameter) for parameter in _exempt(model, "NormAndBias")} if adapts else set()
    depths = block_depths(model) if layer_decay < 1 else {}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = layer_decay ** depths.get(name, 0)
            kind = factor, id(parameter) in exempt_ids, id(parameter) in plain_ids
            groups.setdefault(kind, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_exempt else weight_decay,
            "rate_factor": factor,
            **({ADAPTED: not is_plain} if adapts else {}),
        }
        # Those that decay first, as checkpoints of the optimizer have always had them.
        for (factor, is_exempt, is_plain), parameters in sorted(
            groups.items(), key=lambda item: item[0][1]
        )
    ]


def _exempt(model: nn.Module, exempt: str) -> Iterator[nn.Parameter]:
    """By the kind of module: names miss some, for instance the norms of a shortcut."""
    if exempt == "Nothing":
        return
    for module in model.modules():
        if isinstance(module, NORMS):
            yield from module.parameters(recurse=False)
        elif exempt == "NormAndBias":
            own = dict(module.named_parameters(recurse=False))
            if "bias" in own:
                yield own["bias"]
