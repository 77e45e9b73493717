"""Where the pods of a job should and must not run, as terms beside the user's own affinity."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from inception_operator.contract.names import LABEL_JOB, PodPlacement
from inception_operator.contract.types import Json
from inception_operator.spec.job import Job

HOSTNAME: Final = "kubernetes.io/hostname"
_WISH: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_DEMAND: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def place(pod: Json, job: Job, avoid: Collection[str] = ()) -> None:
    """Add the job's wishes: near one another, one pod on each node, not on these nodes."""
    mates = {"labelSelector": {"matchLabels": {LABEL_JOB: job.name}}}
    if job.scheduling.topology_key:
        near = {"topologyKey": job.scheduling.topology_key, **mates}
        _add(pod, "podAffinity", _WISH, {"weight": 100, "podAffinityTerm": near})
    if job.scheduling.pod_placement == PodPlacement.ONE_PER_NODE:
        _add(pod, "podAntiAffinity", _DEMAND, {"topologyKey": HOSTNAME, **mates})
    if avoid:
        # A wish: with no other node the job goes on where it can.
        elsewhere = [
            {"key": "metadata.name", "operator": "NotIn", "values": [node]}
            for node in sorted(avoid)
        ]
        _add(pod, "nodeAffinity", _WISH, {"weight": 100, "preference": {"matchFields": elsewhere}})


def _add(pod: Json, kind: str, strength: str, term: Json) -> None:
    affinity = pod.get("affinity") or {}
    known = affinity.get(kind) or {}
    pod["affinity"] = {**affinity, kind: {**known, strength: [*(known.get(strength) or ()), term]}}
