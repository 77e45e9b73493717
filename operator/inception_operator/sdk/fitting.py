"""The fields of a spec as Python has them, made fit for the API. Pure.

The API server has the last word, and says which field is wrong. Here is said what it cannot see, or
would say in its own terms: a keyword that is none, and decimal numbers, which are strings there.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from inception_operator.client.errors import USAGE, ClientError, did_you_mean
from inception_operator.contract.types import Json

from .fields import Spec


def fitted(spec: Mapping[str, Any]) -> Json:
    """The spec with its values as the API has them, without what is None."""
    found: Json = _fit(spec, Spec, "")
    return found


def _fit(value: Any, kind: Any, path: str) -> Any:
    if is_typeddict(kind):
        return _section(value, kind, path)
    if get_origin(kind) is list and isinstance(value, list | tuple):
        (item,) = get_args(kind)
        return [_fit(one, item, f"{path}[{number}]") for number, one in enumerate(value)]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Real):
        return _decimal(value, path) if float in get_args(kind) else _plain(value)
    return value


def _section(value: Any, kind: Any, path: str) -> Json:
    if not isinstance(value, Mapping):
        raise ClientError(f"{path} must be a dict, not {value!r}", code=USAGE)
    kinds = get_type_hints(kind)
    for key in value:
        if key not in kinds:
            raise ClientError(
                f"there is no field {_join(path, key)}",
                did_you_mean(str(key), kinds) or f"There are: {', '.join(sorted(kinds))}.",
                USAGE,
            )
    return {
        key: _fit(one, kinds[key], _join(path, key))
        for key, one in value.items()
        if one is not None
    }


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _decimal(value: numbers.Real, path: str) -> str:
    """A number as the API's strings have it, without an exponent: not every field takes one."""
    number = float(value)
    if not math.isfinite(number):
        raise ClientError(f"{path} must be a number, not {value}", code=USAGE)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    return f"{Decimal(repr(number)).normalize():f}"


def _plain(value: numbers.Real) -> int | float:
    """A number of Python's own: numpy's is none that JSON has."""
    return int(value) if isinstance(value, numbers.Integral) else float(value)
