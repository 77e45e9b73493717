"""The folder that a run leaves its figures in, and how files in it are replaced.

Where ``output.path`` is a URL, the folder is a temporary one that is mirrored into the store: the
programs that write event files, lines and pictures know paths only.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from inception_trainer.errors import TrainerError
from inception_trainer.log import logger
from inception_trainer.stores import Remote, is_url, place

EVERY_SECONDS = 30.0
"""How long a change may be on this machine only, before the mirror pushes it."""


@contextmanager
def folder(path: str | None, *, first: bool) -> Iterator[Path | None]:
    """Where this rank may leave files, None for nowhere; in a store only the first rank leaves any.

    Raises StoreFailed at the end when the last changes cannot be stored; after another error that
    is only logged.
    """
    if path is None or not is_url(path):
        yield None if path is None else Path(str(place(path)))
        return
    if not first:
        yield None
        return
    mirror = Mirror(Remote(path), Path(tempfile.mkdtemp(prefix="inception-output-")))
    try:
        mirror.fetch()
        mirror.start()
        try:
            yield mirror.folder
        except BaseException:
            # Also when the run was asked to stop, which is an exception here.
            mirror.stop()
            mirror.push_if_possible()
            raise
        mirror.stop()
        mirror.push()
    finally:
        mirror.stop()
        shutil.rmtree(mirror.folder, ignore_errors=True)


@contextmanager
def replacing(path: Path, attempt: int | None = None) -> Iterator[Path]:
    """A draft that takes the place of ``path`` at the end: readers see the old or the new file,
    never half of one.

    Attempts that overlap give their numbers, so that each has a draft of its own. After an error no
    draft is left. Not synced to the disk: what must survive a power failure goes through
    ``checkpoint.fence``.
    """
    infix = "" if attempt is None else f".{attempt}"
    # In the same folder, because a rename is atomic within one file system only.
    draft = path.with_name(f".{path.name}{infix}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()


def replace_file(path: Path, text: str) -> None:
    """Write a small text file as :func:`replacing` does."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, as :func:`replacing` does; bytes that are no text as ``\\udcff``."""
    with (
        replacing(path) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


def append_lines(path: Path) -> TextIO:
    """Open a text file to add lines to it. A last line that a killed process has not written to its
    end is ended first, so that the next one stands alone.
    """
    is_cut = False
    # Terminals and pipes have no end to look at.
    if path.is_file() and path.stat().st_size:
        with suppress(OSError), path.open("rb") as before:
            before.seek(-1, os.SEEK_END)
            is_cut = before.read() != b"\n"
    file = path.open("a", encoding="utf-8")
    if is_cut:
        file.write("\n")
    return file


class Mirror:
    """A local folder and its copy in a store, pushed by a thread every EVERY_SECONDS."""

    def __init__(self, remote: Remote, local: Path) -> None:
        self.folder = local
        self._remote = remote
        self._pushed: dict[Path, tuple[int, int]] = {}
        """Size and modification time of each file when it was last the same in the store."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output-mirror", daemon=True)

    def fetch(self) -> None:
        """Bring what an earlier attempt has left, which this one adds to."""
        self._fetch(self._remote, self.folder)
        self._pushed = self._states()

    def start(self) -> None:
        """Start the thread that pushes."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the push that it may be in."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def push(self) -> None:
        """Store what has changed since the last time; raises StoreFailed."""
        for path, state in self._states().items():
            if self._pushed.get(path) != state:
                # An object cannot be added to, so a file goes up whole, even for one more line.
                remote = self._remote / path.relative_to(self.folder).as_posix()
                remote.write_bytes(path.read_bytes())
                self._pushed[path] = state

    def push_if_possible(self) -> None:
        """Like :meth:`push`, but logs a failure instead of raising; the next push tries again."""
        try:
            self.push()
        except (TrainerError, OSError) as error:
            logger.warning("figures could not be stored: %s", error)

    def _run(self) -> None:
        while not self._closing.wait(EVERY_SECONDS):
            self.push_if_possible()

    def _states(self) -> dict[Path, tuple[int, int]]:
        """Size in bytes and modification time in ns of every file in the folder."""
        states: dict[Path, tuple[int, int]] = {}
        for path in self.folder.rglob("*"):
            # Drafts of `replacing`: files that are being written have another name until they are
            # whole.
            if path.is_file() and path.suffix != ".tmp":
                status = path.stat()
                states[path] = (status.st_size, status.st_mtime_ns)
        return states

    def _fetch(self, remote: Remote, local: Path) -> None:
        try:
            entries = list(remote.iterdir())
        except FileNotFoundError:
            # The first attempt: nothing is there yet.
            return
        for entry in entries:
            target = local / entry.name
            if entry.is_dir():
                target.mkdir(exist_ok=True)
                self._fetch(entry, target)
            else:
                target.write_bytes(entry.read_bytes())
