"""The life of a job around its attempts: a spec that cannot be carried out, deadlines, and what
becomes of its pods and of itself in the end.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from inception_operator.contract import assignment
from inception_operator.contract.errors import OperatorError, SpecError
from inception_operator.contract.names import CleanPodPolicy, ConditionType, Phase, Reason
from inception_operator.contract.types import Assignment, Json, Plan, PodView
from inception_operator.spec.job import RunPolicy, run_policy

from . import slots
from .plans import delete_pods, is_leaving
from .status import Draft

# What a launcher gets to end with its job before its pod is deleted.
FINISH_SECONDS: Final = timedelta(seconds=30)
FINISH_POLL: Final = 2.0
# The CRD lets these change while the job runs.
_ALWAYS_MUTABLE: Final = ("spec.runPolicy", "spec.failurePolicy", "spec.elasticPolicy")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)


def suspended(resource: Json) -> bool:
    """Whether the user wants no pods."""
    spec = resource.get("spec") or {}
    policy = spec.get("runPolicy") or {}
    return bool(policy.get("suspend"))


def refuse(
    resource: Json,
    draft: Draft,
    pods: Sequence[PodView],
    error: SpecError,
    now: datetime,
) -> Plan:
    """Wait for a spec that can be carried out. What runs is left alone, but for suspend and
    deadline.
    """
    draft.reject(_remedy(error))
    if suspended(resource):
        draft.suspend()
        staying = [pod for pod in pods if not pod.deleting]
        return delete_pods(staying) | draft.plan()
    policy = run_policy(resource)
    due = active_deadline(policy, draft)
    if due is not None and due <= now:
        text = active_text(policy)
        draft.fail(Reason.DEADLINE_EXCEEDED, text)
        return finish(resource, draft, pods, now)
    left = seconds_left(due, now)
    return Plan(requeue_after=left) | draft.plan()


def break_off(resource: Json, error: BaseException, now: datetime) -> Plan:
    """Say in the status that a decision on this job has failed; nothing else is done to it."""
    draft = Draft(resource, now)
    if draft.terminal:
        return Plan()
    draft.reject(
        f"the operator failed at this job and tries again: {describe_error(error)}; other jobs are "
        "not affected, what runs is left alone; please report it",
        Reason.INTERNAL_ERROR,
    )
    return draft.plan()


def describe_error(error: BaseException) -> str:
    """Kind and place of an error, without its text, which may quote the whole job; only our own
    errors are made to be read.
    """
    if isinstance(error, OperatorError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _remedy(error: SpecError) -> str:
    """The error, and how the field can be changed where the schema forbids it while the job is not
    suspended.
    """
    path = error.path
    if not path.startswith("spec.") or path.startswith(_ALWAYS_MUTABLE):
        return str(error)
    return f"{error}; the field can be changed while spec.runPolicy.suspend is true"


def seconds_left(due: datetime | None, now: datetime) -> float | None:
    """Time until a date, at least 0; None when there is no date."""
    if due is None:
        return None
    left = due - now
    return max(0.0, left.total_seconds())


def active_deadline(policy: RunPolicy, draft: Draft) -> datetime | None:
    """When a job that has started and is not suspended has been active for too long."""
    seconds, start = policy.active_deadline, draft.start_time
    if seconds is None or start is None:
        return None
    if draft.is_true(ConditionType.SUSPENDED):
        return None
    return start + timedelta(seconds=seconds)


def active_text(policy: RunPolicy) -> str:
    """What is said of a job whose active deadline has passed."""
    limit = f"{policy.active_deadline} s (spec.runPolicy.activeDeadlineSeconds)"
    return f"the job has not ended within {limit}"


def pre_running_deadline(policy: RunPolicy, draft: Draft) -> datetime | None:
    """When a job that waits for its pods has waited for too long."""
    seconds, since = policy.pre_running_deadline, draft.waiting_since
    if seconds is None or since is None:
        return None
    return since + timedelta(seconds=seconds)


def pre_running_text(policy: RunPolicy, draft: Draft) -> str:
    """What is said of a job that has waited for too long, with the words of whoever kept it
    waiting.
    """
    limit = f"{policy.pre_running_deadline} s (spec.runPolicy.preRunningDeadlineSeconds)"
    reason = draft.reason(ConditionType.PODS_READY)
    message = draft.message(ConditionType.PODS_READY, reason)
    return f"not all pods were ready within {limit}: {reason}: {message}"


def finish(resource: Json, draft: Draft, pods: Sequence[PodView], now: datetime) -> Plan:
    """The job is over. Its pods are cleaned up as its policy says, and in the end the job itself
    is.
    """
    policy = run_policy(resource)
    plan = _cleanup_pods(policy, draft, pods, now)
    if _anyone_left_to_end(pods, plan):
        plan |= Plan(requeue_after=FINISH_POLL)
    plan |= draft.plan()
    left = seconds_left(_expiry(policy, draft), now)
    if left:
        plan |= Plan(requeue_after=left)
    # The end is on record before the record goes: an expired job is deleted in a later pass, when
    # its status needs no more writing.
    expired = left == 0
    return replace(plan, delete_job=expired and plan.status is None)


def _expiry(policy: RunPolicy, draft: Draft) -> datetime | None:
    ended = draft.completed
    if policy.ttl is None or ended is None:
        return None
    return ended + timedelta(seconds=policy.ttl)


def _cleanup_pods(policy: RunPolicy, draft: Draft, pods: Iterable[PodView], now: datetime) -> Plan:
    """Pods to delete, and pods whose launchers end by themselves, so that the logs stay."""
    delete: dict[str, int | None] = {}
    assign: dict[str, Assignment] = {}
    remove_ended = policy.clean_pods == CleanPodPolicy.ALL
    keep_logs = policy.clean_pods == CleanPodPolicy.NONE
    since = draft.completed or now
    patient = keep_logs and now < since + FINISH_SECONDS
    # Only then are all ranks there to save together.
    graceful = draft.reason(ConditionType.FAILED) == Reason.DEADLINE_EXCEEDED
    for pod in pods:
        if pod.deleting:
            continue
        if pod.phase in _ENDED and not remove_ended:
            continue
        told = pod.assignment is not None and pod.assignment.end
        ending = told or slots.finished(pod)
        if patient and not ending and slots.available(pod):
            assign[pod.name] = assignment.end(draft.attempt, pod.assignment, graceful=graceful)
        elif not patient or not ending:
            delete[pod.name] = None
    return Plan(delete=delete, assign=assign)


def _anyone_left_to_end(pods: Iterable[PodView], plan: Plan) -> bool:
    """Whether a pod was left to end by itself."""
    return any(pod.phase not in _ENDED and not is_leaving(pod, plan) for pod in pods)
