"""Keeps a dead attempt from writing, at whatever instruction it comes back to life.

A check followed by a write leaves a moment between the two. Here there is none: everything is first
written into a folder that belongs to one attempt, ``.writers/<attempt>``, and appears by a rename
out of it. A successor first makes its own folder, then renames those of all older attempts away,
and only then reads what is there. From that moment on the paths from which an older attempt renames
do not exist any more, so the rename itself fails, atomically. What is removed is renamed into the
folder first, for the same reason.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inception_trainer.errors import Fenced

FOLDER = ".writers"
_RETIRED = "retired-"


class Fence:
    """The right of one attempt to write below a folder. ``floor`` is an attempt known to have held
    it.
    """

    def __init__(self, root: Path, attempt: int, floor: int = 0) -> None:
        self._root, self._attempt, self._floor = root, attempt, floor
        self._own = root / FOLDER / str(attempt)

    def take(self) -> None:
        """Become the writer, unless a newer attempt is; from here on no older attempt can write."""
        self._own.mkdir(parents=True, exist_ok=True)
        try:
            # After the folder is made: of two attempts that do this at once, the older one sees the
            # newer.
            self.check()
        except Fenced:
            shutil.rmtree(self._own, ignore_errors=True)
            raise
        for leftover in self._own.iterdir():
            leftover.unlink(missing_ok=True)
        for attempt in attempts(self._root):
            if attempt < self._attempt:
                with suppress(FileNotFoundError):
                    self._own.with_name(str(attempt)).rename(self._retired(attempt))
        for retired in self._own.parent.glob(f"{_RETIRED}*"):
            shutil.rmtree(retired, ignore_errors=True)

    def check(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""
        holder = max([self._floor, *attempts(self._root)])
        if holder > self._attempt:
            raise Fenced(
                f"attempt {holder} owns {self._root}; attempt {self._attempt} must not write there any more"
            )

    def draft(self, name: str) -> Path:
        """Where to write a file before it is published."""
        return self._own / f"{name}.tmp"

    def publish(self, draft: Path, path: Path) -> None:
        """Give a draft its name."""
        draft.replace(path)

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        draft = self.draft(path.name)
        with suppress(FileNotFoundError):
            path.replace(draft)
            draft.unlink()

    def write(self, path: Path, data: bytes) -> None:
        """A small file that is there whole or not at all, and on the disk."""
        draft = self.draft(path.name)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.publish(draft, path)
        sync_folder(path.parent)

    def _retired(self, attempt: int) -> Path:
        return self._own.with_name(f"{_RETIRED}{attempt}-{os.getpid()}-{time.monotonic_ns()}")


def attempts(root: Path) -> Iterator[int]:
    """Attempts that have a folder of their own."""
    with suppress(FileNotFoundError):
        yield from (int(path.name) for path in (root / FOLDER).iterdir() if path.name.isdigit())


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
