"""Plain data into frozen dataclasses, with errors that name the key, the value and the remedy.

A dataclass field ``learning_rate`` is read from the key ``learningRate``. Its type hint says what
is accepted (``int``, ``float``, ``bool``, ``str``, ``X | None``, ``tuple[int, ...]`` or another
dataclass) and its metadata, made by :func:`key`, what is allowed. Floats may be given as strings,
because Kubernetes objects hold no decimals.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from inception_trainer.errors import ConfigError, closest

T = TypeVar("T")


def key(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field with its default and the values it allows."""
    metadata = {
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


def camel(name: str) -> str:
    """``learning_rate`` to ``learningRate``."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def parse(kind: type[T], data: Any, path: str = "") -> T:
    """Build ``kind`` from a mapping with camelCase keys; raises ConfigError naming the full key."""
    where = path or "the configuration"
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: {data!r} is not a mapping; write its keys below it")
    fields = {camel(field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in data.items():
        full = f"{path}.{name}" if path else str(name)
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise ConfigError(
                f"{full}: unknown key{closest(str(name), fields)}; known here: {known}"
            )
        field = fields[name]
        values[field.name] = _value(hints[field.name], value, full, field.metadata)
    return kind(**values)


def dump(value: Any) -> Any:
    """The reverse of :func:`parse`: plain data with camelCase keys, empty values left out."""
    if dataclasses.is_dataclass(value):
        pairs = ((camel(f.name), dump(getattr(value, f.name))) for f in dataclasses.fields(value))
        return {name: item for name, item in pairs if item is not None and item != {}}
    return list(value) if isinstance(value, tuple) else value


def _value(hint: Any, value: Any, path: str, limits: Mapping[str, Any]) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast("type[Any]", hint), {} if value is None else value, path)
    if typing.get_origin(hint) is tuple:
        return _items(hint, value, path, limits)
    result = _SCALARS[hint](value, path)
    _check(result, path, limits)
    return result


def _items(hint: Any, value: Any, path: str, limits: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: {value!r} is not a list; write it as [1, 2, 3]")
    item = typing.get_args(hint)[0]
    return tuple(_value(item, entry, f"{path}[{i}]", limits) for i, entry in enumerate(value))


def _integer(value: Any, path: str) -> int:
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
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
    if isinstance(value, str):
        return value
    raise ConfigError(f"{path}: {value!r} is not a text; put it into quotes")


_SCALARS = {int: _integer, float: _decimal, bool: _boolean, str: _text}


_RULES: tuple[tuple[str, str, Callable[[float, float], bool]], ...] = (
    ("at_least", "at least", operator.ge),
    ("above", "greater than", operator.gt),
    ("at_most", "at most", operator.le),
    ("below", "less than", operator.lt),
)


def _check(value: Any, path: str, limits: Mapping[str, Any]) -> None:
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise ConfigError(
            f"{path}: {value!r} is unknown{closest(str(value), choices)}; choose {', '.join(choices)}"
        )
    for name, words, holds in _RULES:
        bound = limits.get(name)
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{path}: {value!r} is out of range; it must be {words} {bound:g}")
