"""Texts of others without what a terminal obeys, and what the user calls this program.

Names, messages and logs come from tenants. What a terminal would obey (colours, titles, the
clipboard, a cursor that overwrites the line above, text that runs backwards) is taken out.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

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


def clean(text: object) -> str:
    """The text without anything that a terminal obeys; line breaks and tabs stay."""
    # A carriage return draws a line anew: what stood before it was not meant to stay.
    without = _SEQUENCES.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", without)


def clean_line(text: object) -> str:
    """The same on one line."""
    return " ".join(clean(text).split())


def program() -> str:
    """What the user calls this program, for the commands that messages name."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    return "inceptionctl" if name.startswith("inceptionctl") else "kubectl inception"


def command(words: str, options: str) -> str:
    """A command of this program, for a remedy that can be copied; ``options`` say where."""
    return f"{program()} {words}{options}"
