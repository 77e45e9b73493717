"""What reaches the terminal: lines and tables, in colours or without."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import click

from inception_operator.client.text import clean_line
from inception_operator.contract.names import State

_COLOURS: Final = {
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.STARTING: "cyan",
    State.RESTARTING: "yellow",
    State.PENDING: "yellow",
    State.SUSPENDED: "blue",
    State.FAILED: "red",
    State.REJECTED: "red",
}


def is_coloured() -> bool:
    """Whether standard output is a terminal whose user has not switched colours off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and _is_capable()


def _is_capable() -> bool:
    return os.environ.get("TERM") != "dumb"


def state_colour(word: str) -> str | None:
    """The colour of a state; None for none."""
    return _COLOURS.get(word)


def say(text: str = "") -> None:
    """Print a line of the result."""
    click.echo(text, color=is_coloured())


def tell(text: str) -> None:
    """Print a remark that is no part of the result: to standard error."""
    click.echo(text, err=True)


def silence(stream: TextIO) -> None:
    """Send nowhere what is still written: whoever has read it is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(header: Sequence[str], rows: Sequence[Sequence[str]], colour_of: str = "STATE") -> str:
    """Columns by spaces; the states under ``colour_of`` are coloured."""
    lines = [tuple(header), *(tuple(clean_line(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    at = header.index(colour_of) if colour_of in header else -1
    texts = []
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if number and at >= 0:
            cells[at] = click.style(cells[at], fg=state_colour(line[at]))
        texts.append("   ".join(cells).rstrip())
    return "\n".join(texts)
