"""What lies in a folder, in one line: an error about a wrong layout shows it beside what was
expected.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from inception_trainer.stores import AnyPath

MOST = 6
"""Names shown of each folder."""


def found_tree(root: AnyPath, depth: int = 2) -> str:
    """``a.txt, train/ (cat/, dog/), val/ (empty)``, or that there is no such folder."""
    if not root.is_dir():
        return f"no folder {root}"
    return _names(root, depth) or "an empty folder"


def _names(folder: AnyPath, depth: int) -> str:
    # A class folder may hold a million files: only so many are looked at.
    entries: Iterable[AnyPath] = folder.iterdir()
    some = sorted(islice(entries, 1000), key=lambda path: (path.is_file(), path.name))
    shown = [_entry(path, depth) for path in some[:MOST]]
    return ", ".join([*shown, "..."] if len(some) > MOST else shown)


def _entry(path: AnyPath, depth: int) -> str:
    if not path.is_dir():
        return path.name
    if depth <= 1:
        return f"{path.name}/"
    return f"{path.name}/ ({_names(path, depth - 1) or 'empty'})"
