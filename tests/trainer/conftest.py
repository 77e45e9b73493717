"""Fixtures of the trainer's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inception_trainer.data import shardindex


@pytest.fixture
def copies_of_indices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where indices of shards are left for later attempts, by this process and those that it
    starts.
    """
    # Now, so that this process keeps its own: helpers of torch outlive the test.
    tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(shardindex, "folder", lambda: Path(folder))
        yield Path(folder)
