"""Slots: which pod fills which, and what a pod is good for at the moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from inception_operator.contract.names import Cause, Phase, ReportState
from inception_operator.contract.types import PodView

SILENCE = timedelta(seconds=30)
LINGER_SLACK = timedelta(seconds=5)
_LAUNCHER_UP = frozenset(
    (ReportState.IDLE, ReportState.RUNNING, ReportState.FAILED, ReportState.STOPPED)
)
_NODE_GONE = frozenset(("DeletionByTaintManager",))

# By slot number; None where there is no pod or no such slot.
Slots = tuple[PodView | None, ...]


def owned(pods: Iterable[PodView], uid: str) -> tuple[PodView, ...]:
    """Pods whose controller is this very job, and those that lost it; labels alone prove nothing."""
    return tuple(pod for pod in pods if uid in (pod.owner_uid, pod.orphan_of))


def newest(pods: Iterable[PodView]) -> dict[int, PodView]:
    """The newest pod of each slot."""
    found: dict[int, PodView] = {}
    for pod in sorted(pods, key=lambda pod: (-pod.incarnation, pod.name)):
        found.setdefault(pod.slot, pod)
    return found


def arrange(pods: Iterable[PodView], pool: Collection[int]) -> tuple[Slots, tuple[PodView, ...]]:
    """The newest pod of each slot of the pool, and the surplus: older ones and those of other
    slots.
    """
    pods = tuple(pods)
    chosen = {slot: pod for slot, pod in newest(pods).items() if slot in pool}
    surplus = tuple(pod for pod in pods if chosen.get(pod.slot) is not pod)
    return tuple(chosen.get(slot) for slot in range(max(pool) + 1)), surplus


def finished(pod: PodView) -> bool:
    """The trainer container has ended; a side container may still run."""
    return pod.exit_code is not None or pod.phase in (Phase.SUCCEEDED, Phase.FAILED)


def given(pod: PodView, attempt: int) -> bool:
    """The pod has been told to run this attempt."""
    order = pod.assignment
    return order is not None and order.attempt == attempt and not order.is_standby


def busy(pod: PodView) -> bool:
    """Ranks may be running in it, as far as one can tell."""
    order = pod.assignment
    if order is None or pod.phase != Phase.RUNNING or finished(pod):
        return False
    report = pod.report
    if report is None or pod.reachable is False:
        return True
    if report.state in (ReportState.FAILED, ReportState.STOPPED):
        # What has ended stays ended until there is new work; a standby is none.
        return report.attempt < (order.attempt - 1 if order.is_standby else order.attempt)
    return not (
        order.is_standby and report.state == ReportState.IDLE and report.attempt >= order.attempt
    )


def succeeded(pod: PodView, attempt: int) -> bool:
    """Ended with 0 in this attempt. One that ended with 0 in an earlier attempt has no part in this
    one.
    """
    if not given(pod, attempt) or not finished(pod):
        return False
    if pod.report is not None and pod.report.attempt != attempt:
        return False
    return pod.exit_code == 0 or (pod.exit_code is None and pod.phase == Phase.SUCCEEDED)


def available(pod: PodView) -> bool:
    """A launcher is up and can take an assignment."""
    if pod.deleting or finished(pod) or pod.phase != Phase.RUNNING or not pod.ip:
        return False
    state = pod.report.state if pod.report is not None else None
    if state == ReportState.SUCCEEDED:
        return False
    return pod.ready or (pod.reachable is not False and state in _LAUNCHER_UP)


def confirmed(pod: PodView, attempt: int) -> bool:
    """The launcher has said that it has begun this attempt, or has ended."""
    if not given(pod, attempt):
        return False
    if finished(pod):
        return True
    report = pod.report
    working = (ReportState.RUNNING, ReportState.SUCCEEDED)
    return report is not None and report.attempt == attempt and report.state in working


def acknowledged(pod: PodView, attempt: int) -> bool:
    """The launcher has begun this attempt, as far as one can tell."""
    if confirmed(pod, attempt):
        return True
    if not given(pod, attempt) or (pod.report is not None and pod.report.attempt == attempt):
        return False
    return pod.reachable is False and pod.ready and pod.phase == Phase.RUNNING


def lingering(pod: PodView, now: datetime) -> bool:
    """Being deleted but still allowed to save its state: the next attempt must not start over its
    head.
    """
    if not pod.deleting or not busy(pod):
        return False
    lost = pod.disruption_reason in _NODE_GONE or pod.reason == Cause.NODE_LOST
    if lost and not pod.ready:
        return False
    return pod.deletion_deadline is not None and now < pod.deletion_deadline + LINGER_SLACK


def stuck(pod: PodView, now: datetime) -> bool:
    """Deleted, and still there although its time is over: a finalizer holds it, or its node does
    not answer.
    """
    return pod.deletion_deadline is not None and now >= pod.deletion_deadline + LINGER_SLACK


def silent_since(pod: PodView, since: datetime) -> datetime | None:
    """Since when a launcher that was up neither is ready nor answers; None when it does."""
    if pod.ready or pod.reachable is not False or pod.phase != Phase.RUNNING or finished(pod):
        return None
    return max(since, pod.ready_changed or since, pod.unreachable_since or since)
