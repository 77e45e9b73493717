"""Fixtures of the tests without a cluster."""

from __future__ import annotations

import pytest

from cluster_sim import Sim


@pytest.fixture
def sim() -> Sim:
    """Two nodes, running."""
    sim = Sim()
    sim.run_until("Running")
    sim.events.clear()
    return sim
