"""Regular expressions that users write, which must not be able to hold up the operator.

Python's own engine goes back and forth: a pattern of ten characters can keep it busy for years. So
the one that pydantic brings along is asked, the regex crate of Rust: it knows neither look-around
nor back references, and its time grows with the text alone. What a pattern may cost before it sees
any text is bounded here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

from inception_operator.contract.limits import cut_text

from .validation import refusal

MAX_PATTERN: Final = 256
"""Characters of a pattern."""
MAX_TEXT: Final = 4096
"""Characters of a text that a pattern is searched in."""
MAX_STATES: Final = 4000
"""Characters of a pattern times the numbers of its repetitions, such as ``{3}``."""
MAX_CLASSES: Final = 20
"""The same of its classes, such as ``\\w``: each has a table of all the world's scripts."""
_COUNTED: Final = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
# With this flag spaces and comments may stand within a number.
_VERBOSE: Final = re.compile(r"\(\?[a-zA-Z]*x")
_CLASSES: Final = re.compile(r"\\[wWdDsSpP]")


def check(pattern: str) -> str:
    """Refuse a pattern that is none, or that is too much."""
    problem = _problem(pattern)
    if problem:
        raise refusal(problem)
    return pattern


def found(pattern: str, text: str) -> bool:
    """Whether the text has a part that fits a pattern which `check` lets pass."""
    return _compiled(pattern).isinstance_python(cut_text(text, MAX_TEXT))


# A job is parsed in every decision. What is kept of a pattern is its error, not its program, which
# may be a thousand times larger.
@lru_cache(maxsize=10_000)
def _problem(pattern: str) -> str:
    if not pattern:
        return "must not be empty"
    if len(pattern) > MAX_PATTERN:
        return f"has more than {MAX_PATTERN} characters; shorten it"
    if _VERBOSE.search(pattern):
        return "has the flag x, which is not allowed; leave it out"
    copies = _copies(pattern)
    if len(pattern) * copies > MAX_STATES or len(_CLASSES.findall(pattern)) * copies > MAX_CLASSES:
        return (
            "is too much: its characters times the numbers of its repetitions may be "
            f"{MAX_STATES}, its classes such as \\w times these {MAX_CLASSES}; use * or + instead "
            "of numbers, and [a-z] instead of classes"
        )
    try:
        _compiled(pattern)
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
        return f"is no regular expression: {reason}; the syntax is that of RE2"
    return ""


def _copies(pattern: str) -> int:
    """How often its parts are repeated at most, had each repetition all the others within."""
    copies = 1
    for counted in _COUNTED.finditer(pattern):
        copies *= max([1, *(int(number[:9]) for number in counted.groups() if number)])
    return copies


def _compiled(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
