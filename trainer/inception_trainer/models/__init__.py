"""The networks by name. Every definition keeps the keys of the published weight files (RECIPES 6.3)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from inception_trainer.errors import ConfigError, closest
from inception_trainer.models import bninception

_REGISTRY: dict[str, Callable[[int], nn.Module]] = {"bninception": bninception.BNInception}
_ACCEPTS: dict[str, Callable[[int], bool]] = {"bninception": bninception.accepts}
_ALIASES = {"inception_v2": "bninception"}


def names() -> tuple[str, ...]:
    """All names that :func:`create` accepts."""
    return tuple(sorted((*_REGISTRY, *_ALIASES)))


def canonical(name: str) -> str:
    """Resolve an alias; raises ConfigError listing the known names."""
    found = _ALIASES.get(name, name)
    if found not in _REGISTRY:
        raise ConfigError(f"model.name: {name!r} is unknown{closest(name, names())}; known: {', '.join(names())}")
    return found


def check_image_size(name: str, side: int) -> None:
    """Raise ConfigError when the network cannot take square inputs of ``side`` pixels."""
    accepts = _ACCEPTS[canonical(name)]
    if not accepts(side):
        near = min((size for size in range(8, 2 * side + 64) if accepts(size)), key=lambda size: abs(size - side))
        raise ConfigError(f"data.imageSize: {side} does not fit {name}, whose maps must halve evenly; try {near}")


def create(name: str, num_classes: int) -> nn.Module:
    """A new network with random weights and ``num_classes`` outputs."""
    return _REGISTRY[canonical(name)](num_classes)
