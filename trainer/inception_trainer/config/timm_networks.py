"""Networks of the package timm, as ``model.name: timm/<name>``: what is known of each, from the
configuration that timm publishes its weights with.

timm is imported only where a configuration names one of its networks.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from inception_trainer.errors import ConfigError, closest

from .model_facts import ModelFacts
from .normalization import NAMED, Normalization

TIMM = "timm/"
"""What the names of these networks begin with."""
INTERPOLATIONS = {"bilinear": "Bilinear", "bicubic": "Bicubic", "nearest": "Nearest"}
"""timm's words for ``data.interpolation``; those that it has besides stay with the default."""
SMALLEST = 8
"""Side of the smallest images that ``data.imageSize`` takes; whether a network takes them shows in
its first step.
"""


@functools.cache
def facts(name: str) -> ModelFacts:
    """What timm says of ``timm/<name>``, with or without the tag of some weights.

    Raises ConfigError where timm is missing or does not know the name.
    """
    package, version = _package(name)
    bare = name.removeprefix(TIMM)
    if not package.is_model(bare):
        nearest = closest(bare, package.list_models())
        raise ConfigError(
            f"model.name: timm {version} has no network {bare!r}"
            f"{nearest.replace('mean ', f'mean {TIMM}')}"
        )
    try:
        published = package.get_pretrained_cfg(bare)
    except RuntimeError:
        arch = bare.partition(".")[0]
        tags = package.list_pretrained(f"{arch}.*")
        some = ", ".join(f"{TIMM}{tag}" for tag in tags[:10]) or "none"
        raise ConfigError(
            f"model.name: timm {version} has no weights {bare!r} of {arch}, whose size "
            f"and normalization it could take; known: {some}; or leave the tag out"
        ) from None
    if published is None:
        raise ConfigError(
            f"model.name: timm says nothing of the inputs of {bare!r}; choose another network"
        )
    return _facts_of(published)


def _package(name: str) -> tuple[Any, str]:
    """timm's networks, and the version of timm."""
    try:
        package, models = map(importlib.import_module, ("timm", "timm.models"))
    except ImportError as error:
        raise ConfigError(
            f"model.name: {name} needs the Python package timm, which is not in this image "
            f"({error}); add it (docs/models.md, Networks of timm) or choose another network"
        ) from None
    return models, str(package.__version__)


def _facts_of(published: Any) -> ModelFacts:
    side = max(published.input_size[1:])
    least = max(published.min_input_size[1:]) if published.min_input_size else SMALLEST
    smallest = side if published.fixed_input_size else min(side, least)
    classifier = published.classifier
    head = classifier if isinstance(classifier, str) or not classifier else classifier[0]
    evaluation = {"image_size": side, "evaluation_crop_ratio": float(published.crop_pct)}
    if published.interpolation in INTERPOLATIONS:
        evaluation["interpolation"] = INTERPOLATIONS[published.interpolation]
    return ModelFacts(
        image_size=side,
        smallest=smallest,
        fits=(lambda asked: asked == side) if published.fixed_input_size else lambda _side: True,
        has_dropout=True,
        normalization=_normalization(published),
        evaluation=evaluation,
        head=f"{head}." if head else None,
    )


def _normalization(published: Any) -> Normalization:
    own = Normalization("timm", tuple(published.mean), tuple(published.std))
    return next((known for known in NAMED.values() if known.same_as(own)), own)
