"""What the classes of a network are called."""

from __future__ import annotations

import json
from pathlib import Path

from inception_trainer.errors import DataError, InputMissing


def class_names(path: str | None, known: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """The names in the file that the configuration names, else the known ones; numbers where there
    is none.
    """
    if path is not None:
        return _read(Path(path), classes)
    return (*known, *(f"class-{number}" for number in range(len(known), classes)))


def _read(path: Path, classes: int) -> tuple[str, ...]:
    """One name per line, or a JSON list; DataError when their number is not that of the classes."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputMissing(
            f"inference.classNames: {path} cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"inference.classNames: {path} is no text in UTF-8") from None
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
