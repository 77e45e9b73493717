"""``recipes``: the named presets that the wheel's trainer brings, read from its files."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click

from .errors import CliError, did_you_mean
from .options import output_option
from .output import document
from .terminal import say, table


@cache
def folder() -> Path:
    """Where they are. The trainer itself is not imported: operator and trainer never import one
    another.
    """
    found = find_spec("inception_trainer")
    places = list(found.submodule_search_locations or []) if found is not None else []
    if not places:
        raise CliError("the package inception_trainer is not installed", "Install the whole wheel.")
    return Path(places[0]) / "recipes"


def names() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def text(name: str) -> str:
    """The file of a recipe."""
    if name not in names():
        remedy = did_you_mean(name, names()) or f"There are: {', '.join(names())}."
        raise CliError(f"there is no recipe {name}", remedy)
    return (folder() / f"{name}.yaml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """What it trains, in one line: the comment at the top of the file."""
    return text(name).partition("\n")[0].lstrip("# ")


@click.command("recipes")
@click.argument("name", required=False)
@output_option("json", "yaml", "name")
def recipes(name: str | None, output: str | None) -> None:
    """List the recipes, or show all keys of one."""
    if name is not None:
        if output == "json":
            import yaml

            say(document(yaml.safe_load(text(name)), "json"))
            return
        say(name if output == "name" else text(name).rstrip("\n"))
        return
    if output == "name":
        say("\n".join(names()))
    elif output is not None:
        say(document({each: summary(each) for each in names()}, output))
    else:
        say(table(("RECIPE", "TRAINS"), [(each, summary(each)) for each in names()]))
