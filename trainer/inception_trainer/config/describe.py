"""What the configuration classes say of their keys: for the API's schema, ``--help`` and
``explain``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .declare import Api, Limits, camel
from .schema import BOUNDS, keys, without_none

TYPES = {int: "whole number", float: "decimal", bool: "true or false", str: "text"}
SECTION = "section"


@dataclass(frozen=True)
class Described:
    """One key or section as people read of it."""

    path: str
    """As after ``--set``: ``optimizer.momentum``; empty for the whole configuration."""
    type: str
    facts: tuple[str, ...]
    """Default and bounds."""
    text: str


def described(kind: type[Any], path: str = "") -> Iterator[Described]:
    """A section and everything below it, in the order of its declaration."""
    yield Described(path, SECTION, (), section_description(kind))
    hints = typing.get_type_hints(kind)
    texts = key_descriptions(kind)
    for field in keys(kind):
        hint = without_none(hints[field.name])
        below = f"{path}.{camel(field.name)}" if path else camel(field.name)
        if dataclasses.is_dataclass(hint):
            yield from described(typing.cast("type[Any]", hint), below)
        else:
            yield Described(below, _type(hint), tuple(_facts(field)), texts[field.name])


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"list of {TYPES[typing.get_args(hint)[0]]}s"
    return TYPES[hint]


def _facts(field: dataclasses.Field[Any]) -> Iterator[str]:
    limits: Limits = field.metadata["limits"]
    api: Api = field.metadata["api"]
    yield f"default {_value(field.default)}"
    choices = limits.choices or api.choices
    if choices:
        yield f"one of {', '.join(choices)}"
    for name, words, _ in BOUNDS:
        bound = getattr(limits, name)
        if bound is not None:
            yield f"{words} {bound:.12g}"
    if api.maximum is not None:
        yield f"in the cluster at most {api.maximum}"


def _value(default: Any) -> str:
    # None stands for "nothing", and for a default that depends on other keys: the text says which.
    if default is None or default in ((), ""):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return f"[{', '.join(default)}]"
    return f"{default:.12g}" if isinstance(default, float) else str(default)


def key_descriptions(kind: type[Any]) -> dict[str, str]:
    """The texts below the fields of a class, by field: Python keeps them in the source alone."""
    definition = _classes(kind.__module__)[kind.__qualname__]
    texts: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(below, ast.Expr):
            continue
        text = ast.literal_eval(below.value)
        texts[ast.unparse(field.target)] = " ".join(text.split())
    return texts


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module by their names; parsed once, since inspect would parse the module
    again for each class.
    """
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def section_description(kind: type[Any]) -> str:
    """The first paragraph of the docstring of a section."""
    first, _, _ = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")
    return " ".join(first.split())
