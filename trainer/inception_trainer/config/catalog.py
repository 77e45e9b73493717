"""What is known about each network without building it: its names, the sizes of images that it
takes, and which optional parts it has.

Needs no torch, so that a wrong configuration is refused before torch is imported; only networks of
timm are looked up there.
"""

from __future__ import annotations

from inception_trainer.errors import ConfigError, closest

from . import timm_networks
from .model_facts import ModelFacts
from .timm_networks import TIMM

TIMM_NAME = r"timm/[a-z0-9][a-zA-Z0-9_.-]*"
AUXILIARY_WEIGHT = 0.4
"""What the auxiliary head counts beside the classifier unless the configuration says otherwise."""


def _halves_evenly(side: int) -> bool:
    # Blocks 3c and 4e of BN-Inception join convolutions and pools that round differently on an odd
    # side.
    pooled = _pooled(_pooled((side + 1) // 2))
    return pooled % 2 == 0 and (pooled // 2) % 2 == 0


def _pooled(side: int) -> int:
    # The side after a pool of 3 pixels with stride 2 that rounds up: ceil((side - 3) / 2) + 1.
    return -((3 - side) // 2) + 1


MODELS = {
    "bninception": ModelFacts(224, 32, fits=_halves_evenly),
    "inception_v3": ModelFacts(299, 75, auxiliary_smallest=299, has_dropout=True),
    "inception_v4": ModelFacts(299, 75, has_dropout=True),
    "inceptionv3_cifar": ModelFacts(32, 9, has_dropout=True),
    "resnet50": ModelFacts(224, 32),
}
ALIASES = {"inception_v2": "bninception"}


def names() -> tuple[str, ...]:
    """All names of networks, aliases included."""
    return tuple(sorted((*MODELS, *ALIASES)))


def canonical(name: str) -> str:
    """Resolve an alias; raises ConfigError listing the known names. Those of timm are looked up by
    :func:`facts`, which needs it.
    """
    if name.startswith(TIMM):
        return name
    resolved = ALIASES.get(name, name)
    if resolved not in MODELS:
        nearest = closest(name, names())
        raise ConfigError(
            f"model.name: {name!r} is unknown{nearest}; known: {', '.join(names())}, "
            f"and {TIMM}<name> for those of the package timm"
        )
    return resolved


def facts(name: str) -> ModelFacts:
    """What is known about the network; raises ConfigError for an unknown name."""
    if name.startswith(TIMM):
        return timm_networks.facts(name)
    return MODELS[canonical(name)]


def check_image_size(name: str, side: int, *, auxiliary: bool = False) -> None:
    """Raise ConfigError when the network cannot take square inputs of ``side`` pixels."""
    model = facts(name)
    least = model.smallest_with(auxiliary)
    if side >= least and model.fits(side):
        return
    # Too small for the head only: leaving the head out is the better remedy than larger images.
    if auxiliary and side >= model.smallest:
        raise ConfigError(
            f"data.imageSize: {side} is too small for the auxiliary head of {name}, which needs "
            f"{least}; set loss.auxiliaryWeight to 0 to train without it"
        )
    if side < least:
        raise ConfigError(f"data.imageSize: {side} does not fit {name}; it needs at least {least}")
    # Sides that fit are at most 25 pixels apart, so the range holds a larger one.
    fitting = [size for size in range(least, 2 * side + 64) if model.fits(size)]
    near = min(fitting, key=lambda size: abs(size - side))
    raise ConfigError(
        f"data.imageSize: {side} does not fit {name}, whose maps must halve evenly; try {near}"
    )
