"""The named presets that the wheel's trainer brings, read from its files."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import ClientError, did_you_mean
from .text import program


@cache
def folder() -> Path:
    """Where they are. The trainer itself is not imported: operator and trainer never import one
    another.
    """
    found = find_spec("inception_trainer")
    places = list(found.submodule_search_locations or []) if found is not None else []
    if not places:
        raise ClientError(
            "the package inception_trainer is not installed", "Install the whole wheel."
        )
    return Path(places[0]) / "recipes"


def names() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def text(name: str) -> str:
    """The file of a recipe."""
    if name not in names():
        remedy = did_you_mean(name, names()) or f"There are: {', '.join(names())}."
        raise ClientError(f"there is no recipe {name}", remedy)
    return (folder() / f"{name}.yaml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """What it trains, in one line: the comment at the top of the file."""
    return text(name).partition("\n")[0].lstrip("# ")


def asked_for(name: str, field: str, otherwise: str, code: int) -> None:
    """Refuse a recipe that is not there; ``otherwise`` asks for one of another trainer image."""
    if name not in names():
        raise ClientError(
            f"{field} {name}: there is no such recipe",
            did_you_mean(name, names())
            or f"`{program()} recipes` lists them; {otherwise} asks for one of another trainer "
            "image.",
            code,
        )
