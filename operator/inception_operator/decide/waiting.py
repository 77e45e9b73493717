"""Why an attempt is still gathering: the reason and message of PodsReady=False."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from inception_operator.contract.names import ConditionType, Reason
from inception_operator.contract.types import PodView

from .slots import Slots, available

_IMAGE: Final = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
    )
)
_CONFIG: Final = frozenset(
    (
        "CreateContainerConfigError",
        "CreateContainerError",
        "CreatePodSandboxError",
        "RunContainerError",
    )
)


class Written(Protocol):
    """Where the message that is already written can be looked up."""

    def message(self, kind: str, reason: str) -> str | None:
        """The message of a condition while it has this reason."""


def waiting_for(
    slots: Slots, wanted: int, rejection: str | None, written: Written, lingering: Sequence[PodView]
) -> tuple[str, str]:
    """The most telling reason, the one a person can act on first."""
    pods = [pod for pod in slots if pod is not None and not pod.deleting]
    ready = sum(available(pod) for pod in pods)
    if ready >= wanted and lingering:
        first = min(lingering, key=lambda pod: (pod.slot, pod.incarnation))
        return Reason.WAITING_FOR_PODS, f"waiting for pod {first.name} to save and end"
    if rejection:
        return Reason.POD_CREATION_REJECTED, rejection
    for reason, causes in (
        (Reason.IMAGE_PULL_FAILED, _IMAGE),
        (Reason.CONTAINER_CONFIG_ERROR, _CONFIG),
    ):
        stuck = [pod for pod in pods if pod.waiting_reason in causes]
        if stuck:
            return reason, _steady(stuck, written.message(ConditionType.PODS_READY, reason))
    for pod in pods:
        if pod.unschedulable_message is not None:
            return Reason.UNSCHEDULABLE, f"pod {pod.name}: {pod.unschedulable_message}"
    held = next((pod for pod in slots if pod is not None and pod.finalizers), None)
    detail = (
        ""
        if held is None
        else f"; pod {held.name} was deleted and is held by {', '.join(held.finalizers)}"
    )
    return Reason.WAITING_FOR_PODS, f"{ready} of {wanted} pods ready{detail}"


def _steady(stuck: list[PodView], written: str | None) -> str:
    """The kubelet alternates between the error and its back-off; the text stays while the same pod
    is stuck.
    """
    for pod in stuck:
        if written is not None and written.startswith(f"pod {pod.name}: "):
            return written
    pod = stuck[0]
    return f"pod {pod.name}: {pod.waiting_message or pod.waiting_reason}"
