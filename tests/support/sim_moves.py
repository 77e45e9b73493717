"""Simulated jobs whose members leave their nodes."""

from __future__ import annotations

from typing import Any

from cluster_sim import Sim, job


def running(nodes: int = 2, **spec: Any) -> Sim:
    """A job that runs; nothing has been told of it yet."""
    sim = Sim(job(nodes, **{"checkpoint": {"path": "/mnt/runs"}, **spec}))
    sim.run_until("Running")
    sim.settle()
    sim.events.clear()
    return sim


def spared(**spec: Any) -> Sim:
    """Two nodes and a warm spare."""
    sim = running(elasticPolicy={"spareNodes": 1}, **spec)
    sim.tick(10)
    sim.settle()
    sim.calm()
    sim.settle()
    assert sim.status["nodes"]["spareReady"] == 1
    sim.events.clear()
    return sim


def save_and_end(sim: Sim) -> None:
    """The pods that were told to go save and end."""
    for pod in sim.pods.values():
        if pod.deletion_deadline is not None:
            sim.exit(pod, 75)
