"""``recipes``: the named presets, and all keys of one."""

from __future__ import annotations

import click

from inception_operator.client.recipes import names, summary, text

from .options import output_option
from .output import document
from .terminal import say, table


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
