"""The small plans that a decision is put together from with ``|``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from inception_operator.contract.types import Plan, PodView

# Time for other events to arrive; a deadline that is due now must not become a busy loop.
SHORTEST_PAUSE: Final = 0.1


def delete_pods(pods: Iterable[PodView], grace: int | None = None) -> Plan:
    """Delete these pods, by default with the grace period that they have themselves."""
    return Plan(delete={pod.name: grace for pod in pods})


def requeue_in(*pauses: float) -> Plan:
    """Decide again after the shortest of these seconds; without any, when something happens."""
    if not pauses:
        return Plan()
    seconds = max(min(pauses), SHORTEST_PAUSE)
    return Plan(requeue_after=seconds)


def is_leaving(pod: PodView, plan: Plan) -> bool:
    """Whether the pod is being deleted, or is by the plan so far."""
    return pod.deleting or pod.name in plan.delete
