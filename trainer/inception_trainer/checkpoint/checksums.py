"""SHA-256 of files: computed while they are written, and kept beside them.

``best.pt`` has its checksum in ``best.pt.sha256``, as ``sha256sum`` writes and checks it.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import override

from inception_trainer.errors import DataError

_SHA256 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")


class HashingFile(io.RawIOBase):
    """Writes to a file, and counts and hashes the bytes on their way.

    ``size`` is in bytes, ``digest`` is the SHA-256 of all of them. A checkpoint of gigabytes is so
    hashed without being read again.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any) -> int:
        self.digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(path: Path) -> Path:
    """Where the checksum of ``path`` lies."""
    return path.with_name(f"{path.name}.sha256")


def entry(checksum: str, name: str) -> bytes:
    """One line of such a file."""
    return f"{checksum}  {name}\n".encode()


def recorded(path: Path) -> tuple[str, ...]:
    """The checksums that ``path`` may have, the valid one first.

    Empty without a file beside it; two while ``path`` is being replaced, because the two files
    cannot be renamed in one step.
    """
    try:
        text = beside(path).read_text(encoding="ascii")
    except (OSError, ValueError):
        # No checksum is no damage: files of other programs have none.
        return ()
    # Programs put it before the name or behind it, some in capital letters.
    return tuple(checksum.lower() for checksum in _SHA256.findall(text))


def check(path: Path) -> None:
    """Raise DataError when ``path`` is not the file whose checksum lies beside it."""
    expected = recorded(path)
    while expected:
        actual = file_sha256(path)
        if actual in expected:
            return
        # A job that still trains may have put a better one in its place meanwhile.
        before, expected = expected, recorded(path)
        if expected == before:
            raise DataError(
                f"{path} is damaged: its SHA-256 is {actual[:12]}..., "
                f"{beside(path).name} says {expected[0][:12]}...; "
                "use another checkpoint, or remove the .sha256 file if the change was meant"
            )
