"""Names of the classes of a network: from a file, from the data, or ``class-N``."""

from __future__ import annotations

import json
from pathlib import Path

from inception_trainer.errors import DataError, InputMissing

from .lists import decode_text


def numbered_names(first: int, end: int) -> tuple[str, ...]:
    """``class-N`` for N in [first, end): what classes are called that nobody has named."""
    return tuple(f"class-{number}" for number in range(first, end))


def class_names(path: str | None, names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """The ``classes`` names in the file ``path``, or without one ``names`` and, where they are too
    few, numbers.
    """
    if path is not None:
        return _read(Path(path), classes)
    # A network may have more outputs than the data has classes (data.numClasses).
    return names + numbered_names(len(names), classes)


def _read(path: Path, classes: int) -> tuple[str, ...]:
    """One name per line, or a JSON list; DataError when their number is not that of the classes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputMissing(
            f"inference.classNames: {path} cannot be read: {error.strerror}"
        ) from None
    text = decode_text(data, f"inference.classNames: {path}")
    # Names may begin with any letter but this one, so both forms need no setting of their own.
    names = _json_list(text, path) if text.lstrip().startswith("[") else _lines(text)
    if len(names) != classes:
        raise DataError(
            f"inference.classNames: {path} names {len(names)} classes, the network knows {classes}"
        )
    return tuple(names)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json_list(text: str, path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(text)]
    except ValueError as error:
        raise DataError(f"inference.classNames: {path} is no list in JSON: {error}") from None
