"""Assignments as the JSON of a pod's annotation (docs/architecture.md, "Assignment")."""

from __future__ import annotations

import json
import zlib

from .names import HOST_PORT_BASE, HOST_PORTS, MASTER_PORT_BASE
from .types import Assignment, Json

LOOPBACK = "127.0.0.1"
MAX_ATTEMPT = 2**31 - 2


def to_json(assignment: Assignment) -> str:
    """The annotation's text; a hold carries no ranks and no address."""
    data: Json = {
        "attempt": assignment.attempt,
        "nnodes": assignment.nnodes,
        "graceful": assignment.graceful,
    }
    if assignment.end:
        data["end"] = True
    if assignment.nudge:
        data["nudge"] = assignment.nudge
    if assignment.bell:
        data["bell"] = assignment.bell
    if not assignment.is_hold:
        data |= {
            "nodeRank": assignment.node_rank,
            "nprocPerNode": assignment.nproc_per_node,
            "masterAddr": assignment.master_addr,
            "masterPort": assignment.master_port,
        }
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def from_json(text: str | None) -> Assignment | None:
    """What an annotation says, or None when it is absent or not an assignment."""
    if not text:
        return None
    try:
        data = json.loads(text)
        if not 0 <= data["attempt"] <= MAX_ATTEMPT:
            return None
        return Assignment(
            attempt=int(data["attempt"]),
            nnodes=int(data["nnodes"]),
            node_rank=int(data.get("nodeRank", 0)),
            nproc_per_node=int(data.get("nprocPerNode", 0)),
            master_addr=str(data.get("masterAddr", "")),
            master_port=int(data.get("masterPort", 0)),
            graceful=bool(data.get("graceful", False)),
            end=bool(data.get("end", False)),
            nudge=int(data.get("nudge", 0)),
            bell=str(data.get("bell", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def hold(attempt: int, *, graceful: bool) -> Assignment:
    """End what runs of older attempts and be ready for this one."""
    return Assignment(attempt=attempt, graceful=graceful)


def end(attempt: int, *, graceful: bool = False) -> Assignment:
    """End what runs and the launcher with it: the job is over, and its pods stay for their logs."""
    return Assignment(attempt=attempt, graceful=graceful, end=True)


def master_port(attempt: int, host: str | None = None) -> int:
    """Another one for each attempt, so that none meets the rendezvous of the one before.

    ``host`` is the UID of a job whose pods share the network of their nodes, with other jobs too.
    """
    if host is None:
        return MASTER_PORT_BASE + attempt % 1000
    return HOST_PORT_BASE + (zlib.crc32(host.encode()) + attempt) % HOST_PORTS


def work(
    attempt: int,
    rank: int,
    nodes: int,
    nproc: int,
    master: str | None,
    *,
    graceful: bool,
    bell: str = "",
    host: str | None = None,
) -> Assignment:
    """Ranks for one slot; ``rank`` is its node rank, which it keeps over attempts as far as that is
    possible.
    """
    return Assignment(
        attempt=attempt,
        nnodes=nodes,
        node_rank=rank,
        nproc_per_node=nproc,
        master_addr=LOOPBACK if nodes == 1 else master or "",
        master_port=master_port(attempt, host),
        graceful=graceful,
        bell=bell,
    )
