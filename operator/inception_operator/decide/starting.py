"""Pods that do not start: when to look for the reason elsewhere, and what is said of it.

A pod that is pending mostly says itself why: the scheduler in a condition, the kubelet in the state
of a container. One that says nothing for `PATIENCE` is looked at more closely: its events may quote
the kubelet, nobody may have looked at it, or somebody may hold it back on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Phase
from inception_operator.contract.types import Plan, PodView

from . import slots
from .plans import requeue_in

PATIENCE: Final = timedelta(seconds=10)
POLL: Final = 15.0
# A container that waits for one of these waits for its turn; any other reason is one to be told.
_IN_TURN: Final = frozenset((None, "ContainerCreating", "PodInitializing"))


def is_overdue(pod: PodView, now: datetime) -> bool:
    """Whether the pod should have started by now, and does not say itself why it has not."""
    due = _due(pod)
    return due is not None and now >= due


def hears_events(pod: PodView, now: datetime) -> bool:
    """Whether its events may say what the pod does not."""
    # Without a node only the scheduler knows about it, who writes into the pod.
    return bool(pod.node) and is_overdue(pod, now)


def is_blocked(pod: PodView) -> bool:
    """Whether the kubelet says in the pod itself why a container does not start."""
    return pod.waiting_reason not in _IN_TURN


def trouble(pod: PodView, now: datetime) -> str | None:
    """What events say keeps the pod from starting; None once it has started or says it itself."""
    return pod.trouble if is_overdue(pod, now) else None


def look_again(pods: Iterable[PodView], now: datetime) -> Plan:
    """When to look at pods again that have not started: no watch event tells of their events."""
    pauses = []
    for pod in pods:
        due = _due(pod)
        if due is not None:
            pauses.append(POLL if due <= now else (due - now).total_seconds())
    return requeue_in(*pauses)


def silence(pods: Iterable[PodView], now: datetime) -> str | None:
    """What is to be said of the first pod that is overdue and that no event tells of; None if there
    is none.
    """
    for pod in pods:
        if not is_overdue(pod, now):
            continue
        if pod.node:
            return f"pod {pod.name} is on node {pod.node} and has not started yet"
        if ("PodScheduled", "False") in pod.conditions:
            return f"pod {pod.name} is held back by its scheduling gates"
        return (
            f"no scheduler has looked at pod {pod.name}; schedulerName in spec.template.spec may "
            "name one that does not run"
        )
    return None


def _due(pod: PodView) -> datetime | None:
    if pod.phase != Phase.PENDING or pod.deleting or slots.finished(pod) or pod.created is None:
        return None
    if pod.unschedulable_message is not None or is_blocked(pod):
        return None
    return pod.created + PATIENCE
