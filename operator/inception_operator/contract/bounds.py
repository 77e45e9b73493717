"""How much of a custom resource the operator takes: depth, number of values, length of texts.

The CRD cannot say it of ``spec.template``, which it takes as it is. A resource beyond it is kept
without the field that is too much, so that it costs no memory and no reader meets it; the job that
it describes is refused with the name of that field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .decoding import UNREADABLE
from .types import Json

MAX_LEVELS: Final = 100
"""Levels of objects and lists in one field of the spec; half of what a text may have."""
MAX_VALUES: Final = 10_000
"""Values in one field of the spec, keys not counted."""
MAX_CHARACTERS: Final = 256 * 1024
"""Characters of all texts of one field of the spec together, keys included."""
_SHOWN: Final = 4


def bounded(resource: Json) -> Json:
    """The resource without the fields of its spec that are too much; the same object if none is.

    `decoding.UNREADABLE` then names the first of them.
    """
    spec = resource.get("spec")
    if not isinstance(spec, dict):
        return resource
    problems = {key: problem for key, value in spec.items() if (problem := _problem(key, value))}
    if not problems:
        return resource
    first = next(iter(problems.values()))
    return {
        UNREADABLE: first,
        **resource,
        "spec": {key: value for key, value in spec.items() if key not in problems},
    }


def _problem(key: str, field: Any) -> tuple[str, str] | None:
    """Path and description of what is too much in a field, None when nothing is."""
    characters = 0
    for values, (value, level, name) in enumerate(_walk(field), 1):
        characters += len(name) + (len(value) if isinstance(value, str) else 0)
        if level > MAX_LEVELS:
            path = ".".join(["spec", key, *_way_down(field)])
            return path, f"is nested more than {MAX_LEVELS} levels deep"
        if values > MAX_VALUES:
            return f"spec.{key}", f"has more than {MAX_VALUES} values"
        if characters > MAX_CHARACTERS:
            return f"spec.{key}", f"has more than {MAX_CHARACTERS // 1024} KiB of text"
    return None


def _walk(field: Any) -> Iterator[tuple[Any, int, str]]:
    """Each value within with its level and its key; without recursion, whatever the depth."""
    waiting = [(field, 0, "")]
    while waiting:
        value, level, name = waiting.pop()
        yield value, level, name
        waiting += [(each, level + 1, key) for key, each in _entries(value)]


def _way_down(field: Any) -> Iterator[str]:
    """The first keys on the way to the deepest place, for people."""
    waiting: list[tuple[Any, tuple[str, ...], int]] = [(field, (), 0)]
    while waiting:
        value, path, level = waiting.pop()
        if level > MAX_LEVELS:
            yield from path
            return
        for key, each in _entries(value):
            below = (*path, key[:63]) if len(path) < _SHOWN - 1 else path
            waiting.append((each, below, level + 1))


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return [(str(number), each) for number, each in enumerate(value)]
    return []
