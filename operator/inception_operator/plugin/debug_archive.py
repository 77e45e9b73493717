"""The archive that ``debug`` writes: bounded, without secrets, and with a page to read first."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inception_operator.client.errors import FAILED, ClientError
from inception_operator.client.text import clean

from .redact import Redactor

MOST_BYTES: Final = 64 << 20
"""Of all files together before they are compressed."""
FILE_BYTES: Final = 2 << 20
"""Of one file: of a log that is longer the end stays."""
_SUMMARY: Final = "summary.txt"


@dataclass
class Archive:
    """Files by name, and what could not be had with the reason."""

    redactor: Redactor
    files: dict[str, bytes] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)
    left: int = MOST_BYTES

    def add(self, name: str, text: str) -> None:
        """Add a file, without secrets and control sequences; too large a one is cut in front."""
        data = clean(self.redactor.text(text)).encode()
        if len(data) > FILE_BYTES:
            # From the beginning of a line.
            data = data[-FILE_BYTES:].partition(b"\n")[2]
            self.missing.append((name, f"only its last {FILE_BYTES >> 20} MiB"))
        if len(data) > self.left:
            self.missing.append((name, f"the archive has its {MOST_BYTES >> 20} MiB already"))
            return
        self.left -= len(data)
        self.files[name] = data

    def attempt(self, name: str, make: Callable[[], str]) -> None:
        """Add a file that may not be had, as for want of a right: then it is named as missing."""
        try:
            text = make()
        except ClientError as error:
            self.missing.append((name, str(error).partition("\n")[0]))
            return
        if text:
            self.add(name, text)

    def write(self, path: Path, summary: str, *, replace: bool) -> None:
        """Write all files below a folder of the archive's name, the summary first."""
        import tarfile

        folder = path.name.partition(".")[0]
        files = {_SUMMARY: clean(self.redactor.text(summary)).encode(), **self.files}
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
        try:
            # Logs are nobody else's business.
            with (
                open(os.open(path, flags, 0o600), "wb") as file,  # noqa: PTH123
                tarfile.open(fileobj=file, mode="w:gz") as archive,
            ):
                for name, data in files.items():
                    entry = tarfile.TarInfo(f"{folder}/{name}")
                    entry.size = len(data)
                    entry.mtime = int(time.time())
                    archive.addfile(entry, io.BytesIO(data))
        except FileExistsError as error:
            raise ClientError(
                f"{path} exists", "Choose another file by -f, or --force to replace it.", FAILED
            ) from error
        except OSError as error:
            raise ClientError(f"{path} cannot be written: {error}") from error
