"""Networks of the package timm, as timm defines them; what is known of them without building one is
in ``config/timm_networks.py``.
"""

from __future__ import annotations

import importlib

from torch import nn

from inception_trainer.config import timm_networks
from inception_trainer.errors import ConfigError


def create(name: str, num_classes: int, dropout: float | None = None) -> nn.Module:
    """A network with random weights.

    Raises ConfigError where timm is missing, does not know the name, or builds no classifier of
    images of it.
    """
    timm_networks.facts(name)
    package = importlib.import_module("timm")
    chosen = {} if dropout is None else {"drop_rate": dropout}
    try:
        network: nn.Module = package.create_model(
            name.removeprefix(timm_networks.TIMM),
            pretrained=False,
            num_classes=num_classes,
            **chosen,
        )
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"model.name: timm cannot build {name}: {error}") from error
    return network
