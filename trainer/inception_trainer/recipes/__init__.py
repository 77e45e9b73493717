"""Named presets: one YAML file each in this folder; the configuration's own keys override them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from inception_trainer.errors import ConfigError, closest


def names() -> tuple[str, ...]:
    """All known recipes, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


def read(name: str) -> dict[str, Any]:
    """The preset's keys; raises ConfigError listing the known ones."""
    known = names()
    if name not in known:
        raise ConfigError(
            f"recipe: {name!r} is unknown{closest(name, known)}; known: {', '.join(known)}"
        )
    data: dict[str, Any] = yaml.safe_load(
        files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    )
    return data


def summary(name: str) -> str:
    """The first comment line of the recipe's file."""
    text = files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].lstrip("# ")
