"""Nodes that a job stays away from for a while, because a device of theirs broke under it.

The list is in the status, so that every pod of every pass is made with the same wish. It is only a
wish: a job whose other nodes are full goes on with the healthy devices of the node that it would
rather not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Cause
from inception_operator.contract.times import format_time, parse_time, whole_seconds
from inception_operator.contract.types import Json, PodView

KEY: Final = "avoidedNodes"
LASTING: Final = timedelta(minutes=10)
# Each entry becomes a term of the node affinity of every pod.
MOST: Final = 16


def nodes(status: Json, now: datetime) -> tuple[str, ...]:
    """Names of the nodes to avoid now."""
    return tuple(entry["name"] for entry in _live(status, now))


def add(status: Json, pods: Iterable[PodView], now: datetime) -> Json:
    """The field of the status once these pods are given up: nodes with a broken device are avoided
    from now on.

    A node that is in the list already keeps its time, so that seeing the same pod again changes
    nothing.
    """
    live = _live(status, now)
    listed = {entry["name"] for entry in live}
    # A dictionary for its order: the same pods always give the same list.
    broken: dict[str, None] = {}
    for pod in pods:
        if pod.unhealthy and pod.node:
            broken[pod.node] = None
    added = [_entry(node, now) for node in broken if node not in listed]
    if not added:
        return {}
    entries = [*live, *added]
    return {KEY: entries[-MOST:]}


def drop_expired(status: Json, now: datetime) -> Json:
    """The field of the status without what is over."""
    live = _live(status, now)
    return {KEY: live} if live else {}


def _live(status: Json, now: datetime) -> list[Json]:
    return [entry for entry in status.get(KEY) or () if _is_live(entry, now)]


def _is_live(entry: Json, now: datetime) -> bool:
    # An entry whose time nobody can read is over.
    expires = parse_time(entry["expirationTime"])
    return expires is not None and expires > now


def _entry(node: str, now: datetime) -> Json:
    return {
        "name": node,
        "reason": Cause.DEVICE_UNHEALTHY,
        "expirationTime": format_time(whole_seconds(now) + LASTING),
    }
