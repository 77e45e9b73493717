"""What a pod asks for and may take where its author says nothing: requests, and sizes of volumes.

A pod without requests is the first that the kubelet evicts, is placed on nodes that are full, and
is refused where a quota counts requests. An emptyDir without a limit may fill the disk of its node,
or its memory. The values are small and large respectively, so that no job that works without them
stops working; the template has the last word on each.
"""

from __future__ import annotations

import math
from typing import Final

from inception_operator.contract.types import Json
from inception_operator.spec.data_cache import cache_mib
from inception_operator.spec.job import Job

CPU_REQUEST: Final = "100m"
MEMORY_REQUEST_MIB: Final = 256
COPY_MIB: Final = {"inceptionv4": 326, "resnet50": 196, "inceptionv3": 182, "": 87}
"""What a copy of the state in the pod's shared memory takes: weights and momentum, by the beginning
of the network's name.
"""
# Mode Preflight sees whether a pod of the job would have the room.
_WITH_COPIES: Final = ("Train", "Preflight")
TMP_LIMIT_GIB: Final = 20
SHM_LIMIT: Final = "64Gi"
LAUNCHER_LIMIT: Final = "64Mi"
"""The launcher is a few hundred kilobytes of Python."""


def request_defaults(pod: Json, container: Json, job: Job) -> None:
    """Request CPU and memory for the container that trains, each only where nothing is said of it.

    A limit alone is a request, too: the API server copies it.
    """
    if pod.get("resources"):
        # The author sized the pod as a whole, and its containers share that.
        return
    resources = container.get("resources") or {}
    requests = resources.get("requests") or {}
    stated = requests.keys() | (resources.get("limits") or {}).keys()
    memory = MEMORY_REQUEST_MIB + _copies_mib(job) + cache_mib(job.training, "memoryMebibytes")
    amounts = {"cpu": CPU_REQUEST, "memory": f"{memory}Mi"}
    missing = {name: amount for name, amount in amounts.items() if name not in stated}
    if missing:
        container["resources"] = {**resources, "requests": {**missing, **requests}}


def _copies_mib(job: Job) -> int:
    """What the two copies of the state take that the bundled trainer keeps in /dev/shm, in MiB."""
    never = job.checkpoint is not None and job.checkpoint.memory == "Never"
    if never or job.program or job.training.get("mode", "Train") not in _WITH_COPIES:
        return 0
    # Recipes begin with the name of their network, without its underscore.
    network = job.model.replace("_", "")
    return 2 * next(size for name, size in COPY_MIB.items() if network.startswith(name))


def shm_volume(job: Job, limit_of_row: str | None) -> Json:
    """The shared memory of the pod, at /dev/shm.

    The kubelet bounds it by the memory limit of the pod; without one it could grow to all that the
    node has.
    """
    limit = limit_of_row or (None if _limits_memory(job) else SHM_LIMIT)
    size = {"sizeLimit": limit} if limit else {}
    return {"name": "shm", "emptyDir": {"medium": "Memory", **size}}


def tmp_volume(job: Job) -> Json:
    """What is at /tmp: on the disk of the node. The kubelet evicts a pod that puts more there, so
    what the job keeps of its data there comes on top.
    """
    limit = TMP_LIMIT_GIB + math.ceil(cache_mib(job.training, "diskMebibytes") / 1024)
    return {"name": "tmp", "emptyDir": {"sizeLimit": f"{limit}Gi"}}


def _limits_memory(job: Job) -> bool:
    sizes = (job.trainer_overlay.get("resources"), job.pod_overlay.get("resources"))
    return any("memory" in ((size or {}).get("limits") or {}) for size in sizes)
