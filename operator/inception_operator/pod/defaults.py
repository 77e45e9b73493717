"""What a pod asks for and may take where its author says nothing: requests, and sizes of volumes.

A pod without requests is the first that the kubelet evicts, is placed on nodes that are full, and
is refused where a quota counts requests. An emptyDir without a limit may fill the disk of its node,
or its memory. The values are small and large respectively, so that no job that works without them
stops working; the template has the last word on each.
"""

from __future__ import annotations

from typing import Final

from inception_operator.contract.types import Json
from inception_operator.spec.job import Job

REQUESTS: Final = {"cpu": "100m", "memory": "256Mi"}
TMP_LIMIT: Final = "20Gi"
SHM_LIMIT: Final = "64Gi"
LAUNCHER_LIMIT: Final = "64Mi"
"""The launcher is a few hundred kilobytes of Python."""


def request_defaults(pod: Json, container: Json) -> None:
    """Request CPU and memory for the container that trains, each only where nothing is said of it.

    A limit alone is a request, too: the API server copies it.
    """
    if pod.get("resources"):
        # The author sized the pod as a whole, and its containers share that.
        return
    resources = container.get("resources") or {}
    requests = resources.get("requests") or {}
    stated = requests.keys() | (resources.get("limits") or {}).keys()
    missing = {name: amount for name, amount in REQUESTS.items() if name not in stated}
    if missing:
        container["resources"] = {**resources, "requests": {**missing, **requests}}


def shm_volume(job: Job, limit_of_row: str | None) -> Json:
    """The shared memory of the pod, at /dev/shm.

    The kubelet bounds it by the memory limit of the pod; without one it could grow to all that the
    node has.
    """
    limit = limit_of_row or (None if _limits_memory(job) else SHM_LIMIT)
    size = {"sizeLimit": limit} if limit else {}
    return {"name": "shm", "emptyDir": {"medium": "Memory", **size}}


def tmp_volume() -> Json:
    """What is at /tmp: on the disk of the node. The kubelet evicts a pod that puts more there."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": TMP_LIMIT}}


def _limits_memory(job: Job) -> bool:
    sizes = (job.trainer_overlay.get("resources"), job.pod_overlay.get("resources"))
    return any("memory" in ((size or {}).get("limits") or {}) for size in sizes)
