"""Whose success is the job's (``spec.successPolicy``), and how long the failures of others wait for
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from inception_operator.contract.names import SuccessPolicy
from inception_operator.contract.types import PodView

from . import slots as slot_rules
from .failure import INFRASTRUCTURE, AttemptView, Failure
from .slots import Slots

# The ranks that lose the chief say so at once; that its container has ended with 0 takes the
# kubelet a second or two.
CHIEF_SETTLE: Final = timedelta(seconds=5)
TEXT: Final = {
    SuccessPolicy.ALL: "all ranks have ended with success",
    SuccessPolicy.CHIEF: "the node of rank 0 has ended with success",
}


def chief(slots: Slots, attempt: int) -> PodView | None:
    """The pod that was given rank 0 in this attempt."""
    given = (pod for pod in slots if pod is not None and slot_rules.given(pod, attempt))
    return next(
        (pod for pod in given if pod.assignment is not None and pod.assignment.node_rank == 0), None
    )


def achieved(slots: Slots, attempt: int, policy: str) -> bool:
    """Whether those whose success counts have ended with it."""
    if policy == SuccessPolicy.CHIEF:
        first = chief(slots, attempt)
        return first is not None and slot_rules.succeeded(first, attempt)
    return all(pod is not None and slot_rules.succeeded(pod, attempt) for pod in slots)


def must_wait(failures: Sequence[Failure], slots: Slots, scene: AttemptView, policy: str) -> bool:
    """Whether what others say may be nothing but the echo of the chief's success, which has yet to
    show.
    """
    first = chief(slots, scene.attempt)
    if policy != SuccessPolicy.CHIEF or first is None:
        return False
    if any(failure.slot == first.slot or failure.reason in INFRASTRUCTURE for failure in failures):
        return False
    return abs(scene.now - min(failure.time for failure in failures)) < CHIEF_SETTLE
