"""Names of the classes of a network: from a file, from the data, or ``class-N``."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from inception_trainer.errors import DataError, InputMissing
from inception_trainer.launcher import json_text
from inception_trainer.storage import read_data

from .lists import decode_text

IMAGENET_CLASSES = 1000
IMAGENET_DIGEST = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""SHA-256 of the WordNet IDs of ILSVRC-2012, in order and a line each."""


def numbered_names(first: int, end: int) -> tuple[str, ...]:
    """``class-N`` for N in [first, end): what classes are called that nobody has named."""
    return tuple(f"class-{number}" for number in range(first, end))


def given_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, or none where nobody has given any and all of them are numbers."""
    return () if names == numbered_names(0, len(names)) else names


def class_names(path: str | None, names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """The ``classes`` names in the file ``path``, or without one ``names`` and, where they are too
    few, numbers.
    """
    if path is not None:
        return _read(Path(path), classes)
    # A network may have more outputs than the data has classes (data.numClasses).
    return names + numbered_names(len(names), classes)


def readable(names: tuple[str, ...]) -> tuple[str, ...]:
    """What people call the classes of ImageNet where ``names`` are their WordNet IDs in order
    (n01440764 …), as torchvision names them; other names as they are, and so without torchvision.
    """
    if len(names) != IMAGENET_CLASSES or not names[0].startswith("n0"):
        return names
    # ImageNet has other thousands, too: names must not stand at the wrong numbers.
    if hashlib.sha256("\n".join(names).encode()).hexdigest() != IMAGENET_DIGEST:
        return names
    try:
        from torchvision.models import ResNet50_Weights
    except ImportError:
        return names
    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def _read(path: Path, classes: int) -> tuple[str, ...]:
    """One name per line, or JSON; DataError when their number is not that of the classes."""
    try:
        data = read_data(path.read_bytes, f"inference.classNames: {path}")
    except OSError as error:
        raise InputMissing(
            f"inference.classNames: {path} cannot be read: {error.strerror}"
        ) from None
    text = decode_text(data, f"inference.classNames: {path}")
    # Names may begin with any letter but these, so both forms need no setting of their own.
    names = _of_json(text, path) if text.lstrip().startswith(("[", "{")) else _lines(text)
    if len(names) != classes:
        raise DataError(
            f"inference.classNames: {path} names {len(names)} classes, the network knows {classes}"
        )
    return tuple(names)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_json(text: str, path: Path) -> list[str]:
    """A list of names, or an object as publishers have them."""
    try:
        content = json_text.decode(text)
    except ValueError as error:
        raise DataError(f"inference.classNames: {path} is no JSON: {error}") from None
    if isinstance(content, list):
        return [str(name) for name in content]
    # Hugging Face's config.json has the names among much else.
    table = content.get("id2label", content)
    names = _by_number(table) if isinstance(table, dict) else {}
    if not names or sorted(names) != list(range(len(names))):
        raise DataError(
            f"inference.classNames: the object in {path} does not give each of the numbers from 0 "
            'on one name, as {"0": "ash", "1": "birch"} or {"ash": 0, "birch": 1}'
        )
    return [names[number] for number in range(len(names))]


def _by_number(table: dict[str, Any]) -> dict[int, str]:
    """The names by their numbers; without what has none."""
    names: dict[int, str] = {}
    for key, value in table.items():
        if re.fullmatch("[0-9]{1,9}", key):
            # ImageNet's class index gives two names: ["n01440764", "tench"].
            name = value[-1] if isinstance(value, list) and value else value
            names[int(key)] = str(name)
        elif type(value) is int:
            names[value] = key
    return names
