"""Plain data into the dataclasses of the configuration and back, with errors that name the key,
the value and the remedy.

A dataclass field ``learning_rate`` is read from the key ``learningRate``. Its type hint says what
is accepted (``int``, ``float``, ``bool``, ``str``, ``X | None``, ``tuple[int, ...]`` or another
dataclass) and :func:`.declare.key` which values. Floats may be given as strings, because
Kubernetes objects hold no decimals: other languages would read other numbers from them.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from inception_trainer.errors import ConfigError, closest

from .declare import Limits, camel

T = TypeVar("T")


def parse(kind: type[T], data: Any, path: str = "") -> T:
    """Build ``kind`` from a mapping with camelCase keys; raises ConfigError naming the full key."""
    where = path or "the configuration"
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: {data!r} is not a mapping; write its keys below it")
    fields = {camel(field.name): field for field in keys(kind)}
    # dataclasses.Field.type is a text under `from __future__ import annotations`.
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in data.items():
        full = f"{path}.{name}" if path else str(name)
        field = fields.get(name)
        if field is None:
            nearest = closest(str(name), fields)
            names = ", ".join(sorted(fields))
            raise ConfigError(f"{full}: unknown key{nearest}; known here: {names}")
        limits = field.metadata.get("limits", Limits())
        values[field.name] = _value(hints[field.name], value, full, limits)
    return kind(**values)


def dump(value: Any) -> Any:
    """The reverse of :func:`parse`: plain data with camelCase keys, empty values left out."""
    if isinstance(value, tuple):
        return list(value)
    if not dataclasses.is_dataclass(value):
        return value
    plain: dict[str, Any] = {}
    for field in keys(value):
        item = dump(getattr(value, field.name))
        # None is how a key that was left out is read again; so a dump parses to the same value.
        if item is not None and item != {}:
            plain[camel(field.name)] = item
    return plain


def keys(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a section that a configuration may name."""
    return tuple(field for field in dataclasses.fields(kind) if field.metadata.get("in_file", True))


def without_none(hint: Any) -> Any:
    """``int | None`` to ``int``; other hints as they are."""
    if not isinstance(hint, types.UnionType):
        return hint
    return next(option for option in typing.get_args(hint) if option is not type(None))


def _value(hint: Any, value: Any, path: str, limits: Limits) -> Any:
    if isinstance(hint, types.UnionType) and value is None:
        return None
    hint = without_none(hint)
    if dataclasses.is_dataclass(hint):
        # YAML reads a section whose keys are all commented out as null.
        return parse(typing.cast("type[Any]", hint), {} if value is None else value, path)
    if typing.get_origin(hint) is tuple:
        return _items(hint, value, path, limits)
    result = _SCALARS[hint](value, path)
    _check(result, path, limits)
    return result


def _items(hint: Any, value: Any, path: str, limits: Limits) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: {value!r} is not a list; write it as [1, 2, 3]")
    item = typing.get_args(hint)[0]
    entries = []
    # The limits of a list are those of each of its entries.
    for index, entry in enumerate(value):
        entries.append(_value(item, entry, f"{path}[{index}]", limits))
    return tuple(entries)


def _integer(value: Any, path: str) -> int:
    # `--set` and environment variables of other tools hand over texts.
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
        value = int(value)
    # JSON written by other languages may hold 3.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # In Python True is an integer; in a configuration `epochs: true` is a mistake.
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{path}: {value!r} is not a whole number; give one such as 2")
    return value


def _decimal(value: Any, path: str) -> float:
    wrong = ConfigError(f"{path}: {value!r} is not a number; give a decimal such as 0.1")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        result = float(value)
    except ValueError:
        raise wrong from None
    # float() reads "nan" and "inf", and every comparison with nan would let it pass.
    if not math.isfinite(result):
        raise wrong
    return result


def _boolean(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(
        f"{path}: {value!r} is neither true nor false; give one of them without quotes"
    )


def _text(value: Any, path: str) -> str:
    # Not str(value): YAML reads 1e3 and yes as a number and a boolean, and neither was meant.
    if isinstance(value, str):
        return value
    raise ConfigError(f"{path}: {value!r} is not a text; put it into quotes")


_SCALARS = {int: _integer, float: _decimal, bool: _boolean, str: _text}
BOUNDS: tuple[tuple[str, str, Callable[[float, float], bool]], ...] = (
    ("at_least", "at least", operator.ge),
    ("above", "greater than", operator.gt),
    ("at_most", "at most", operator.le),
    ("below", "less than", operator.lt),
)
"""The fields of :class:`.declare.Limits`, in words, and when a value holds them."""


def _check(value: Any, path: str, limits: Limits) -> None:
    choices = limits.choices
    if choices is not None and value not in choices:
        nearest = closest(str(value), choices)
        raise ConfigError(f"{path}: {value!r} is unknown{nearest}; choose {', '.join(choices)}")
    for name, words, holds in BOUNDS:
        bound = getattr(limits, name)
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{path}: {value!r} is out of range; it must be {words} {bound:g}")
