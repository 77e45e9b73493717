"""Describes the content of a folder in one line.

An error about a wrong layout shows it beside what was expected, so that nobody has to open a shell
in the pod.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from inception_trainer.stores import AnyPath

MOST_SHOWN = 6
"""Names shown of each folder."""
MOST_LISTED = 1000
"""Entries looked at: a class folder may hold a million files."""


def describe_folder(root: AnyPath, depth: int = 2) -> str:
    """``a.txt, train/ (cat/, dog/), val/ (empty)``, or that there is no such folder."""
    if not root.is_dir():
        return f"no folder {root}"
    return _names(root, depth) or "an empty folder"


def _names(folder: AnyPath, depth: int) -> str:
    entries: Iterable[AnyPath] = folder.iterdir()
    # Folders first: they show the layout, and files beside them are mostly of no account.
    some = sorted(islice(entries, MOST_LISTED), key=lambda path: (path.is_file(), path.name))
    shown = [_entry(path, depth) for path in some[:MOST_SHOWN]]
    return ", ".join([*shown, "..."] if len(some) > MOST_SHOWN else shown)


def _entry(path: AnyPath, depth: int) -> str:
    if not path.is_dir():
        return path.name
    if depth <= 1:
        return f"{path.name}/"
    return f"{path.name}/ ({_names(path, depth - 1) or 'empty'})"
