"""What stays as it is while a network trains: parameters by the beginning of their names
(``model.freeze``), and the statistics of batch norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import nn
from typing_extensions import override

from inception_trainer.config.training import ModelConfig
from inception_trainer.errors import ConfigError, closest


class FrozenBatchNorm(nn.BatchNorm2d):
    """A BatchNorm2d in evaluation mode for good: it normalises with its running means and
    variances, and leaves them as they are.
    """

    @override
    def train(self, mode: bool = True) -> Self:
        # The whole network is put back into training mode after each evaluation.
        return super().train(False)


def freeze(network: nn.Module, config: ModelConfig) -> None:
    """Freeze what ``model.freeze`` names and, with ``model.batchNorm: Frozen``, all batch norms.

    Raises ConfigError for names that no parameter begins with, and where nothing is left to train.
    """
    prefixes = tuple(config.freeze or ())
    _check(network, prefixes)
    for name, parameter in network.named_parameters():
        if name.startswith(prefixes):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError("model.freeze: nothing is left to train; leave the last layer out")
    for name, module in network.named_modules():
        is_frozen = config.batch_norm == "Frozen" or f"{name}.weight".startswith(prefixes)
        if isinstance(module, nn.BatchNorm2d) and is_frozen:
            # Nothing but the mode of a norm changes: those of timm hold an activation as well.
            module.__class__ = _frozen(type(module))
            module.train()


def _frozen(kind: type[nn.BatchNorm2d]) -> type[FrozenBatchNorm]:
    if kind is nn.BatchNorm2d:
        return FrozenBatchNorm
    return type(FrozenBatchNorm.__name__, (FrozenBatchNorm, kind), {})


def _check(network: nn.Module, prefixes: Sequence[str]) -> None:
    names = [name for name, _ in network.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ConfigError(
                f"model.freeze: no parameter's name begins with {prefix!r}"
                f"{closest(prefix, parts)}; the network has {', '.join(parts[:40])}"
            )
