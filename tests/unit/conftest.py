"""Fixtures of the tests without a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_sim import Sim


@pytest.fixture
def sim() -> Sim:
    """Two nodes, running."""
    sim = Sim()
    sim.run_until("Running")
    sim.events.clear()
    return sim


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets, whose whole path may have 107 characters; tests have long names."""
    with tempfile.TemporaryDirectory(prefix="test-") as folder:
        yield Path(folder)
