"""The part of JSON Schema that ``profiles/schema.json`` is written in.

The operator's image has no validator of its own, and the file should be the only place that says
what a row may hold: the chart's values are checked against the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

SCHEMA_FILE: Final = Path(__file__).with_name("profiles") / "schema.json"
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES: Final = frozenset(("$schema", "$defs", "title", "description", "format"))

Schema = Mapping[str, Any]


class RowError(ValueError):
    """A value that the schema refuses; the text names the key."""


@cache
def schema() -> Schema:
    """The schema of a row."""
    loaded: Schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def check(row: Any) -> None:
    """Raise `RowError` for the first thing that the schema refuses."""
    _check(schema(), row, "")


def _check(node: Schema, value: Any, path: str) -> None:
    for keyword, argument in node.items():
        if keyword not in _NOTES:
            _KEYWORDS[keyword](argument, value, path, node)


def _refuse(path: str, problem: str) -> None:
    raise RowError(f"{path.lstrip('.')}: {problem}" if path else problem)


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean") is isinstance(value, bool)


def _ref(argument: Any, value: Any, path: str, node: Schema) -> None:
    _check(schema()["$defs"][argument.rsplit("/", 1)[1]], value, path)


def _type(argument: Any, value: Any, path: str, node: Schema) -> None:
    kinds = [argument] if isinstance(argument, str) else argument
    if not any(_is(value, kind) for kind in kinds):
        _refuse(
            path,
            f"must be {' or '.join('a mapping' if kind == 'object' else kind for kind in kinds)}",
        )


def _enum(argument: Any, value: Any, path: str, node: Schema) -> None:
    if value not in argument:
        _refuse(path, f"{value!r} is none of {', '.join(map(str, argument))}")


def _any_of(argument: Any, value: Any, path: str, node: Schema) -> None:
    problems = []
    for option in argument:
        try:
            return _check(option, value, path)
        except RowError as error:
            problems.append(str(error))
    _refuse("", problems[-1])
    return None


def _pattern(argument: Any, value: Any, path: str, node: Schema) -> None:
    if isinstance(value, str) and not re.search(argument, value):
        _refuse(path, f"{value!r} does not match {argument}")


def _limit(
    holds: Callable[[Any, Any], bool], kind: type, words: str
) -> Callable[[Any, Any, str, Schema], None]:
    def check_limit(argument: Any, value: Any, path: str, node: Schema) -> None:
        if isinstance(value, kind) and not isinstance(value, bool) and not holds(value, argument):
            _refuse(path, words.format(argument))

    return check_limit


def _items(argument: Any, value: Any, path: str, node: Schema) -> None:
    first = len(node.get("prefixItems", ()))
    if isinstance(value, list):
        for index, item in enumerate(value[first:], first):
            _check(argument, item, f"{path}[{index}]")


def _prefix_items(argument: Any, value: Any, path: str, node: Schema) -> None:
    if isinstance(value, list):
        for index, (part, item) in enumerate(zip(argument, value, strict=False)):
            _check(part, item, f"{path}[{index}]")


def _unique(argument: Any, value: Any, path: str, node: Schema) -> None:
    if isinstance(value, list) and any(item in value[:index] for index, item in enumerate(value)):
        _refuse(path, "has an entry twice")


def _required(argument: Any, value: Any, path: str, node: Schema) -> None:
    for key in argument:
        if isinstance(value, dict) and key not in value:
            _refuse(f"{path}.{key}", "missing")


def _properties(argument: Any, value: Any, path: str, node: Schema) -> None:
    if isinstance(value, dict):
        for key in argument.keys() & value.keys():
            _check(argument[key], value[key], f"{path}.{key}")


def _additional(argument: Any, value: Any, path: str, node: Schema) -> None:
    if not isinstance(value, dict):
        return
    for key in sorted(value.keys() - node.get("properties", {}).keys(), key=str):
        if argument is False:
            _refuse(f"{path}.{key}", "unknown key")
        _check(argument, value[key], f"{path}.{key}")


def _property_names(argument: Any, value: Any, path: str, node: Schema) -> None:
    if isinstance(value, dict):
        for key in value:
            _check(argument, key, f"{path}.{key}")


_KEYWORDS: Final[Mapping[str, Callable[[Any, Any, str, Schema], None]]] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "anyOf": _any_of,
    "pattern": _pattern,
    "minLength": _limit(
        lambda text, least: len(text) >= least, str, "must have at least {} characters"
    ),
    "maxLength": _limit(
        lambda text, most: len(text) <= most, str, "must have at most {} characters"
    ),
    "minimum": _limit(lambda number, least: number >= least, int, "must be at least {}"),
    "maximum": _limit(lambda number, most: number <= most, int, "must be at most {}"),
    "minItems": _limit(
        lambda entries, least: len(entries) >= least, list, "must have at least {} entries"
    ),
    "maxItems": _limit(
        lambda entries, most: len(entries) <= most, list, "must have at most {} entries"
    ),
    "maxProperties": _limit(
        lambda entries, most: len(entries) <= most, dict, "must have at most {} keys"
    ),
    "items": _items,
    "prefixItems": _prefix_items,
    "uniqueItems": _unique,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _property_names,
}
