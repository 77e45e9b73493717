"""Pods as decisions see them (`view`), and the small copy of a Pod that is cached (`trim_pod`).

Both run for every event of every pod of the cluster that is a job's, so they look only at the keys
they need. What `trim_pod` keeps is what `view` reads, no more: of thousands of pods it is most of
the operator's memory.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from inception_operator.contract import assignment, report
from inception_operator.contract.names import (
    ANNOTATION_ASSIGNMENT,
    ANNOTATION_EXCLUDED_NODES,
    CONTAINER,
    FIELD_MANAGER,
    LABEL_JOB_UID,
    Phase,
)
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json, PodView, Report

from . import identity

_CONDITIONS = ("Ready", "PodScheduled", "DisruptionTarget")
_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
)
_STATUS = ("phase", "podIP", "reason", "message")
_LONGEST_GRACE: Final = 365 * 24 * 3600
"""Seconds. A template may ask for any number, which the API server takes; no date is so far."""


def trim_pod(pod: Json) -> Json:
    """The part of a Pod that `view` reads; everything else may be forgotten."""
    metadata = pod["metadata"]
    status = pod.get("status") or {}
    small = _pick(metadata, _METADATA)
    small["labels"] = _pick(metadata.get("labels") or {}, identity.WATCHED)
    small["annotations"] = _annotations_of(metadata)
    owner = _controller(metadata)
    if owner is not None:
        small["ownerReferences"] = [_pick(owner, ("kind", "name", "uid", "controller"))]
    elif _made_by_operator(metadata):
        # Managed fields are often the greater part of a pod; they matter only to tell whose an
        # orphan was.
        small["managedFields"] = [{"manager": FIELD_MANAGER}]
    state = _pick(status, _STATUS)
    state["conditions"] = [_trim_condition(c) for c in status.get("conditions") or ()]
    of_ready_pod = any(
        c.get("type") == "Ready" and c.get("status") == "True" for c in state["conditions"]
    )
    for key in ("containerStatuses", "initContainerStatuses"):
        containers = [
            _trim_container(c, of_ready_pod) for c in status.get(key) or () if _tells(key, c)
        ]
        if containers:
            state[key] = containers
    return {
        "metadata": small,
        "spec": _pick(pod.get("spec") or {}, ("nodeName",)),
        "status": state,
    }


def view(
    pod: Json,
    answer: Report | None = None,
    reachable: bool | None = None,
    unreachable_since: datetime | None = None,
    ran_before: bool = False,
) -> PodView | None:
    """What decisions need of a Pod; None when its name is not that of a slot.

    ``answer`` is the latest ``/status`` answer of this very pod (by uid); a termination message
    overrules it. ``ran_before`` says that the operator never saw it wait.
    """
    metadata = pod["metadata"]
    status = pod.get("status") or {}
    name_parts = identity.identity(metadata["name"])
    if name_parts is None:
        return None
    _, slot, incarnation = name_parts
    annotations = metadata.get("annotations") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    fields: dict[str, Any] = _container_fields(status)
    last_word = report.from_json(fields.pop("termination"))
    if last_word is not None:
        # The container's message is then the report's JSON, which is no text for people.
        fields["message"] = status.get("message")
    owner = _controller(metadata)
    return PodView(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        slot=slot,
        incarnation=incarnation,
        phase=status.get("phase") or Phase.PENDING,
        ready=ready.get("status") == "True",
        conditions=tuple((str(kind), str(c.get("status"))) for kind, c in conditions.items()),
        ready_changed=parse_time(ready.get("lastTransitionTime")),
        deleting="deletionTimestamp" in metadata,
        **_deletion_fields(metadata),
        labels=_pick(metadata.get("labels") or {}, identity.WATCHED),
        created=parse_time(metadata.get("creationTimestamp")),
        ip=status.get("podIP") or None,
        node=(pod.get("spec") or {}).get("nodeName"),
        excluded_nodes=_excluded_nodes(annotations.get(ANNOTATION_EXCLUDED_NODES)),
        assignment=assignment.from_json(annotations.get(ANNOTATION_ASSIGNMENT)),
        reason=status.get("reason"),
        unschedulable_message=_unschedulable(conditions.get("PodScheduled")),
        disruption_reason=_disruption(conditions.get("DisruptionTarget")),
        report=last_word or answer,
        reachable=reachable,
        # The answers of a launcher are kept when it falls silent.
        never_reached=reachable is False and answer is None,
        unreachable_since=unreachable_since,
        ran_before=ran_before,
        owner_uid=owner.get("uid") if owner else None,
        unhealthy=_unhealthy_text(status),
        trainer_ready=ready.get("status") != "True" and _trainer_ready(status),
        orphan_of=_orphan_of(metadata) if owner is None else None,
        **fields,
    )


def _pick(source: Json, keys: tuple[str, ...]) -> Json:
    return {key: source[key] for key in keys if key in source}


def _annotations_of(metadata: Json) -> Json:
    annotations = _pick(
        metadata.get("annotations") or {}, (ANNOTATION_ASSIGNMENT, ANNOTATION_EXCLUDED_NODES)
    )
    # One may have 256 KiB, and whoever may patch pods can write it.
    return {key: text for key, text in annotations.items() if len(text) <= assignment.MAX_TEXT}


def _excluded_nodes(text: str | None) -> frozenset[str]:
    if not text or len(text) > assignment.MAX_TEXT:
        return frozenset()
    return frozenset(text.split(","))


def _controller(metadata: Json) -> Json | None:
    owners: list[Json] = metadata.get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def _made_by_operator(metadata: Json) -> bool:
    return any(
        entry.get("manager") == FIELD_MANAGER for entry in metadata.get("managedFields") or ()
    )


def _orphan_of(metadata: Json) -> str | None:
    # A copy that somebody made by hand may have all our labels, but has another manager.
    if not _made_by_operator(metadata):
        return None
    uid: str | None = (metadata.get("labels") or {}).get(LABEL_JOB_UID)
    return uid


def _tells(key: str, container: Json) -> bool:
    """Whether a container's status matters: the trainer's, and an init container's in trouble."""
    if key == "containerStatuses":
        return bool(container.get("name") == CONTAINER)
    state = container.get("state") or {}
    terminated = state.get("terminated") or {}
    return bool(terminated.get("exitCode")) or bool(state.get("waiting"))


