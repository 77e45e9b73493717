"""Free loopback ports for the components of a cluster."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from .errors import LocalClusterError
from .model import Layout

NAMES = ("apiserver", "etcd", "etcd-peer", "kube-controller-manager", "kube-scheduler", "kwok")
# Below the range from which the kernel takes the ports of outgoing connections, so that none of
# them gets in the way.
RANGE = range(20000, 30000)


def file_of(root: Path) -> Path:
    """Where the ports of a cluster are noted."""
    return root / "ports.json"


def read(layout: Layout) -> dict[str, int]:
    """The ports of a cluster by component."""
    ports: dict[str, int] = json.loads(file_of(layout.root).read_text())
    return ports


def taken(roots: Iterable[Path]) -> set[int]:
    """Ports noted by other clusters, whether they listen yet or not."""
    return {
        port
        for root in roots
        if file_of(root).exists()
        for port in json.loads(file_of(root).read_text()).values()
    }


def choose(occupied: Collection[int]) -> dict[str, int]:
    """One free port per component; call with the clusters folder locked."""
    candidates = iter(random.sample(RANGE, len(RANGE)))
    free = (port for port in candidates if port not in occupied and _is_free(port))
    ports = dict(zip(NAMES, free, strict=False))
    if len(ports) < len(NAMES):
        raise LocalClusterError(
            f"no {len(NAMES)} free loopback ports between {RANGE.start} and {RANGE.stop - 1}"
        )
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
