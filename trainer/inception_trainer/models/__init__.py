"""The networks by name. Every definition keeps the keys of the published weight files
(docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from inception_trainer.config.catalog import canonical, check_image_size, names
from inception_trainer.errors import ConfigError

from .bninception import BNInception
from .inception_v3 import InceptionV3
from .inception_v4 import InceptionV4
from .inceptionv3_cifar import InceptionV3Cifar
from .resnet50 import ResNet50

__all__ = ["canonical", "check_image_size", "create", "names"]

_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "bninception": BNInception,
    "inception_v3": InceptionV3,
    "inception_v4": InceptionV4,
    "inceptionv3_cifar": InceptionV3Cifar,
    "resnet50": ResNet50,
}


def create(
    name: str, num_classes: int, *, auxiliary: bool = False, dropout: float | None = None
) -> nn.Module:
    """A new network with random weights and ``num_classes`` outputs; with its auxiliary head where
    that is wanted.

    ``dropout`` replaces the network's own share of features that training leaves out.
    """
    found = canonical(name)
    if auxiliary and found != "inception_v3":
        raise ConfigError(
            f"loss.auxiliaryWeight: {name} has no auxiliary head; only inception_v3 has one"
        )
    network = (
        InceptionV3(num_classes, auxiliary=True) if auxiliary else _NETWORKS[found](num_classes)
    )
    for module in network.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    return network
