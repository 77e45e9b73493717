"""The ranks' stderr: passed on at once and unchanged, and the last lines kept for the report.

A named pipe per rank: everything that a rank forks or starts writes there too, and what C code says
when it crashes is included.
"""

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("inception-launcher")

LINES = 20
TAIL_BYTES = 2048
"""Both limits hold for the tail in a report."""
_LINES_BEFORE_A_CRASH = 8
_FATAL = "Fatal Python error:"
_OUTER = (f"/{Path(__file__).parent.name}/rank.py", "Extension modules: ")
_KEPT_BYTES = 1 << 14
_CHUNK_BYTES = 1 << 16


def pipe_path(folder: Path, local_rank: int) -> Path:
    """Name the pipe of a rank."""
    return folder / f"stderr-{local_rank}"


def join(folder: Path, local_rank: int) -> None:
    """Make the pipe this rank's stderr; without a launcher at its other end everything stays as it
    is.
    """
    with contextlib.suppress(OSError):
        # Without O_NONBLOCK the call would wait for a reader; with it, it fails where there is
        # none. Written to is it blockingly: a full pipe makes the rank wait, as a terminal would.
        descriptor = os.open(pipe_path(folder, local_rank), os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        os.dup2(descriptor, 2)
        os.close(descriptor)


class Tails:
    """The launcher's ends of the pipes of one attempt."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self._local: dict[int, int] = {}
        self._kept = [bytearray() for _ in range(ranks)]
        for local in range(ranks):
            path = pipe_path(folder, local)
            try:
                os.mkfifo(path, 0o600)
                # Open for writing too: a pipe whose last writer has gone is at its end, and
                # select would report it as readable for ever.
                self._local[os.open(path, os.O_RDWR | os.O_NONBLOCK)] = local
            except OSError as error:
                log.warning("the last lines of local rank %d will not be known: %s", local, error)

    @property
    def sources(self) -> tuple[int, ...]:
        """List the descriptors to wait for."""
        return tuple(self._local)

    def pump(self, ready: Iterable[int]) -> None:
        """Pass on what has come on the descriptors that are ready."""
        for descriptor in self._local:
            if descriptor in ready:
                self._pass_on(descriptor)

    def drain(self) -> None:
        """Pass on what is there, all that an ended rank wrote."""
        # One chunk is enough: a pipe holds 64 KiB unless somebody enlarges it.
        self.pump(self.sources)

    def tail(self, local_rank: int) -> str:
        """Give the last lines of a rank."""
        if not 0 <= local_rank < len(self._kept):
            return ""
        text = self._kept[local_rank].decode("utf-8", "replace")
        return last_lines(text)

    def close(self) -> None:
        """Pass on the rest and close the pipes."""
        self.drain()
        for descriptor in self._local:
            os.close(descriptor)
        self._local.clear()

    def _pass_on(self, descriptor: int) -> None:
        try:
            piece = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        kept = self._kept[self._local[descriptor]]
        kept += piece
        del kept[:-_KEPT_BYTES]
        view = memoryview(piece)
        # A write may take only a part. Where nobody reads our stderr any more the ranks go on.
        with contextlib.suppress(OSError):
            while view:
                view = view[os.write(2, view) :]


def last_lines(text: str) -> str:
    """Give the last lines that are not empty; of an overwritten line only its last version."""
    lines = [_last_version(line) for line in text.split("\n")]
    shown = _telling_lines([line for line in lines if line])
    tail = _encode(shown)
    while len(shown) > 1 and len(tail) > TAIL_BYTES:
        del shown[0]
        tail = _encode(shown)
    # Of a single line that is too long its end; the cut may go through a character.
    return tail[-TAIL_BYTES:].decode("utf-8", "ignore")


def _last_version(line: str) -> str:
    # Progress bars go back to the beginning of their line with \r and write it again.
    return line.rstrip("\r").rpartition("\r")[2].rstrip()


def _encode(lines: list[str]) -> bytes:
    return "\n".join(lines).encode()


def _telling_lines(lines: list[str]) -> list[str]:
    """Pick the last lines; of the stack that Python shows when C code crashes, the inner frames,
    which come first.
    """
    fatal = [number for number, line in enumerate(lines) if line.startswith(_FATAL)]
    if not fatal:
        return lines[-LINES:]
    start = max(0, fatal[-1] - _LINES_BEFORE_A_CRASH)
    inner = itertools.takewhile(_is_inner, lines[start:])
    return list(inner)[:LINES]


def _is_inner(line: str) -> bool:
    return not any(mark in line for mark in _OUTER)
