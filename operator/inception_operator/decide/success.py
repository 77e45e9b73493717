"""Whose success is the job's (``spec.successPolicy``), and how long the failures of others wait for
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from inception_operator.contract.names import Cause, SuccessPolicy
from inception_operator.contract.types import PodView

from . import slots
from .failure import AttemptView, Failure
from .restart_policy import INFRASTRUCTURE
from .slots import Slots

# The ranks that lose the chief say so at once; that its container has ended with 0 takes the
# kubelet a second or two.
CHIEF_SETTLE: Final = timedelta(seconds=5)
# The operator finds the latter two anew in every pass, so there would be no end of waiting.
_NO_ECHOES: Final = INFRASTRUCTURE | {Cause.LAUNCHER_UNREACHABLE, Cause.CONTRACT_MISMATCH}
TEXT: Final = {
    SuccessPolicy.ALL: "all ranks have ended with success",
    SuccessPolicy.CHIEF: "the node of rank 0 has ended with success",
}


def chief(pods: Slots, attempt: int) -> PodView | None:
    """The pod that was given rank 0 in this attempt."""
    for pod in pods:
        if pod is None or pod.assignment is None or not slots.given(pod, attempt):
            continue
        if pod.assignment.node_rank == 0:
            return pod
    return None


def achieved(members: Slots, attempt: int, policy: str) -> bool:
    """Whether those of the members whose success counts have ended with it."""
    if policy == SuccessPolicy.CHIEF:
        first = chief(members, attempt)
        return first is not None and slots.succeeded(first, attempt)
    if not members:
        # An elastic job before its first attempt is issued.
        return False
    return all(pod is not None and slots.succeeded(pod, attempt) for pod in members)


def must_wait(failures: Sequence[Failure], pods: Slots, view: AttemptView, policy: str) -> bool:
    """Whether what others say may be nothing but the echo of the chief's success, which has yet to
    show.
    """
    first = chief(pods, view.attempt)
    if policy != SuccessPolicy.CHIEF or first is None:
        return False
    for failure in failures:
        # The chief itself has failed, or what is stated no rank can have caused.
        if failure.slot == first.slot or failure.reason in _NO_ECHOES:
            return False
    earliest = min(failure.known_since for failure in failures)
    # Clocks may be set back, and those of nodes be ahead of ours.
    return abs(view.now - earliest) < CHIEF_SETTLE
