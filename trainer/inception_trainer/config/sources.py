"""What a configuration is put together from, as plain data: text, overrides, recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from inception_trainer import recipes
from inception_trainer.errors import ConfigError

from .data import MADE_AT_SIZE
from .declare import camel
from .method import OptimizerConfig, ScheduleConfig

USING_WEIGHTS = ("Evaluate", "Infer", "Export")
"""Modes in which a network comes out of a file."""
_SECTIONS_WITH_METHODS = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig}


def read_text(text: str, source: str) -> dict[str, Any]:
    """The keys of a YAML or JSON text; ``source`` names it in errors."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source}: neither YAML nor JSON: {reason}") from None
    # An empty file, or one that holds only comments.
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: {type(data).__name__} instead of a mapping; "
            "write keys such as `recipe: ...`"
        )
    return data


def override(data: dict[str, Any], text: str) -> None:
    """Set one ``section.key=value`` in ``data``; the value is YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"--set {text}: write it as key=value, for example --set batch.global=128"
        )
    *parents, last = name.split(".")
    section = data
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {text}: {parent} is {inner!r}, not a mapping")
        section = inner
    section[last] = yaml.safe_load(value)


def with_recipe(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` over the keys of the recipe that it names, if any."""
    name = data.get("recipe")
    # `recipe: null` is how a file based on another one leaves its recipe out.
    if name is None:
        return dict(data)
    if not isinstance(name, str):
        raise ConfigError(f"recipe: {name!r} is not a text; choose {', '.join(recipes.names())}")
    return merge(_without_other_methods(recipes.read(name), data), data)


def with_image_folder(data: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """``folder`` as the ``data.path`` of an ImageFolder that has none."""
    section = data.get("data")
    # What is no mapping is refused later, by the name of its key.
    if folder is None or not isinstance(section, Mapping):
        return data
    if section.get("kind") != "ImageFolder" or section.get("path") is not None:
        return data
    return {**data, "data": {**section, "path": folder}}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``; mappings merge, everything else is replaced."""
    result = dict(base)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[name] = merge(below, value)
        else:
            result[name] = value
    return result


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"batch": {"global": 64}}`` to ``{"batch.global": 64}``."""
    result: dict[str, Any] = {}
    for name, item in value.items():
        full = f"{prefix}{name}"
        if isinstance(item, Mapping):
            result |= flat(item, f"{full}.")
        else:
            result[full] = item
    return result


def _without_other_methods(recipe: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe less the keys that make no sense with a method that the user chose instead.

    RMSProp's epsilon of a recipe must not stand beside the SGD of the user, who never wrote it and
    would be told to leave it out.
    """
    result = dict(recipe)
    for name, kind in _SECTIONS_WITH_METHODS.items():
        section = recipe.get(name)
        if isinstance(section, Mapping) and _chooses_another(section, user.get(name)):
            result[name] = _without(section, _keys_of_method(kind))
    model, user_model = recipe.get("model"), user.get("model")
    brings_weights = isinstance(user_model, Mapping) and user_model.get("weights") is not None
    # Weights were made with an epsilon of their own, which the recipe's would falsify.
    if isinstance(model, Mapping) and (brings_weights or user.get("mode") in USING_WEIGHTS):
        result["model"] = _without(model, {"batchNormEpsilon"})
    data = recipe.get("data")
    user_data = user.get("data")
    # Any recipe can be measured on synthetic images, whatever its images are scaled with.
    made_at_size = isinstance(user_data, Mapping) and user_data.get("kind") == MADE_AT_SIZE
    if isinstance(data, Mapping) and made_at_size:
        result["data"] = _without(data, {"interpolation"})
    return result


def _keys_of_method(kind: type[Any]) -> set[str]:
    fields = dataclasses.fields(kind)
    return {camel(field.name) for field in fields if field.metadata["of_method"]}


def _without(section: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


def _chooses_another(section: Mapping[str, Any], user: Any) -> bool:
    name = section.get("name")
    return isinstance(user, Mapping) and user.get("name", name) != name
