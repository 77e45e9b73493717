"""The fence of a checkpoint folder: keeps a dead attempt from writing, at whatever instruction it
comes back to life. Which of two attempts is the newer one is said by :mod:`.owner`.

A check followed by a write leaves a moment between the two. Here there is none: everything is first
written into a folder that belongs to one attempt of one job, ``.writers/<owner>``, and appears by a
rename out of it. A successor first makes its own folder, then renames those of all older attempts
away, and only then reads what is there. From that moment on the paths from which an older attempt
renames do not exist any more, so the rename itself fails, atomically. What is removed is renamed
into the folder first, for the same reason.

It takes a file system with atomic renames, as POSIX and NFS have them. Object stores have none and
need another way (``object_store``).
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from inception_trainer.errors import TrainerError

from .owner import Owner, check_newest, fenced_by, parse_owner, refused

WRITERS_FOLDER = ".writers"
_RETIRED = "retired-"
_OPEN_ON_NFS = ".nfs"
_NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))
"""What file systems answer that cannot sync a folder, or nothing: some of networks and of FUSE."""
REMEDY = f"remove lease.json and {WRITERS_FOLDER} there"
"""How people give a folder away that belongs to a job which is gone."""


class Fence:
    """The right of one attempt of a job to write below a folder.

    ``lease`` is who is known to have held it last, from lease.json.
    """

    def __init__(self, root: Path, owner: Owner, lease: Owner | None = None) -> None:
        self._root = root
        self._owner = owner
        self._lease = lease
        self._folder = root / WRITERS_FOLDER / owner.encode()
        self._made = False

    def take(self) -> None:
        """Become the writer; from here on no older attempt can write.

        Raises Fenced when a newer attempt is the writer, ConfigError when it is another job.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made = True
        # Listed once, and after the folder is made: of two that do this at once, one sees the other
        # and decides for both. Whoever is not in the list has begun later and sees this one.
        others = [other for other in writers(self._root) if other != self._owner]
        try:
            self._refuse_other_jobs(others)
            self.check()
        except TrainerError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        # Those of an earlier process of this same attempt, which was killed.
        self.discard_drafts()
        for other in others:
            # They are older, or another job that has begun at this same moment: of two such the one
            # that was created first stays. Renamed and not deleted: a delete takes many steps, in
            # the middle of which the older attempt could still publish a draft.
            with suppress(FileNotFoundError):
                self._folder.with_name(other.encode()).rename(self._retired(other))
        for retired in self._folder.parent.glob(f"{_RETIRED}*"):
            shutil.rmtree(retired, ignore_errors=True)

    def check(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""
        lease = () if self._lease is None else (self._lease,)
        check_newest(self._owner, (*lease, *writers(self._root)), self._root)
        # Somebody whom this attempt does not know as newer: another job that began at the same
        # moment, or a trainer of version 0.1.
        if self._made and not self._folder.is_dir():
            raise fenced_by(None, self._owner, self._root)

    def _refuse_other_jobs(self, others: Iterable[Owner]) -> None:
        if self._lease is not None and self._lease.is_of_another_job(self._owner):
            raise refused(self._owner, self._lease, self._root, REMEDY)
        for other in others:
            # A newer one without the lease is only beginning, and will find this one here.
            if other < self._owner and other.is_of_another_job(self._owner):
                raise refused(self._owner, other, self._root, REMEDY)

    def draft(self, name: str) -> Path:
        """Where to write a file before it is published."""
        return self._folder / f"{name}.tmp"

    def discard_drafts(self) -> None:
        """Remove what was not published; nothing is left to remove where a successor took over."""
        with suppress(FileNotFoundError):
            for leftover in self._folder.iterdir():
                # What somebody still reads NFS only renames, removes it by itself once it is
                # closed, and lets nobody remove it before (EBUSY).
                if not leftover.name.startswith(_OPEN_ON_NFS):
                    leftover.unlink(missing_ok=True)

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

    def _retired(self, other: Owner) -> Path:
        # A name that no earlier process has used, also where pods of two nodes have the same pid.
        name = f"{_RETIRED}{other.attempt}-{os.getpid()}-{time.monotonic_ns()}"
        return self._folder.with_name(name)


def writers(root: Path) -> Iterator[Owner]:
    """The attempts that have a folder of their own below ``root``."""
    with suppress(FileNotFoundError):
        for path in (root / WRITERS_FOLDER).iterdir():
            owner = parse_owner(path.name)
            if owner is not None:
                yield owner


def sync_file(file: BinaryIO) -> None:
    """Put what was written to a file on the disk, before the file is renamed.

    Some file systems put a new name on the disk before the content; a crash in between would leave
    an empty file under it.
    """
    file.flush()
    _sync(file.fileno())


def link_or_copy(path: Path, copy: Path) -> None:
    """Give a file a second name: what is pruned under one of them lives on under the other."""
    try:
        # Takes no space.
        os.link(path, copy)
    except FileNotFoundError:
        raise
    except OSError:  # another volume, or a file system without hard links
        shutil.copyfile(path, copy)
        with copy.open("rb") as file:
            _sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: fsync of a file does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # No checkpoint at all would be worse than one that a power failure can take back.
        if error.errno not in _NO_SYNC:
            raise
