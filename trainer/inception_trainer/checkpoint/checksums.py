"""The SHA-256 that lies beside a file, as ``sha256sum`` writes and checks it: ``best.pt`` and
``best.pt.sha256``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from inception_trainer.errors import DataError


def beside(path: Path) -> Path:
    """Where the checksum of ``path`` lies."""
    return path.with_name(f"{path.name}.sha256")


def line(checksum: str, name: str) -> bytes:
    """One entry of such a file."""
    return f"{checksum}  {name}\n".encode()


def recorded(path: Path) -> tuple[str, ...]:
    """The checksums that ``path`` may have: none without a file beside it, two while it is being
    replaced.
    """
    try:
        text = beside(path).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ()
    return tuple(entry.split()[0] for entry in text.splitlines() if entry.strip())


def check(path: Path) -> None:
    """Raise DataError when ``path`` is not the file whose checksum lies beside it."""
    known = recorded(path)
    if not known:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in known:
        raise DataError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., {beside(path).name} says {known[0][:12]}...; "
            "use another checkpoint, or remove the .sha256 file if the change was meant"
        )
