"""The networks by name.

All take images ``[n, 3, side, side]``, normalised, and return logits ``[n, classes]``. Every
definition keeps the keys of the published weight files (docs/models.md): a module or attribute that
is renamed here makes them unreadable, and all checkpoints with them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from inception_trainer.config.catalog import canonical, check_image_size, names
from inception_trainer.config.timm_networks import TIMM
from inception_trainer.errors import ConfigError

from . import of_timm
from .bninception import BNInception
from .inception_v3 import InceptionV3
from .inception_v4 import InceptionV4
from .inceptionv3_cifar import InceptionV3Cifar
from .layers import INITIALIZATIONS
from .resnet50 import ResNet50

__all__ = [
    "canonical",
    "check_image_size",
    "create",
    "names",
    "set_batch_norm",
    "with_memory",
    "without_values",
]

_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "bninception": BNInception,
    "inception_v3": InceptionV3,
    "inception_v4": InceptionV4,
    "inceptionv3_cifar": InceptionV3Cifar,
    "resnet50": ResNet50,
}


def create(
    name: str,
    num_classes: int,
    *,
    auxiliary: bool = False,
    dropout: float | None = None,
    initialization: str | None = None,
) -> nn.Module:
    """A new network with random weights from torch's generator, on the CPU.

    With ``auxiliary`` it has its second head and returns a pair of logits while training.
    ``dropout`` replaces the network's own share of features that training leaves out,
    ``initialization`` (``model.initialization``) its own way to draw weights. Raises ConfigError
    for an unknown name and for a head that the network does not have.
    """
    canonical_name = canonical(name)
    if auxiliary and canonical_name != "inception_v3":
        raise ConfigError(
            f"loss.auxiliaryWeight: {name} has no auxiliary head; only inception_v3 has one"
        )
    if canonical_name.startswith(TIMM):
        return _initialized(of_timm.create(canonical_name, num_classes, dropout), initialization)
    if auxiliary:
        network: nn.Module = InceptionV3(num_classes, auxiliary=True)
    else:
        network = _NETWORKS[canonical_name](num_classes)
    for module in network.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    return _initialized(network, initialization)


def _initialized(network: nn.Module, initialization: str | None) -> nn.Module:
    if initialization is not None:
        INITIALIZATIONS[initialization](network)
    return network


def without_values(name: str, create: Callable[[], nn.Module]) -> nn.Module:
    """What ``create`` makes of the network ``name``, on the device ``meta``, where random weights
    would only be overwritten: that takes seconds.

    Those of timm are made as they are: they compute tensors, such as positions, which no file has.
    """
    if name.startswith(TIMM):
        return create()
    with torch.device("meta"):
        return create()


def with_memory(network: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """A network of :func:`without_values` on ``device``, with whatever its memory holds."""
    if any(parameter.is_meta for parameter in network.parameters()):
        network.to_empty(device=device)
        for buffer in network.buffers():  # files may leave out the counters of batch norm
            buffer.zero_()
    return network.to(device)


def set_batch_norm(
    network: nn.Module, epsilon: float | None = None, momentum: float | None = None
) -> None:
    """Give all batch norms of a network another epsilon or momentum; None leaves its own."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = module.eps if epsilon is None else epsilon
            module.momentum = module.momentum if momentum is None else momentum
