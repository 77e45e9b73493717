"""Assignments as JSON in a pod's annotation, and the three kinds of them.

The page docs/architecture/wire.md has the format, `launcher.assignment` of the trainer is the
reader. The keys of the JSON are older than the names in this code: ``nudge`` is `reminder` and
``bell`` is `notify_address`.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Final

from .decoding import MalformedError, decode, whole_number
from .names import HOST_PORT_BASE, HOST_PORTS, MASTER_PORT_BASE
from .types import Assignment, Json
from .version import CONTRACT

LOOPBACK: Final = "127.0.0.1"
MAX_ATTEMPT: Final = 9_999_999
"""No job gets there, not even one that fails every second for three months. A number beyond was
made up; taken over, it could leave the int32 of the status without a successor.
"""
MOST_TOLD: Final = 9_000_000
"""A pod's word is taken for the latest attempt up to here: its successors have to fit as well."""
MAX_TEXT: Final = 4096
_MAX_NUMBER: Final = 2**31 - 1
_MAX_PORT: Final = 2**16 - 1
_MAX_ADDRESS: Final = 253


def to_json(assignment: Assignment, *, next_key: str = "") -> str:
    """The annotation's text; a standby carries no ranks and no address.

    ``next_key`` is the SHA-256 of the key with which the next one may be delivered.
    """
    data: Json = {
        "attempt": assignment.attempt,
        "nnodes": assignment.nnodes,
        "graceful": assignment.graceful,
        "contract": CONTRACT,
    }
    if assignment.end:
        data["end"] = True
    if assignment.reminder:
        data["nudge"] = assignment.reminder
    if assignment.notify_address:
        data["bell"] = assignment.notify_address
    if next_key:
        data["nextKey"] = next_key
    if not assignment.is_standby:
        data |= {
            "nodeRank": assignment.node_rank,
            "nprocPerNode": assignment.nproc_per_node,
            "masterAddr": assignment.master_addr,
            "masterPort": assignment.master_port,
        }
    # Sorted and compact: the same assignment is the same text, so writing it again changes nothing.
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def from_json(text: str | None) -> Assignment | None:
    """What an annotation says, or None when it is absent or not an assignment."""
    # Anybody with the right to patch pods may have written it, so nothing in it is trusted.
    if not text or len(text) > MAX_TEXT:
        return None
    try:
        data = decode(text)
    except MalformedError:
        return None
    if not isinstance(data, dict):
        return None
    numbers = {
        "attempt": whole_number(data.get("attempt"), 0, MAX_ATTEMPT),
        "nnodes": whole_number(data.get("nnodes"), 0, _MAX_NUMBER),
        "node_rank": whole_number(data.get("nodeRank", 0), 0, _MAX_NUMBER),
        "nproc_per_node": whole_number(data.get("nprocPerNode", 0), 0, _MAX_NUMBER),
        "master_port": whole_number(data.get("masterPort", 0), 0, _MAX_PORT),
        "reminder": whole_number(data.get("nudge", 0), 0, _MAX_NUMBER),
    }
    known = {name: number for name, number in numbers.items() if number is not None}
    if len(known) < len(numbers):
        return None
    return Assignment(
        master_addr=str(data.get("masterAddr", ""))[:_MAX_ADDRESS],
        notify_address=str(data.get("bell", ""))[:_MAX_ADDRESS],
        graceful=bool(data.get("graceful", False)),
        end=bool(data.get("end", False)),
        **known,
    )


def standby(attempt: int, *, graceful: bool) -> Assignment:
    """No ranks: end what runs of older attempts and be ready for this one."""
    return Assignment(attempt=attempt, graceful=graceful)


def end(attempt: int, before: Assignment | None = None, *, graceful: bool = False) -> Assignment:
    """The job is over: end what runs and the launcher with it; the pods stay for their logs.

    The ranks that the pod had in this attempt, by the assignment ``before``, stay named: who reads
    its log looks for them.
    """
    if before is not None and before.attempt == attempt and not before.is_standby:
        return replace(before, graceful=graceful, end=True, reminder=0)
    return Assignment(attempt=attempt, graceful=graceful, end=True)


def master_port(attempt: int, host: str | None = None) -> int:
    """Port of the rendezvous store; ``host`` is the job's UID when its pods use hostNetwork.

    Each attempt has another one, so that no rank of it meets the store of the one before.
    """
    if host is None:
        return MASTER_PORT_BASE + attempt % 1000
    # On a node's own network other jobs have stores too: the UID spreads them over the range.
    return HOST_PORT_BASE + (zlib.crc32(host.encode()) + attempt) % HOST_PORTS


def work(
    attempt: int,
    rank: int,
    nodes: int,
    nproc: int,
    master: str | None,
    *,
    graceful: bool,
    notify_address: str = "",
    host: str | None = None,
) -> Assignment:
    """Ranks for the pod with node rank ``rank``: ``nproc`` of them on each of ``nodes`` pods.

    ``master`` is the IP address of the pod with node rank 0.
    """
    return Assignment(
        attempt=attempt,
        nnodes=nodes,
        node_rank=rank,
        nproc_per_node=nproc,
        # A pod may have no address yet when it is made together with its assignment.
        master_addr=LOOPBACK if nodes == 1 else master or "",
        master_port=master_port(attempt, host),
        graceful=graceful,
        notify_address=notify_address,
    )
