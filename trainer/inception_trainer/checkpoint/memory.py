"""Memory copies: the state of the training in a pod's shared memory, which outlives the pod's
processes, but not the pod.

Layout below ``/dev/shm/inception-state/<job UID>`` (docs/architecture/names.md)::

    lock              held by the one rank that writes a whole copy
    owner.json        {"attempt": 3}: an older attempt must not write here any more
    copy-0, copy-1    two buffers for the whole state: see ``memory_file``
    rank-0, rank-1    small, of each local rank: see ``memory_statistics``

One of the two buffers holds the newest whole copy while the other one is written. Only copies of
this very job and of attempts before the present one are read.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inception_trainer.errors import Fenced
from inception_trainer.launcher import json_text
from inception_trainer.launcher.linux import left_in_cgroup
from inception_trainer.log import logger

from .memory_file import CopyFile, Header, Layout, MemoryCopy, read_copy

ROOT = Path("/dev/shm/inception-state")  # noqa: S108 - the pod's own
PLAIN_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
BUFFERS = ("copy-0", "copy-1")
SPARE_BYTES = 64 * 2**20
"""What copies leave free, for loader workers and for the training itself."""
POLL_SECONDS = 0.005


class MemoryFolder:
    """The copies of one pod as seen by a rank of one attempt."""

    def __init__(self, root: Path, uid: str, attempt: int) -> None:
        self.path = root / uid
        self.uid = uid
        self.attempt = attempt
        self.files = tuple(CopyFile(self.path / name) for name in BUFFERS)

    def create(self) -> None:
        """Make the folder; OSError where there is no shared memory."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def newest(self) -> MemoryCopy | None:
        """The newest copy that is whole, of this job and of an earlier attempt."""
        found: list[MemoryCopy] = []
        for file in self.files:
            if file.prefix() is None:
                continue
            try:
                copy = read_copy(file.path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("memory copy %s is not used: %s", file.path.name, error)
                continue
            if self._is_ours(copy.header):
                found.append(copy)
        return max(found, key=lambda copy: (copy.step, copy.prefix.attempt), default=None)

    def _is_ours(self, header: Header) -> bool:
        uid, attempt = header.get("uid"), header["attempt"]
        if uid != self.uid or attempt >= self.attempt:
            logger.warning(
                "a memory copy of job %s, attempt %s is not one for attempt %d of job %s",
                uid,
                attempt,
                self.attempt,
                self.uid,
            )
            return False
        return True

    def take_over(self, start: int, kept: MemoryCopy | None, ranks: int) -> None:
        """Become the owner, for an attempt that starts at step ``start`` with so many local ranks:
        of the copies that were left here only ``kept`` stays, and not even that when it is beyond
        the start.

        Raises Fenced when a newer attempt is the owner.
        """
        with self.locked(seconds=5.0):
            self.check_owner()
            # A copy that nobody could use must never pass for the newest one later.
            for file in self.files:
                if kept is None or kept.path != file.path or kept.step > start:
                    file.invalidate()
            for path in self.path.glob("rank-*"):
                if path.name.removeprefix("rank-") not in map(str, range(ranks)):
                    path.unlink(missing_ok=True)
            draft = self.path / "owner.tmp"
            draft.write_text(json.dumps({"attempt": self.attempt}), encoding="ascii")
            draft.replace(self.path / "owner.json")

    def check_owner(self) -> None:
        """Raise Fenced when a newer attempt is the owner."""
        owner = 0
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = (self.path / "owner.json").read_text(encoding="ascii")
            owner = int(json_text.decode(content)["attempt"])
        if owner > self.attempt:
            raise Fenced(f"attempt {owner} owns {self.path}; attempt {self.attempt} must not write")

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Be the only one who writes whole copies; TimeoutError after so many seconds.

        The lock of a process that is killed is free at once.
        """
        deadline = time.monotonic() + seconds
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError("another rank of the pod holds the lock") from None
                    time.sleep(POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def statistics(self, local_rank: int) -> Path:
        """The file of a rank of this pod."""
        return self.path / f"rank-{local_rank}"

    def newest_step(self) -> int:
        """The step of the newest copy, as its prefix says; -1 where there is none."""
        prefixes = (file.prefix() for file in self.files)
        return max((prefix.step for prefix in prefixes if prefix is not None), default=-1)

    def allocate(self, files: Sequence[CopyFile], layout: Layout) -> None:
        """Take the memory for ``files``; MemoryError that says what is too small, or OSError."""
        lack = lack_of_room(self.path, sum(file.missing(layout) for file in files))
        if lack is not None:
            raise MemoryError(lack)
        for file in files:
            file.allocate(layout)

    def oldest(self) -> CopyFile:
        """The buffer to write next: one that is not whole, or the older one."""

        def age(file: CopyFile) -> int:
            prefix = file.prefix()
            return -1 if prefix is None else prefix.step

        return min(self.files, key=age)

    def discard(self) -> None:
        """Remove all copies: what they hold is not to be trusted."""
        for name in BUFFERS:
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)


def open_folder(uid: str, attempt: int) -> MemoryFolder | None:
    """Where this pod keeps the copies of a job; None, with a warning, where there is no shared
    memory.
    """
    if PLAIN_UID.fullmatch(uid) is None:
        logger.warning("no memory copies: %.100r is no UID", uid)
        return None
    folder = MemoryFolder(ROOT, uid, attempt)
    try:
        folder.create()
    except OSError as error:
        logger.warning("no memory copies: %s: %s", folder.path, error.strerror)
        return None
    return folder


def lack_of_room(folder: Path, size: int) -> str | None:
    """Why so many more bytes of shared memory are too many; None when there is room.

    Asked before memory is taken: beyond the limit of the container the kernel would not refuse, but
    kill.
    """
    if not size:
        return None
    needed = size + SPARE_BYTES
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        return f"{folder} has {free >> 20} MiB left, copies need {needed >> 20} MiB"
    left = left_in_cgroup()
    if left is not None and left < needed:
        return (
            f"the container's memory limit leaves {left >> 20} MiB, copies need {needed >> 20} MiB"
        )
    return None
