"""``failurePolicy.nodeLostSeconds``: when a pod counts as lost with its node, and is not waited for any longer.

Three witnesses must agree for so long: the pod is not ready, its launcher does not answer, and its node is not ready.
Of a pod that is being deleted the launcher is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from . import fields
from .fields import SpecError
from .model import Json, PodView

KEEP: Final = "KeepPods"
FORCE_DELETE: Final = "ForceDeletePods"
POLICIES: Final = (KEEP, FORCE_DELETE)
MAX_SECONDS: Final = 86_400
POLL: Final = 10.0
_PATH: Final = "spec.failurePolicy"


@dataclass(frozen=True)
class NodeLoss:
    """How long a node may be gone, None for as long as Kubernetes likes, and whether to delete its pods by force."""

    seconds: int | None = None
    force: bool = False

    def due(self, pod: PodView) -> datetime | None:
        """When the pod counts as lost; None while a witness speaks for it."""
        if self.seconds is None or pod.ready or pod.node_lost_since is None:
            return None
        if pod.reachable is not False and not pod.deleting:
            return None
        witnesses = [pod.node_lost_since, pod.ready_changed]
        if not pod.deleting:
            witnesses.append(pod.unreachable_since)
        return max(time for time in witnesses if time is not None) + timedelta(seconds=self.seconds)

    def lost(self, pod: PodView, now: datetime) -> bool:
        """Whether the pod counts as lost."""
        due = self.due(pod)
        return due is not None and now >= due

    def text(self, pod: PodView) -> str:
        """What is said of a pod that is lost."""
        return f"the node has not been ready for {self.seconds} s and the launcher does not answer"

    def stuck(self, pods: Iterable[PodView], now: datetime) -> list[PodView]:
        """Pods to delete by force: their kubelet, which would confirm their end, is gone."""
        # With a grace of 0 they have been told already, and something else holds them.
        terminating = (pod for pod in pods if pod.deleting and pod.deletion_requested != pod.deletion_deadline)
        return [pod for pod in terminating if self.force and self.lost(pod, now)]

    def look_again(self, pods: Iterable[PodView], now: datetime) -> float | None:
        """Seconds until the next look at pods that are being deleted: nothing else tells of their nodes."""
        if not self.force:
            return None
        dues = [self.due(pod) for pod in pods if pod.deleting and not pod.ready and pod.node]
        left = (POLL if due is None or due <= now else (due - now).total_seconds() for due in dues)
        return min(left, default=None)


WAIT: Final = NodeLoss()
"""The default: Kubernetes alone decides when a node is lost."""


def parse_node_loss(policy: Json) -> NodeLoss:
    """The fields of a failure policy."""
    seconds = fields.integer(policy, _PATH, "nodeLostSeconds", 1, MAX_SECONDS)
    wanted = policy.get("nodeLostPolicy") or KEEP
    if wanted not in POLICIES:
        raise SpecError(f"{_PATH}.nodeLostPolicy", f"{wanted} is unknown; choose one of {', '.join(POLICIES)}")
    if wanted == FORCE_DELETE and seconds is None:
        raise SpecError(f"{_PATH}.nodeLostPolicy", f"{FORCE_DELETE} needs nodeLostSeconds; set it")
    return NodeLoss(seconds, wanted == FORCE_DELETE)


def wants_node(job: Json, pod: PodView) -> bool:
    """Whether to ask for the state of this pod's node before deciding."""
    policy = (job.get("spec") or {}).get("failurePolicy") or {}
    if not policy.get("nodeLostSeconds") or pod.ready or not pod.node:
        return False
    return pod.deleting or (pod.reachable is False and pod.exit_code is None)
