"""``failurePolicy.nodeLostSeconds``: when a pod counts as lost with its node, and is not waited for
any longer.

Three witnesses must agree for so long: the pod is not ready, its launcher does not answer, and its
node is not ready. The launcher is not asked where the pod is being deleted or has not started.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Phase
from inception_operator.contract.types import Json, PodView
from inception_operator.spec.failure_policy import NodeLoss

POLL: Final = 10.0


BLIND: Final = "spec.failurePolicy.nodeLostSeconds has no effect: this operator may not read nodes"
"""What is said to jobs with these fields where the operator has no right to look at nodes."""


def lost_at(policy: NodeLoss, pod: PodView) -> datetime | None:
    """When the pod counts as lost; None while a witness speaks for it."""
    if policy.seconds is None or pod.ready or pod.node_lost_since is None:
        return None
    witnesses = [pod.node_lost_since, pod.ready_changed, pod.created]
    if not pod.deleting and pod.phase != Phase.PENDING:
        if pod.reachable is not False:
            return None
        witnesses.append(pod.unreachable_since)
    return max(time for time in witnesses if time is not None) + timedelta(seconds=policy.seconds)


def is_lost(policy: NodeLoss, pod: PodView, now: datetime) -> bool:
    """Whether the pod counts as lost."""
    due = lost_at(policy, pod)
    return due is not None and now >= due


def lost_text(policy: NodeLoss, pod: PodView) -> str:
    """What is said of a pod that is lost."""
    silence = (
        "the pod has not started" if pod.phase == Phase.PENDING else "the launcher does not answer"
    )
    return f"the node has not been ready for {policy.seconds} s and {silence}"


def stuck(policy: NodeLoss, pods: Iterable[PodView], now: datetime) -> list[PodView]:
    """Pods to delete by force: their kubelet, which would confirm their end, is gone."""
    # With a grace of 0 they have been told already, and something else holds them.
    terminating = (
        pod for pod in pods if pod.deleting and pod.deletion_requested != pod.deletion_deadline
    )
    return [pod for pod in terminating if policy.force and is_lost(policy, pod, now)]


def look_again(policy: NodeLoss, pods: Iterable[PodView], now: datetime) -> float | None:
    """Seconds until the next look at pods that end or start: nothing else tells of their nodes."""
    if policy.seconds is None:
        return None
    return min((_left(policy, pod, now) for pod in pods if _is_quiet(policy, pod)), default=None)


def _is_quiet(policy: NodeLoss, pod: PodView) -> bool:
    """Whether nobody would notice that its node is gone."""
    if pod.ready or not pod.node:
        return False
    return policy.force if pod.deleting else pod.phase == Phase.PENDING


def _left(policy: NodeLoss, pod: PodView, now: datetime) -> float:
    due = lost_at(policy, pod) or (None if pod.deleting else _old_enough(pod, policy.seconds or 0))
    return POLL if due is None or due <= now else (due - now).total_seconds()


def wants_node(job: Json, pod: PodView, now: datetime) -> bool:
    """Whether to ask for the state of this pod's node before deciding; pods mostly start sooner
    than they are lost.
    """
    seconds = ((job.get("spec") or {}).get("failurePolicy") or {}).get("nodeLostSeconds")
    if not seconds or pod.ready or not pod.node:
        return False
    if pod.phase == Phase.PENDING and not pod.deleting:
        due = _old_enough(pod, seconds)
        return due is not None and now >= due
    return pod.deleting or (pod.reachable is False and pod.exit_code is None)


def _old_enough(pod: PodView, seconds: int) -> datetime | None:
    """When a pod that has not started may be lost at the earliest."""
    return None if pod.created is None else pod.created + timedelta(seconds=seconds)
