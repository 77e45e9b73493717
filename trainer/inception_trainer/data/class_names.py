"""Names of the classes of a network: from a file, from the data, or ``class-N``."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
    """One name per line, or a JSON list; DataError when their number is not that of the classes."""
    try:
        data = read_data(path.read_bytes, f"inference.classNames: {path}")
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
        return [str(name) for name in json_text.decode(text)]
    except ValueError as error:
        raise DataError(f"inference.classNames: {path} is no list in JSON: {error}") from None
