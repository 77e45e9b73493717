"""What reaches the terminal: text of others without its control sequences, and colours or none.

Names, messages and logs come from tenants. What a terminal would obey (colours, titles, the
clipboard, a cursor that overwrites the line above, text that runs backwards) is taken out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import click

from inception_operator.contract.names import State

_SEQUENCES: Final = re.compile(
    # A string up to its end (title, clipboard, links); without an end, up to the end of the line.
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    # A control sequence such as colours and cursor moves.
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    # Two characters, such as a reset.
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
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


def clean(text: object) -> str:
    """The text without anything that a terminal obeys; line breaks and tabs stay."""
    # A carriage return draws a line anew: what stood before it was not meant to stay.
    without = _SEQUENCES.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", without)


def clean_line(text: object) -> str:
    """The same on one line."""
    return " ".join(clean(text).split())


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


def program() -> str:
    """What the user calls this program, for the commands that messages name."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    return "inceptionctl" if name.startswith("inceptionctl") else "kubectl inception"
