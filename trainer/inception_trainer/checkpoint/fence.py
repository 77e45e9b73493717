"""The fence of a checkpoint folder: keeps a dead attempt from writing, at whatever instruction it
comes back to life.

A check followed by a write leaves a moment between the two. Here there is none: everything is first
written into a folder that belongs to one attempt, ``.writers/<attempt>``, and appears by a rename
out of it. A successor first makes its own folder, then renames those of all older attempts away,
and only then reads what is there. From that moment on the paths from which an older attempt renames
do not exist any more, so the rename itself fails, atomically. What is removed is renamed into the
folder first, for the same reason.

It takes a file system with atomic renames, as POSIX and NFS have them. Object stores have none and
need another way (``object_store``).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from inception_trainer.errors import Fenced

WRITERS_FOLDER = ".writers"
_RETIRED = "retired-"


class Fence:
    """The right of one attempt to write below a folder.

    ``floor`` is the number of an attempt that is known to have held it, from the lease.
    """

    def __init__(self, root: Path, attempt: int, floor: int = 0) -> None:
        self._root = root
        self._attempt = attempt
        self._floor = floor
        self._folder = root / WRITERS_FOLDER / str(attempt)

    def take(self) -> None:
        """Become the writer; from here on no older attempt can write.

        Raises Fenced when a newer attempt is the writer.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            # After the folder is made: of two attempts that do this at once, the older one sees the
            # newer.
            self.check()
        except Fenced:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        # Drafts of an earlier process of this same attempt, which was killed.
        for leftover in self._folder.iterdir():
            leftover.unlink(missing_ok=True)
        for attempt in attempts(self._root):
            if attempt < self._attempt:
                # Renamed and not deleted: a delete takes many steps, in the middle of which the
                # older attempt could still publish a draft.
                with suppress(FileNotFoundError):
                    self._folder.with_name(str(attempt)).rename(self._retired(attempt))
        for retired in self._folder.parent.glob(f"{_RETIRED}*"):
            shutil.rmtree(retired, ignore_errors=True)

    def check(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""
        holder = max([self._floor, *attempts(self._root)])
        if holder > self._attempt:
            raise Fenced(
                f"attempt {holder} owns {self._root}; "
                f"attempt {self._attempt} must not write there any more"
            )

    def draft(self, name: str) -> Path:
        """Where to write a file before it is published."""
        return self._folder / f"{name}.tmp"

    def publish(self, draft: Path, path: Path) -> None:
        """Give a draft its name; FileNotFoundError once a successor has taken the folder."""
        draft.replace(path)

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        draft = self.draft(path.name)
        # The rename is what can fail when this attempt is fenced; unlink alone would go through.
        with suppress(FileNotFoundError):
            path.replace(draft)
            draft.unlink()

    def write(self, path: Path, data: bytes) -> None:
        """Write a small file that is there whole or not at all, even after a power failure."""
        draft = self.draft(path.name)
        with draft.open("wb") as file:
            file.write(data)
            sync_file(file)
        self.publish(draft, path)
        sync_folder(path.parent)

    def _retired(self, attempt: int) -> Path:
        # A name that no earlier process has used, also where pods of two nodes have the same pid.
        return self._folder.with_name(f"{_RETIRED}{attempt}-{os.getpid()}-{time.monotonic_ns()}")


def attempts(root: Path) -> Iterator[int]:
    """Numbers of the attempts that have a folder of their own below ``root``."""
    with suppress(FileNotFoundError):
        for path in (root / WRITERS_FOLDER).iterdir():
            if path.name.isdigit():
                yield int(path.name)


def sync_file(file: BinaryIO) -> None:
    """Put what was written to a file on the disk, before the file is renamed.

    Some file systems put a new name on the disk before the content; a crash in between would leave
    an empty file under it.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: fsync of a file does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
