"""Named presets: one YAML file each in this folder; the configuration's own keys override them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from inception_trainer.errors import ConfigError, closest


def names() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    # Not by pathlib: the package may be read out of a zip file.
    entries = [entry.name for entry in files(__name__).iterdir()]
    return tuple(sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml")))


def read(name: str) -> dict[str, Any]:
    """The keys of a recipe; raises ConfigError that lists the names of all."""
    # Checked before a file is opened: the name is a user's and may hold a path.
    recipes = names()
    if name not in recipes:
        nearest = closest(name, recipes)
        raise ConfigError(f"recipe: {name!r} is unknown{nearest}; known: {', '.join(recipes)}")
    data: dict[str, Any] = yaml.safe_load(_text(name))
    return data


def summary(name: str) -> str:
    """The first comment line of the recipe's file."""
    first, _, _ = _text(name).partition("\n")
    return first.lstrip("# ")


def _text(name: str) -> str:
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
