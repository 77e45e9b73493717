"""What is put back when somebody has changed a pod by hand: its labels and its owner.

A pod is known by its name, which nobody can change (see `pod.identity`).
"""

from __future__ import annotations

from collections.abc import Iterable

from inception_operator.contract.types import Json, PodView
from inception_operator.pod.identity import WATCHED, labels, owner


def repairs(resource: Json, pods: Iterable[PodView]) -> dict[str, Json]:
    """For each pod of the job whose labels or owner were changed, the metadata to put back."""
    metadata = resource["metadata"]
    name = metadata["name"]
    uid = metadata["uid"]
    by_pod: dict[str, Json] = {}
    for pod in pods:
        expected = labels(name, uid, pod.slot, pod.incarnation)
        watched = {key: expected[key] for key in WATCHED}
        missing: Json = {}
        # Other labels are their owners' business, and a merge patch leaves them alone.
        if not watched.items() <= pod.labels.items():
            missing["labels"] = expected
        if pod.owner_uid != uid:
            missing["ownerReferences"] = [owner(name, uid)]
        if missing:
            by_pod[pod.name] = missing
    return by_pod
