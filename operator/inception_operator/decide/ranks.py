"""Assignments: which rank each member has in the attempt, who stands by, and who is told again.

An assignment is an annotation of the pod, which its launcher reads from a file. It may be lost
between two writes of the operator, and every pass hands out what has not been handed out yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from inception_operator.contract import assignment
from inception_operator.contract.types import Assignment, Plan, PodView
from inception_operator.spec.job import Job

from . import failure, liveness, reminders, slots
from .plans import requeue_in
from .status import Draft
from .view import JobView, Placement

ACK_POLL: Final = 1.0


def hand_out_ranks(view: JobView, draft: Draft, placed: Placement) -> Plan:
    """Hand out what has not been handed out, remind of what may be lost, and see whether the ranks
    run.
    """
    attempt = draft.attempt
    issued = draft.issued
    assign: dict[str, Assignment] = {}
    for rank, pod in enumerate(placed.ranked):
        if pod is None:
            continue
        if not slots.given(pod, attempt) and not slots.finished(pod):
            assign[pod.name] = assignment_of(view, draft, placed, rank)
            continue
        number = reminders.due(pod, attempt, issued, view.now)
        if number:
            # Its number makes the annotation another one, which the kubelet writes out again.
            again = assignment_of(view, draft, placed, rank)
            assign[pod.name] = replace(again, reminder=number)
    first = placed.first
    if first is not None and slots.acknowledged(first, attempt):
        draft.run(_unwatched(view.job))
    return Plan(assign=assign) | _watch_attempt(view, draft, placed)


def _unwatched(job: Job) -> str | None:
    """Which hangs of the job's ranks nobody will find; None where all are found."""
    if job.progress_deadline == 0:
        return "hangs are not looked for, as spec.failurePolicy.progressDeadlineSeconds is 0"
    if job.program:
        return "hangs are found by the program's signs of life, if it gives any"
    return None


def assignment_of(view: JobView, draft: Draft, placed: Placement, rank: int) -> Assignment:
    """What the member with this node rank is told."""
    job = view.job
    first = placed.first
    return assignment.work(
        draft.attempt,
        rank,
        nodes=len(placed.membership.members),
        nproc=view.devices.nproc,
        # Rank 0 has the rendezvous store.
        master=first.ip if first is not None else None,
        graceful=_may_save(draft),
        notify_address=view.context.notify_address,
        host=job.uid if job.host_network else None,
    )


def stand_by(draft: Draft, pods: Iterable[PodView]) -> Plan:
    """Tell launchers with ranks of an earlier attempt to end them and stay warm."""
    attempt = draft.attempt
    standby = assignment.standby(attempt, graceful=_may_save(draft))
    assign: dict[str, Assignment] = {}
    for pod in pods:
        if _has_older_ranks(pod, attempt):
            assign[pod.name] = standby
    return Plan(assign=assign)


def _has_older_ranks(pod: PodView, attempt: int) -> bool:
    told = pod.assignment
    if told is None or told.is_standby:
        return False
    return told.attempt < attempt and not slots.finished(pod)


def _may_save(draft: Draft) -> bool:
    """Whether ranks of the attempt before can still save together; from the status, so every pass
    says the same.
    """
    attempt = draft.attempt
    cause = draft.root_cause or {}
    if cause.get("attempt") == attempt - 1:
        return failure.was_graceful(cause)
    # It did not fail: it was suspended or resized, and all its ranks were there.
    return attempt > 1


def _watch_attempt(view: JobView, draft: Draft, placed: Placement) -> Plan:
    """When to look again at members that may turn out not to respond."""
    now = view.now
    attempt = draft.attempt
    issued = draft.issued
    node_loss = view.job.node_loss
    members = placed.pods_of(placed.membership.members)
    pauses: list[float] = []
    for pod in members:
        due = liveness.response_deadline(pod, attempt, issued, node_loss)
        if due is not None:
            left = (due - now).total_seconds()
            pauses.append(min(left, ACK_POLL))
        pause = reminders.look_again(pod, attempt, issued, now)
        if pause is not None:
            pauses.append(pause)
        if not pod.ready and not slots.finished(pod):
            # Readiness that never came back since the last attempt cannot drop again to tell of a
            # failure.
            pauses.append(ACK_POLL)
    return requeue_in(*pauses)
