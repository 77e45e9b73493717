"""What others do to our objects by hand: labels and owners stripped, a status wiped, names taken.

A pod is known by its name, which nobody can change; everything else about it is put back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import names
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json, PodView

_POD_NAME: Final = re.compile(r"(.+)-(0|[1-9][0-9]{0,8})-([1-9][0-9]{0,9})")
WATCHED: Final = (
    *(
        names.LABEL_JOB,
        names.LABEL_JOB_UID,
        names.LABEL_SLOT,
        names.LABEL_INCARNATION,
        names.LABEL_ROLE,
    ),
    names.LABEL_APP,
)
"""Labels that selectors of the operator, of monitors and of network policies rest on."""
# What a deletion takes beyond its grace period when nothing holds it up.
LEAVING: Final = timedelta(seconds=10)


def identity(name: str) -> tuple[str, int, int] | None:
    """Job, slot and incarnation of a pod by its name; None when it cannot be one of ours."""
    found = _POD_NAME.fullmatch(name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def labels(job: str, uid: str, slot: int, incarnation: int) -> dict[str, str]:
    """The labels by which the operator, dashboards and people find a pod."""
    return {
        **job_labels(job, uid),
        names.LABEL_SLOT: str(slot),
        names.LABEL_INCARNATION: str(incarnation),
        names.LABEL_ROLE: names.ROLE_WORKER,
        "app.kubernetes.io/component": names.ROLE_WORKER,
    }


def job_labels(job: str, uid: str) -> dict[str, str]:
    """The labels of everything that belongs to a job."""
    return {
        names.LABEL_JOB: job,
        names.LABEL_JOB_UID: uid,
        names.LABEL_APP: names.APP,
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
    }


def owner(job: str, uid: str) -> Json:
    """The reference by which a pod goes with its job."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def latest_attempt(pods: Iterable[PodView]) -> int:
    """The greatest attempt that any pod has seen. No status that was left alone is behind it."""
    seen = [0]
    for pod in pods:
        seen.append(pod.incarnation)
        seen += [known.attempt for known in (pod.assignment, pod.report) if known is not None]
    return max(seen)


def name_taken(found: Json, job: Json, now: datetime) -> str | None:
    """What to tell people about a pod of another owner that has a name we need; None while it is
    about to go.
    """
    metadata = found["metadata"]
    where = f"pod {metadata['namespace']}/{metadata['name']}"
    leaving = parse_time(metadata.get("deletionTimestamp"))
    if leaving is not None:
        holders = ", ".join(metadata.get("finalizers") or ()) or "no answer of its node"
        text = f"{where} of another owner is being deleted but does not go ({holders}); the job waits for its name"
        return None if now < leaving + LEAVING else text
    controller = _controller(metadata)
    if controller.get("kind") == names.KIND and controller.get("name") == job["metadata"]["name"]:
        # Of an earlier job of this name: the garbage collector is on its way.
        return None
    belongs = (
        f"belongs to {controller['kind']} {controller['name']}"
        if controller
        else "belongs to nobody"
    )
    return f"{where} has a name that this job needs and {belongs}; delete it and the job goes on"


def _controller(metadata: Json) -> Json:
    return next(
        (owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")), {}
    )