def _trim_condition(condition: Json) -> Json:
    # Of most only type and status count, and few different ones exist, so all pods share them.
    if condition.get("type") in _CONDITIONS:
        return condition
    return _shared_condition(str(condition.get("type")), str(condition.get("status")))


@lru_cache(maxsize=256)
def _shared_condition(kind: str, status: str) -> Json:
    return {"type": kind, "status": status}


def _trim_container(container: Json, of_ready_pod: bool) -> Json:
    small = _pick(container, ("name", "state"))
    if container.get("ready") is True and not of_ready_pod:
        small["ready"] = True
    if broken := _unhealthy(container):
        small["allocatedResourcesStatus"] = broken
    return small


def _unhealthy(container: Json) -> list[Json]:
    """The devices that the kubelet reports as broken, in its own form."""
    unhealthy = []
    for resource in container.get("allocatedResourcesStatus") or ():
        devices = [
            device
            for device in resource.get("resources") or ()
            # The kubelet also says Unknown, while a plug-in restarts; that is no failure.
            if device.get("health") == "Unhealthy"
        ]
        if devices:
            unhealthy.append({"name": resource.get("name"), "resources": devices})
    return unhealthy


def _unhealthy_text(status: Json) -> str | None:
    """The broken devices of the trainer, such as ``example.com/gpu gpu-0, gpu-1``."""
    resources = []
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            resources += _unhealthy(container)
    texts = []
    for resource in resources:
        ids = ", ".join(str(device.get("resourceID")) for device in resource["resources"])
        texts.append(f"{resource['name']} {ids}")
    return "; ".join(texts) or None


def _trainer_ready(status: Json) -> bool:
    # A side-car that has ended, for good or not, keeps the whole pod from being ready ever again.
    return any(
        container.get("name") == CONTAINER and container.get("ready") is True
        for container in status.get("containerStatuses") or ()
    )


def _deletion_fields(metadata: Json) -> Json:
    deadline = parse_time(metadata.get("deletionTimestamp"))
    if deadline is None:
        return {}
    # The API server sets the timestamp to when the pod is killed, not to when it was asked to end.
    grace = min(metadata.get("deletionGracePeriodSeconds") or 0, _LONGEST_GRACE)
    return {
        "deletion_deadline": deadline,
        "deletion_requested": deadline - timedelta(seconds=grace),
        "finalizers": tuple(metadata.get("finalizers") or ()),
    }


def _container_fields(status: Json) -> dict[str, Any]:
    state = _state_of(status)
    terminated = state.get("terminated")
    waiting = state.get("waiting") or {}
    fields: dict[str, Any] = {
        "waiting_reason": waiting.get("reason"),
        "waiting_message": waiting.get("message"),
        "message": status.get("message"),
        "termination": None,
    }
    if terminated:
        fields |= {
            "exit_code": terminated.get("exitCode"),
            "terminated_reason": terminated.get("reason"),
            "finished": parse_time(terminated.get("finishedAt")),
            "termination": terminated.get("message"),
            "message": status.get("message") or terminated.get("message"),
        }
    return fields


def _state_of(status: Json) -> Json:
    """The trainer's state, or that of an init container that keeps the trainer from starting."""
    trainer: Json = {}
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            trainer = container.get("state") or {}
    if trainer.get("terminated") or trainer.get("running"):
        return trainer
    failed = status.get("phase") == Phase.FAILED
    for container in status.get("initContainerStatuses") or ():
        state: Json = container.get("state") or {}
        exit_code = (state.get("terminated") or {}).get("exitCode")
        # An init container that waits without a message only waits for its turn.
        if (exit_code and failed) or (state.get("waiting") or {}).get("message"):
            return state
    return trainer


def _unschedulable(condition: Json | None) -> str | None:
    if not condition or condition.get("status") != "False":
        return None
    # SchedulingGated is the other reason: somebody holds the pod back on purpose.
    if condition.get("reason") != "Unschedulable":
        return None
    return condition.get("message") or "no node fits"


def _disruption(condition: Json | None) -> str | None:
    if not condition or condition.get("status") != "True":
        return None
    return condition.get("reason") or "Disruption"
