"""Room on the disk: where it ends the kubelet evicts every pod and compilers fail, and nothing else
says why.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import LocalClusterError

GIB = 1 << 30
# Below this the kubelet of a node evicts pods and takes no new ones.
EVICTION_THRESHOLD = "1Gi"
# Images of a first build, their build cache and what pods write; later clusters find the images
# there.
FIRST_CLUSTER = 12 * GIB
LATER_CLUSTER = 3 * GIB
# What Go writes to its temporary folder while it compiles Kubernetes: half of it was seen.
BUILD = 2 * GIB


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk that the folder lies on, or will lie on."""
    return shutil.disk_usage(_existing(folder)).free


def require_room(folder: Path, needed: int, purpose: str, variable: str) -> None:
    """Raise LocalClusterError unless the disk of ``folder`` has so many bytes free.

    ``purpose`` is who needs them, ``variable`` the environment variable that names another folder.
    """
    free = free_bytes(folder)
    if free < needed:
        room = f"{free / GIB:.1f} GiB free and {purpose} needs {needed / GIB:.0f}"
        remedy = (
            f"free some (python -m localcluster prune), or let {variable} name a folder elsewhere"
        )
        raise LocalClusterError(f"the disk of {folder} has {room}: {remedy}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
