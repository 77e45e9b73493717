"""Reading single fields of a custom resource; what cannot be used is refused with the field and the
remedy.
"""

from __future__ import annotations

from inception_operator.contract.types import Json


class SpecError(ValueError):
    """A job that can never run as it is written. The text names the field and the remedy."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def mapping(source: Json, key: str, path: str = "spec") -> Json:
    """An object, empty when there is none."""
    value = source.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(f"{path}.{key}", "must be an object")
    return value


def integer(source: Json, path: str, key: str, least: int, most: int) -> int | None:
    """A whole number within its limits, None when there is none."""
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SpecError(f"{path}.{key}", f"{value!r} is not a number from {least} to {most}")
    return value
