"""Whom to ask before deciding: which launchers, which metrics, which nodes, whose events.

Every question costs a request, so these are asked only where the answer can change a decision.
They are put to the raw resource, before it is parsed: the edge asks before it decides.
"""

from __future__ import annotations

from datetime import datetime

from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType, Phase, StragglerPolicy
from inception_operator.contract.types import Json, PodView
from inception_operator.spec.job import managed_elsewhere

from . import lifecycle, reminders, slots, starting
from .liveness import earliest_loss


def wants_report(resource: Json, pod: PodView) -> bool:
    """Whether to ask this pod's launcher for its report before deciding; healthy pods at work are
    left alone.
    """
    if not _is_active(resource) or not _can_answer(pod):
        return False
    if not pod.ready or pod.reachable is None or pod.never_reached:
        return True
    assignment = pod.assignment
    if assignment is None or assignment.is_standby:
        return False
    # Until the launcher says that it has begun, its silence is what decides.
    if not slots.acknowledged(pod, assignment.attempt):
        return True
    return reminders.wants_answer(pod, assignment.attempt)


def wants_progress(resource: Json, pod: PodView) -> bool:
    """Whether to read this pod's training metrics: rank 0's, while the attempt is running."""
    return pod.assignment is not None and pod.assignment.node_rank == 0 and _trains(resource, pod)


def wants_ranks(resource: Json, pod: PodView) -> bool:
    """Whether to ask this pod's launcher where the steps of its ranks go: there are others to
    compare them with, and the job wants to know of stragglers.
    """
    policy = (resource.get("spec") or {}).get("failurePolicy") or {}
    if policy.get("stragglerPolicy") == StragglerPolicy.NONE or not _trains(resource, pod):
        return False
    assignment = pod.assignment
    return assignment is not None and assignment.nnodes * assignment.nproc_per_node > 1


def _trains(resource: Json, pod: PodView) -> bool:
    """Whether the present attempt runs, and this pod has ranks in it."""
    if not _is_active(resource):
        return False
    if not conditions.is_true(conditions.of(resource), ConditionType.RUNNING):
        return False
    assignment = pod.assignment
    if assignment is None or assignment.is_standby:
        return False
    if assignment.attempt != resource["status"]["attempt"]:
        # It has yet to be told its part in the latest attempt, or to be deleted.
        return False
    if pod.deleting or slots.finished(pod):
        return False
    return (pod.ready or pod.trainer_ready) and bool(pod.ip)


def wants_node(resource: Json, pod: PodView, now: datetime) -> bool:
    """Whether to ask for the state of this pod's node before deciding; pods mostly start sooner
    than they are lost.
    """
    spec = resource.get("spec") or {}
    policy = spec.get("failurePolicy") or {}
    seconds = policy.get("nodeLostSeconds")
    if not seconds or pod.ready or not pod.node:
        return False
    if pod.deleting:
        return True
    if pod.phase == Phase.PENDING:
        due = earliest_loss(pod, seconds)
        return due is not None and now >= due
    # A launcher that answers speaks for its node too.
    return pod.reachable is False and pod.exit_code is None


def wants_events(resource: Json, pod: PodView, now: datetime) -> bool:
    """Whether to ask for the events of this pod before deciding: only where nothing else says why
    it does not start.
    """
    return _is_active(resource) and starting.hears_events(pod, now)


def _is_active(resource: Json) -> bool:
    """Whether this operator wants pods for the job."""
    if resource["metadata"].get("deletionTimestamp"):
        return False
    if managed_elsewhere(resource) or lifecycle.suspended(resource):
        return False
    return not conditions.terminal(conditions.of(resource))


def _can_answer(pod: PodView) -> bool:
    """Whether a launcher may be listening: the container runs and has an address."""
    if pod.phase != Phase.RUNNING or not pod.ip:
        return False
    return not pod.deleting and not slots.finished(pod)
