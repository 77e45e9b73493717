"""The life of a job around its attempts: a spec that cannot be carried out, deadlines, and what
becomes of its pods and of itself in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import assignment
from inception_operator.contract.names import CleanPodPolicy, ConditionType, Phase, Reason
from inception_operator.contract.types import Assignment, Json, Plan, PodView
from inception_operator.spec.fields import SpecError
from inception_operator.spec.job import RunPolicy, run_policy

from . import slots
from .plans import delete_pods
from .status import Draft

# What a launcher gets to end with its job before its pod is deleted.
FINISH_SECONDS: Final = timedelta(seconds=30)
FINISH_POLL: Final = 2.0
# The CRD lets these change while the job runs.
_ALWAYS_MUTABLE: Final = ("spec.runPolicy", "spec.failurePolicy", "spec.elasticPolicy")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)


def suspended(resource: Json) -> bool:
    """Whether the user wants no pods."""
    policy = (resource.get("spec") or {}).get("runPolicy") or {}
    return bool(policy.get("suspend"))


def refuse(
    resource: Json, draft: Draft, pods: Sequence[PodView], error: SpecError, now: datetime
) -> Plan:
    """Wait for a spec that can be carried out. What runs is left alone, but for suspend and
    deadline.
    """
    draft.reject(_remedy(error))
    if suspended(resource):
        draft.suspend()
        return delete_pods(pod for pod in pods if not pod.deleting) | draft.plan()
    policy = run_policy(resource)
    left = seconds_left(active_deadline(policy, draft), now)
    if left is not None and left <= 0:
        draft.fail(Reason.DEADLINE_EXCEEDED, active_text(policy))
        return finish(resource, draft, pods, now)
    return draft.plan() | Plan(requeue_after=left)


def _remedy(error: SpecError) -> str:
    """The error, and how the field can be changed where the schema forbids it while the job is not
    suspended.
    """
    if not error.path.startswith("spec.") or error.path.startswith(_ALWAYS_MUTABLE):
        return str(error)
    return f"{error}; the field can be changed while spec.runPolicy.suspend is true"


def seconds_left(due: datetime | None, now: datetime) -> float | None:
    """Time until a date, at least 0; None when there is no date."""
    if due is None:
        return None
    return max(0.0, (due - now).total_seconds())


def active_deadline(policy: RunPolicy, draft: Draft) -> datetime | None:
    """When a job that has started and is not suspended has been active for too long."""
    start = draft.start_time
    if policy.active_deadline is None or start is None or draft.is_true(ConditionType.SUSPENDED):
        return None
    return start + timedelta(seconds=policy.active_deadline)


def active_text(policy: RunPolicy) -> str:
    """What is said of a job whose active deadline has passed."""
    limit = f"{policy.active_deadline} s (spec.runPolicy.activeDeadlineSeconds)"
    return f"the job has not ended within {limit}"


def pre_running_deadline(policy: RunPolicy, draft: Draft) -> datetime | None:
    """When a job that waits for its pods has waited for too long."""
    since = draft.waiting_since
    if policy.pre_running_deadline is None or since is None:
        return None
    return since + timedelta(seconds=policy.pre_running_deadline)


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
    poll = FINISH_POLL if _anyone_left_to_end(pods, plan) else None
    left = seconds_left(_expiry(policy, draft), now)
    # The end is on record before the record goes: an expired job is deleted in a later pass, when
    # its status needs no more writing.
    plan |= draft.plan() | Plan(requeue_after=poll) | Plan(requeue_after=left or None)
    return replace(plan, delete_job=left == 0 and plan.status is None)


def _expiry(policy: RunPolicy, draft: Draft) -> datetime | None:
    if policy.ttl is None or draft.completed is None:
        return None
    return draft.completed + timedelta(seconds=policy.ttl)


def _cleanup_pods(policy: RunPolicy, draft: Draft, pods: Iterable[PodView], now: datetime) -> Plan:
    """Pods to delete, and pods whose launchers end by themselves, so that the logs stay."""
    delete: dict[str, int | None] = {}
    assign: dict[str, Assignment] = {}
    keep_logs = policy.clean_pods == CleanPodPolicy.NONE
    patient = keep_logs and now < (draft.completed or now) + FINISH_SECONDS
    # Only then are all ranks there to save together.
    graceful = draft.reason(ConditionType.FAILED) == Reason.DEADLINE_EXCEEDED
    for pod in pods:
        if pod.deleting or (pod.phase in _ENDED and policy.clean_pods != CleanPodPolicy.ALL):
            continue
        told = pod.assignment is not None and pod.assignment.end
        ending = told or slots.finished(pod)
        if patient and not ending and slots.available(pod):
            assign[pod.name] = assignment.end(draft.attempt, graceful=graceful)
        elif not patient or not ending:
            delete[pod.name] = None
    return Plan(delete=delete, assign=assign)


def _anyone_left_to_end(pods: Iterable[PodView], plan: Plan) -> bool:
    """Whether a pod was left to end by itself."""
    left = (pod for pod in pods if not pod.deleting and pod.phase not in _ENDED)
    return any(pod.name not in plan.delete for pod in left)
