"""Room on the disk: where it ends the kubelet evicts every pod, and nothing else says why."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import LocalClusterError

_GIB = 1 << 30
# Below this the kubelet of a node evicts pods and takes no new ones.
EVICTION_THRESHOLD = "1Gi"
# Images of a first build, their build cache and what pods write; later clusters find the images
# there.
FIRST_CLUSTER = 12 * _GIB
LATER_CLUSTER = 3 * _GIB


def require_room(folder: Path, needed: int) -> None:
    """Raise LocalClusterError unless the disk of ``folder`` has so many bytes free."""
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        room = f"{free / _GIB:.1f} GiB free and a node needs {needed / _GIB:.0f}"
        remedy = (
            "free some (python -m localcluster prune), or let LOCALCLUSTER_CACHE name a folder "
            "elsewhere"
        )
        raise LocalClusterError(f"the disk of {folder} has {room}: {remedy}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
