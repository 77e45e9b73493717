"""Fixtures of the trainer's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import small_network
from inception_trainer import models
from inception_trainer.data import shardindex
from inception_trainer.log import logger


@pytest.fixture(autouse=True, scope="module")
def _logger_as_before() -> Iterator[None]:
    """Leave the log to other files as it was found: a run in this process sets it up for itself."""
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate = propagate
    logger.handlers[:] = handlers


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


@pytest.fixture(scope="module")
def small_bninception() -> Iterator[None]:
    """Have bninception mean the small network in this process, as in the ranks that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models._NETWORKS, "bninception", small_network.Small)
        yield
