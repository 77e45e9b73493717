"""The life of a job around its attempts: a spec that cannot be carried out, deadlines, and what
becomes of the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import assignment
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import CleanPodPolicy, ConditionType, Phase, Reason
from inception_operator.contract.types import Assignment, Json, Plan, PodView
from inception_operator.spec.job import RunPolicy, run_policy

from . import slots
from .status import Draft

# What a launcher gets to end with its job before its pod is deleted.
WIND_UP: Final = timedelta(seconds=30)
WIND_UP_POLL: Final = 2.0
_ALWAYS_MUTABLE: Final = ("spec.runPolicy", "spec.failurePolicy", "spec.elasticPolicy")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)


def suspended(job: Json) -> bool:
    """Whether the user wants no pods."""
    return bool(((job.get("spec") or {}).get("runPolicy") or {}).get("suspend"))


def refuse(
    job: Json, draft: Draft, pods: Sequence[PodView], error: SpecError, now: datetime
) -> Plan:
    """Wait for a spec that can be carried out. What runs is left alone, but for suspend and
    deadline.
    """
    draft.reject(_remedy(error))
    if suspended(job):
        draft.suspend()
        return draft.plan(delete={pod.name: None for pod in pods if not pod.deleting})
    policy = run_policy(job)
    left = seconds_left(active_deadline(policy, draft), now)
    if left is not None and left <= 0:
        draft.fail(Reason.DEADLINE_EXCEEDED, active_text(policy))
        return wind_up(job, draft, pods, now)
    return draft.plan(requeue_after=left)


def _remedy(error: SpecError) -> str:
    """The error, and how the field can be changed where the schema forbids it while the job is not
    suspended.
    """
    if not error.path.startswith("spec.") or error.path.startswith(_ALWAYS_MUTABLE):
        return str(error)
    return f"{error}; the field can be changed while spec.runPolicy.suspend is true"


def seconds_left(due: datetime | None, now: datetime) -> float | None:
    """Time until a date, at least 0; None when there is no date."""
    return None if due is None else max(0.0, (due - now).total_seconds())


def active_deadline(policy: RunPolicy, draft: Draft) -> datetime | None:
    """When a job that has started and is not suspended has been active for too long."""
    start = draft.start_time
    if policy.active_deadline is None or start is None or draft.is_true(ConditionType.SUSPENDED):
        return None
    return start + timedelta(seconds=policy.active_deadline)


def active_text(policy: RunPolicy) -> str:
    """What is said of a job whose active deadline has passed."""
    return f"the job has not ended within {policy.active_deadline} s (spec.runPolicy.activeDeadlineSeconds)"


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
    return f"not all pods were ready within {limit}: {reason}: {draft.message(ConditionType.PODS_READY, reason)}"


def wind_up(job: Json, draft: Draft, pods: Sequence[PodView], now: datetime) -> Plan:
    """The job is over. Its pods are cleaned up as its policy says, and in the end the job itself
    is.
    """
    policy = run_policy(job)
    delete, assign = _last_orders(policy, draft, pods, now)
    waiting = WIND_UP_POLL if _lingers(pods, delete) else None
    left = seconds_left(_expiry(policy, draft), now)
    # The end is on record before the record goes.
    pending = (seconds for seconds in (waiting, left) if seconds)
    plan = draft.plan(delete=delete, assign=assign, requeue_after=min(pending, default=None))
    return replace(plan, delete_job=True) if left == 0 and plan.status is None else plan


def _expiry(policy: RunPolicy, draft: Draft) -> datetime | None:
    if policy.ttl is None or draft.completed is None:
        return None
    return draft.completed + timedelta(seconds=policy.ttl)


def _last_orders(
    policy: RunPolicy, draft: Draft, pods: Iterable[PodView], now: datetime
) -> tuple[dict[str, int | None], dict[str, Assignment]]:
    """Pods to delete, and pods whose launchers end by themselves, so that the logs stay."""
    delete: dict[str, int | None] = {}
    assign: dict[str, Assignment] = {}
    patient = policy.clean_pods == CleanPodPolicy.NONE and now < (draft.completed or now) + WIND_UP
    # Only then are all ranks there to save together.
    graceful = draft.reason(ConditionType.FAILED) == Reason.DEADLINE_EXCEEDED
    for pod in pods:
        if pod.deleting or (pod.phase in _ENDED and policy.clean_pods != CleanPodPolicy.ALL):
            continue
        told = pod.assignment is not None and pod.assignment.end
        if patient and not told and not slots.finished(pod) and slots.available(pod):
            assign[pod.name] = assignment.end(draft.attempt, graceful=graceful)
        elif not patient or not (told or slots.finished(pod)):
            delete[pod.name] = None
    return delete, assign


def _lingers(pods: Sequence[PodView], delete: dict[str, int | None]) -> bool:
    """Whether a pod was left to end by itself."""
    return any(
        not pod.deleting and pod.phase not in _ENDED and pod.name not in delete for pod in pods
    )
