"""Slots: which pod fills which node of a job, and what a pod is good for at the moment.

A job of n nodes has the slots 0 to n-1 (an elastic one may use higher numbers too); each is filled
by one pod at a time, whose name says the slot and the attempt it was made for. Whether a launcher
that says nothing is still there is decided in `liveness`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import GRACE_SECONDS, Cause, Phase, ReportState
from inception_operator.contract.types import PodView

from .imposed import NODE_GONE

# A pod may outlive its deletion deadline by so much: the kubelet still has to confirm the end.
LINGER_SLACK: Final = timedelta(seconds=5)
_LAUNCHER_UP: Final = frozenset(
    (
        ReportState.IDLE,
        ReportState.RUNNING,
        ReportState.FAILED,
        ReportState.STOPPED,
    )
)

# By slot number; None where there is no pod or no such slot.
Slots = tuple[PodView | None, ...]


def owned(pods: Iterable[PodView], uid: str) -> tuple[PodView, ...]:
    """Pods whose controller is this very job, and those that lost it: labels prove nothing."""
    return tuple(pod for pod in pods if uid in (pod.owner_uid, pod.orphan_of))


def holders(pods: Iterable[PodView], attempt: int) -> dict[int, PodView]:
    """The pod that fills each slot in this attempt: the newest one, unless that is a replacement
    which was made for the attempt to come, or which cannot take over yet.
    """
    by_slot: dict[int, PodView] = {}
    for pod in sorted(pods, key=_newest_first):
        newer = by_slot.get(pod.slot)
        if pod.incarnation <= attempt and (newer is None or _gives_way(newer, pod, attempt)):
            by_slot[pod.slot] = pod
    return by_slot


def replacements(pods: Iterable[PodView], attempt: int) -> dict[int, PodView]:
    """The pod of each slot that was made for the attempt to come (see `moves`)."""
    by_slot: dict[int, PodView] = {}
    for pod in sorted(pods, key=_newest_first):
        if pod.incarnation > attempt:
            by_slot.setdefault(pod.slot, pod)
    return by_slot


def _newest_first(pod: PodView) -> tuple[int, str]:
    # The name breaks ties, so that every pass chooses the same pod.
    return -pod.incarnation, pod.name


def _gives_way(newer: PodView, older: PodView, attempt: int) -> bool:
    """Whether a replacement leaves the slot to the pod that it was made for, because an attempt
    that ended meanwhile has brought it forward.
    """
    if older.deleting or finished(older) or newer.assignment is not None:
        return False
    # Ranks that still run are faster told to begin anew than waited for.
    return given(older, attempt) or busy(older) or not available(newer)


def arrange(
    pods: Iterable[PodView],
    pool: Collection[int],
    attempt: int,
) -> tuple[Slots, tuple[PodView, ...]]:
    """The pod that fills each slot of the pool, and the surplus: the others of these slots and
    those of other slots.
    """
    pods = tuple(pods)
    chosen = {slot: pod for slot, pod in holders(pods, attempt).items() if slot in pool}
    surplus = [pod for pod in pods if chosen.get(pod.slot) is not pod]
    filled = [chosen.get(slot) for slot in range(max(pool) + 1)]
    return tuple(filled), tuple(surplus)


def finished(pod: PodView) -> bool:
    """The trainer container has ended; a side container may still run."""
    return pod.exit_code is not None or pod.phase in (Phase.SUCCEEDED, Phase.FAILED)


def given(pod: PodView, attempt: int) -> bool:
    """The pod has been told to run this attempt."""
    assignment = pod.assignment
    if assignment is None or assignment.is_standby:
        return False
    return assignment.attempt == attempt


def busy(pod: PodView) -> bool:
    """Ranks may be running in it, as far as one can tell."""
    assignment = pod.assignment
    if assignment is None or finished(pod):
        return False
    if pod.phase != Phase.RUNNING:
        return False
    report = pod.report
    if report is None or pod.reachable is False:
        return True
    told, standby = assignment.attempt, assignment.is_standby
    if report.state in (ReportState.FAILED, ReportState.STOPPED):
        # What has ended stays ended until there is new work, and to stand by is none.
        latest = told - 1 if standby else told
        return report.attempt < latest
    if standby and report.state == ReportState.IDLE:
        return report.attempt < told
    return True


def succeeded(pod: PodView, attempt: int) -> bool:
    """Ended with 0 in this attempt. One that ended with 0 in an earlier attempt has no part in this
    one.
    """
    if not given(pod, attempt) or not finished(pod):
        return False
    report = pod.report
    if report is not None and report.attempt != attempt:
        return False
    if pod.exit_code is not None:
        return pod.exit_code == 0
    # Without a container status the phase is all there is.
    return pod.phase == Phase.SUCCEEDED


def available(pod: PodView) -> bool:
    """A launcher is up and can take an assignment."""
    if pod.deleting or finished(pod) or told_to_end(pod):
        return False
    if pod.phase != Phase.RUNNING or not pod.ip:
        return False
    report = pod.report
    state = report.state if report is not None else None
    if state == ReportState.SUCCEEDED:
        # It is about to end by itself.
        return False
    if pod.ready:
        return True
    return pod.reachable is not False and state in _LAUNCHER_UP


def told_to_end(pod: PodView) -> bool:
    """Something other than the operator has told its launcher to end: it takes no further attempt,
    and ends as soon as its ranks have saved.
    """
    return pod.report is not None and pod.report.leaving


def word_of_end(pod: PodView) -> tuple[int, str, bool] | None:
    """What a pod says of its end: attempt, state, and whether it was told to; None for nothing."""
    report = pod.report
    if report is not None and (
        report.leaving or report.state in (ReportState.FAILED, ReportState.STOPPED)
    ):
        return report.attempt, report.state, report.leaving
    return (0, pod.phase, False) if finished(pod) else None


def confirmed(pod: PodView, attempt: int) -> bool:
    """The launcher has said that it has begun this attempt, or has ended."""
    if not given(pod, attempt):
        return False
    if finished(pod):
        return True
    report = pod.report
    if report is None or report.attempt != attempt:
        return False
    return report.state in (ReportState.RUNNING, ReportState.SUCCEEDED)


def acknowledged(pod: PodView, attempt: int) -> bool:
    """The launcher has begun this attempt, as far as one can tell."""
    if confirmed(pod, attempt):
        return True
    if not given(pod, attempt):
        return False
    report = pod.report
    if report is not None and report.attempt == attempt:
        return False
    # It cannot be asked, as behind a network policy, but its readiness probe succeeds.
    return pod.reachable is False and pod.ready and pod.phase == Phase.RUNNING


def lingering(pod: PodView, now: datetime) -> bool:
    """Being deleted or told to end, but still allowed to save its state: the next attempt must not
    start over its head.
    """
    if not busy(pod):
        return False
    if not pod.deleting:
        return told_to_end(pod) and not _is_late(pod, now)
    lost = pod.disruption_reason in NODE_GONE or pod.reason == Cause.NODE_LOST
    if lost and not pod.ready:
        return False
    deadline = pod.deletion_deadline
    return deadline is not None and now < deadline + LINGER_SLACK


def _is_late(pod: PodView, now: datetime) -> bool:
    """Whether a launcher that was told to end should have ended by now."""
    told = pod.heard or (pod.report.time if pod.report is not None else None)
    return told is None or now >= told + timedelta(seconds=GRACE_SECONDS) + LINGER_SLACK


def stuck(pod: PodView, now: datetime) -> bool:
    """Deleted, and still there although its time is over: a finalizer holds it, or its node does
    not answer.
    """
    deadline = pod.deletion_deadline
    return deadline is not None and now >= deadline + LINGER_SLACK
