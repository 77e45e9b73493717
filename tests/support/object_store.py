"""Stores for tests of data and checkpoints behind URLs.

In memory, and in files through fsspec, which separate processes share.
INCEPTION_TEST_STORE=s3://bucket/folder (with the store's package and its credentials) adds a real
one.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

ADDED = os.environ.get("INCEPTION_TEST_STORE", "")
STORES = ["memory", "files", *([ADDED] if ADDED else [])]
OWN_FOLDERS = {"FSSPEC_LOCAL_AUTO_MKDIR": "true"}
"""With this in its environment a process makes folders as it writes files through fsspec, like
object stores.
"""


def new_place(store: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL below which nothing is yet."""
    name = uuid.uuid4().hex
    if store == "files":
        import fsspec.config

        monkeypatch.setitem(fsspec.config.conf, "local", {"auto_mkdir": True})
        return f"local://{folder}/{name}"
    return f"memory://bucket/{name}" if store == "memory" else f"{store}/{name}"


def upload(folder: Path, url: str) -> None:
    """Every file of a folder."""
    from inception_trainer.stores import Remote

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (Remote(url) / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
