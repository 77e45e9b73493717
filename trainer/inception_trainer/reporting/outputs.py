"""The folder that a run leaves its figures in; where ``output.path`` is a URL, a temporary one that
a store mirrors.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inception_trainer.errors import StoreFailed
from inception_trainer.log import logger
from inception_trainer.stores import Remote, is_url, place

EVERY_SECONDS = 30.0
"""How long a line may stay on this machine alone."""


@contextmanager
def folder(path: str | None, *, first: bool) -> Iterator[Path | None]:
    """Where this rank may leave files; only the first rank leaves any in a store."""
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
    draft is left.
    """
    own = "" if attempt is None else f".{attempt}"
    draft = path.with_name(f".{path.name}{own}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()


class Mirror:
    """A folder here and its copy in a store."""

    def __init__(self, remote: Remote, local: Path) -> None:
        self.folder, self._remote = local, remote
        self._known: dict[Path, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output-mirror", daemon=True)

    def fetch(self) -> None:
        """Bring what an earlier attempt has left, which this one adds to."""
        self._fetch(self._remote, self.folder)
        self._known = self._found()

    def start(self) -> None:
        """Push from now and then on."""
        self._thread.start()

    def stop(self) -> None:
        """No more pushes in the background."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def push(self) -> None:
        """Store what has changed since the last time; raises StoreFailed."""
        found = self._found()
        for path, state in found.items():
            if self._known.get(path) != state:
                (self._remote / path.relative_to(self.folder).as_posix()).write_bytes(
                    path.read_bytes()
                )
                self._known[path] = state

    def push_if_possible(self) -> None:
        """The same where a failure is no more than a pity."""
        try:
            self.push()
        except (StoreFailed, OSError) as error:
            logger.warning("figures could not be stored: %s", error)

    def _run(self) -> None:
        while not self._closing.wait(EVERY_SECONDS):
            self.push_if_possible()

    def _found(self) -> dict[Path, tuple[int, int]]:
        # Files that are being written have another name until they are whole.
        files = (
            path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".tmp"
        )
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def _fetch(self, remote: Remote, local: Path) -> None:
        try:
            entries = list(remote.iterdir())
        except FileNotFoundError:
            return
        for entry in entries:
            target = local / entry.name
            if entry.is_dir():
                target.mkdir(exist_ok=True)
                self._fetch(entry, target)
            else:
                target.write_bytes(entry.read_bytes())
