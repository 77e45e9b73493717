"""What lies among images and is none: hidden names, and files of other kinds.

Notebooks, file managers, network storage and the archives of other systems leave files and folders
of their own beside images: ``.ipynb_checkpoints``, ``._x.png``, ``@eaDir``, ``__MACOSX``. Taken for
a class, such a folder would shift the number of every class behind it. They are left out the same
way in folders, lists, shards and mode Infer, and the log says so once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

IMAGE_SUFFIXES = (
    # What torchvision calls images …
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    # … and what Pillow reads besides. The list is fixed: which files belong to a data set must not
    # depend on what is installed where it is read.
    *(".jpe", ".jfif", ".apng", ".gif", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
)
"""How the names of images end, in small letters."""
HIDDEN_NAMES = frozenset(
    {
        "__macosx",  # archives made on macOS
        "@eadir",  # Synology
        "@recycle",  # QNAP
        "@recently-snapshot",
        "@__thumb",
        "#recycle",
        "#snapshot",
        "lost+found",  # the top of every ext4 volume
        "$recycle.bin",  # Windows
        "system volume information",
        "thumbs.db",
        "desktop.ini",
        "__pycache__",
    }
)
"""Names that programs use for their own files, in small letters; beside all that begin with a dot.
"""
LITTER = frozenset({".ipynb_checkpoints", ".appledouble", ".ds_store", *HIDDEN_NAMES})
"""Folders that a list of files names by mistake only."""
MOST_EXAMPLES = 3
MOST_SUFFIXES = 5
"""Kinds of files that the log names."""
LONGEST_SUFFIX = 12
"""Characters behind the last dot that are still the kind of a file, not a part of its name."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of the data, by its name alone."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def is_litter(name: str) -> bool:
    """The same for a path in a list or a shard.

    Whoever lists ``.cache/x.png`` means it, so of the folders only those count that nobody means.
    """
    *folders, last = name.rstrip("/").split("/")
    return is_hidden(last) or any(folder.lower() in LITTER for folder in folders)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as names of images do."""
    return name.lower().endswith(IMAGE_SUFFIXES)


class _Tally:
    """How many there were, and the first few of them."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: list[str] = []

    def add(self, name: str, count: int = 1) -> None:
        self.count += count
        if len(self._examples) < MOST_EXAMPLES:
            self._examples.append(name)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self._examples) else ""
        return ", ".join(self._examples) + more


class Ignored:
    """Counts what is left out while data is opened, and says it in one line per reason."""

    def __init__(self) -> None:
        self._hidden = _Tally()
        self._other_kinds = _Tally()
        self._suffixes: Counter[str] = Counter()
        self._outside = _Tally()
        self._dangling = _Tally()
        self._notes: list[str] = []

    def visible(self, names: Iterable[str], folder: str) -> list[str]:
        """The names that are not hidden; the others are counted."""
        visible: list[str] = []
        for name in names:
            if is_hidden(name):
                self.hide(f"{folder}/{name}")
            else:
                visible.append(name)
        return visible

    def images(self, names: Iterable[str], folder: str) -> list[str]:
        """The names of images, sorted; all others are counted."""
        # Sorted, because a directory lists its files in an order of its own on every machine.
        ordered = sorted(names)
        # No hidden name ends like an image unless it begins with a dot. Without calls for each,
        # because ImageNet has a million.
        images = [
            name
            for name in ordered
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
        if len(images) == len(ordered):
            return images
        taken = set(images)
        others = (name for name in ordered if name not in taken)
        for name in self.visible(others, folder):
            self._other_kinds.add(f"{folder}/{name}")
            self._suffixes[_suffix(name)] += 1
        return images

    def hide(self, path: str, count: int = 1) -> None:
        """Count a hidden name."""
        self._hidden.add(path, count)

    def outside(self, path: str) -> None:
        """Count an image that lies in no class."""
        self._outside.add(path)

    def dangling(self, names: Iterable[str], folder: str) -> None:
        """Count links that lead nowhere, unless they are hidden."""
        for name in sorted(self.visible(names, folder)):
            self._dangling.add(f"{folder}/{name}")

    def note(self, text: str) -> None:
        """Say something else that was found, once."""
        if text not in self._notes:
            self._notes.append(text)

    def lines(self) -> tuple[str, ...]:
        """What was left out and why, a line for each reason."""
        lines: list[str] = []
        if self._hidden.count:
            lines.append(f"ignored {_counted(self._hidden.count, 'hidden name')}: {self._hidden}")
        if self._other_kinds.count:
            most = self._suffixes.most_common(MOST_SUFFIXES)
            kinds = ", ".join(f"{count:,} x {suffix}" for suffix, count in most)
            kinds += ", ..." if len(self._suffixes) > len(most) else ""
            files = _counted(self._other_kinds.count, "file")
            lines.append(
                f"ignored {files} that by their names are no images ({kinds}): {self._other_kinds}"
            )
        if self._outside.count:
            lines.append(
                f"ignored {_counted(self._outside.count, 'image')} beside the folders of the "
                f"classes: {self._outside}"
            )
        if self._dangling.count:
            links = _counted(self._dangling.count, "link")
            lines.append(f"ignored {links} to what is not there: {self._dangling}")
        return (*lines, *self._notes)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _suffix(name: str) -> str:
    """``.txt``, or what a name without a suffix is called."""
    _, dot, suffix = name.rpartition(".")
    if not dot or not suffix or len(suffix) > LONGEST_SUFFIX:
        return "no suffix"
    return f".{suffix.lower()}"
