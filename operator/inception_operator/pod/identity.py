"""Names, labels and owner references of a job's pods, and what to say when a name is taken.

A pod is known by its name, which nobody can change. Labels and owners can be stripped by hand, and
a status wiped; what is lost that way is put back from the names (decision 14).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import names
from inception_operator.contract.assignment import MOST_TOLD
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json, PodView

# As `build.pod_name` makes it; a job's own name may end in numbers too, so only the last two count.
# Seven digits are `assignment.MAX_ATTEMPT`.
_POD_NAME: Final = re.compile(r"(.+)-(0|[1-9][0-9]{0,8})-([1-9][0-9]{0,6})")
WATCHED: Final = (
    names.LABEL_JOB,
    names.LABEL_JOB_UID,
    names.LABEL_SLOT,
    names.LABEL_INCARNATION,
    names.LABEL_ROLE,
    names.LABEL_APP,
)
"""Labels that selectors of the operator, of monitors and of network policies rest on."""
# What a deletion takes beyond its grace period when nothing holds it up.
LEAVING: Final = timedelta(seconds=10)


def identity(name: str) -> tuple[str, int, int] | None:
    """Job, slot and incarnation of a pod by its name; None when it cannot be one of ours."""
    match = _POD_NAME.fullmatch(name)
    return (match[1], int(match[2]), int(match[3])) if match else None


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


def latest_attempt(pods: Iterable[PodView], written: int, *, starts_assigned: bool) -> int:
    """The greatest attempt that any pod has seen, 0 while there is none that it could have heard
    of; ``written`` is the status's. ``starts_assigned`` is the job whose pod is born with its
    assignment.

    The status is written before pods learn of an attempt, so one with a smaller attempt was wiped
    or restored by hand. Pods of a first attempt that have been told nothing may be there before the
    status is.
    """
    pods = tuple(pods)
    if not written and all(_is_untold(pod, starts_assigned) for pod in pods):
        return 0
    attempts = [0]
    for pod in pods:
        # A replacement is made for the attempt to come and waits for it without an assignment.
        if pod.assignment is not None or pod.incarnation != written + 1 or not written:
            attempts.append(pod.incarnation)
        attempts += [each.attempt for each in (pod.assignment, pod.report) if each is not None]
    credible = max(written, MOST_TOLD)
    return max(number for number in attempts if number <= credible)


def _is_untold(pod: PodView, starts_assigned: bool) -> bool:
    """Whether a pod of the first attempt knows nothing but what it was born with."""
    told, report = pod.assignment, pod.report
    if pod.incarnation != 1:
        return False
    if starts_assigned and told is not None:
        # No other pod has ever had a part in such an attempt, so nothing can be split.
        alone = pod.slot == 0 and told.nnodes == 1 and not told.is_standby
        return alone and told.attempt == 1 and (report is None or report.attempt <= 1)
    return told is None and (report is None or report.attempt == 0)


def name_taken(pod: Json, resource: Json, now: datetime) -> str | None:
    """What to tell people about a pod of another owner that has a name this job needs.

    None while it is about to go by itself.
    """
    metadata = pod["metadata"]
    where = f"pod {metadata['namespace']}/{metadata['name']}"
    leaving = parse_time(metadata.get("deletionTimestamp"))
    if leaving is not None:
        holders = ", ".join(metadata.get("finalizers") or ()) or "no answer of its node"
        text = (
            f"{where} of another owner is being deleted but does not go ({holders}); "
            "the job waits for its name"
        )
        return None if now < leaving + LEAVING else text
    controller = _controller(metadata)
    same_name = controller.get("name") == resource["metadata"]["name"]
    if controller.get("kind") == names.KIND and same_name:
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
