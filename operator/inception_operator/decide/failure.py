"""Failures of an attempt: which there are, which one is the root cause, and what follows from it.

The table is docs/architecture/wire.md's (exit codes of the launcher) and the default of every job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import GRACE_SECONDS, Cause, ReportState
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json, PodView, VanishedPod
from inception_operator.spec.failure_policy import WAIT, Action, NodeLoss

from . import liveness
from . import slots as slot_rules
from .slots import SILENCE, Slots

SETTLE: Final = timedelta(seconds=2)
SETTLE_POLL: Final = 0.2
MAX_TEXT: Final = 1024
MAX_MESSAGE: Final = 3072

PERMANENT_CODES: Final = frozenset((64, 65, 66, 78, 126, 127))
STOPPED_CODE: Final = 75
_CAUSE_OF_CODE: Final = {
    64: Cause.USAGE_ERROR,
    65: Cause.DATA_ERROR,
    66: Cause.INPUT_MISSING,
    70: Cause.HANG,
    75: Cause.STOPPED,
    78: Cause.CONFIG_ERROR,
    126: Cause.CANNOT_RUN,
    127: Cause.CANNOT_RUN,
}
_CAUSE_OF_POD_REASON: Final = {
    "Evicted": Cause.EVICTED,
    "Terminated": Cause.EVICTED,
    "Shutdown": Cause.EVICTED,
    "NodeShutdown": Cause.EVICTED,
    "NodeLost": Cause.NODE_LOST,
    "UnexpectedAdmissionError": Cause.ADMISSION_ERROR,
    "NodeAffinity": Cause.ADMISSION_ERROR,
    "Preempting": Cause.EVICTED,
}
_CAUSE_OF_CONTAINER_REASON: Final = {
    "OOMKilled": Cause.OOM_KILLED,
    "ContainerStatusUnknown": Cause.NODE_LOST,
    "ContainerCannotRun": Cause.CANNOT_RUN,
    "StartError": Cause.CANNOT_RUN,
}
INFRASTRUCTURE: Final = frozenset(
    (
        Cause.POD_DELETED,
        Cause.EVICTED,
        Cause.DISRUPTED,
        Cause.NODE_LOST,
        Cause.ADMISSION_ERROR,
        Cause.NOT_RESPONDING,
        Cause.DEVICE_UNHEALTHY,
    )
)
# After these all ranks are still there and can save together before they end.
_GRACEFUL: Final = frozenset((Cause.POD_DELETED, Cause.DISRUPTED, Cause.STOPPED))
# These befall all ranks of an attempt together. A launcher dates a hang that is its own back to its
# beginning, and one of ranks that only wait for others to the present, so that the former is acted
# on at once.
_SHARED: Final = frozenset((Cause.PEER_LOST, Cause.STOPPED, Cause.HANG))
_GONE: Final = "the pod is gone"


@dataclass(frozen=True)
class Failure:
    """The end of one slot in one attempt; ``conditions`` are type and status of the pod's."""

    attempt: int
    slot: int
    reason: str
    time: datetime
    pod: str | None = None
    node: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    message: str = ""
    conditions: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """One sentence for conditions and events."""
        where = f" in pod {self.pod}" if self.pod else f" in slot {self.slot}"
        rank = f" of rank {self.rank}" if self.rank is not None else ""
        code = f", exit code {self.exit_code}" if self.exit_code is not None else ""
        node = f" on node {self.node}" if self.node else ""
        # What follows the first line are the last lines of stderr or a stack; the status has them.
        tail = f": {self.message.splitlines()[0]}" if self.message else ""
        return f"{self.reason}{rank}{where}{node}{code}{tail}"[:MAX_TEXT]

    def to_json(self) -> Json:
        """``status.rootCause``."""
        data: Json = {
            "attempt": self.attempt,
            "pod": self.pod,
            "node": self.node,
            "rank": self.rank,
            "exitCode": self.exit_code,
            "reason": self.reason,
            "message": self.message[:MAX_MESSAGE] or None,
            "time": format_time(self.time),
        }
        return {key: value for key, value in data.items() if value is not None}


@dataclass(frozen=True)
class AttemptView:
    """What failures are looked for in. ``issued`` is when the attempt's assignments went out; None
    while it gathers.

    ``members`` are the slots that train in it, in rank order; None when all slots do, in their own
    order.
    """

    job: str
    attempt: int
    nproc: int
    issued: datetime | None
    now: datetime
    members: tuple[int, ...] | None = None
    node_loss: NodeLoss = WAIT
    gone: Mapping[int, VanishedPod] = field(default_factory=dict)

    def involves(self, slot: int) -> bool:
        """Whether the slot's failure is one of the attempt: a spare's is not, once the members are
        known.
        """
        return self.members is None or self.issued is None or slot in self.members

    def rank(self, slot: int) -> int | None:
        """The first global rank of a slot; None for one without ranks."""
        if self.members is None:
            return slot * self.nproc
        if self.issued is None or slot not in self.members:
            return None
        return self.members.index(slot) * self.nproc


def collect(slots: Slots, scene: AttemptView) -> tuple[Failure, ...]:
    """At most one failure of each slot."""
    found = (
        _of_slot(index, pod, scene) for index, pod in enumerate(slots) if scene.involves(index)
    )
    return tuple(failure for failure in found if failure is not None)


def root_cause(failures: Sequence[Failure]) -> Failure:
    """The earliest genuine failure: a stop of all ranks and a lost peer have their cause elsewhere,
    if it shows.
    """
    return min(failures, key=lambda failure: (_remoteness(failure), failure.time, failure.slot))


def reached(slots: Slots, attempt: int) -> int:
    """The furthest step that a pod reports of this attempt, 0 when none does."""
    reports = [pod.report for pod in slots if pod is not None and pod.report is not None]
    return max((report.step or 0 for report in reports if report.attempt == attempt), default=0)


def must_wait(failures: Sequence[Failure], slots: Slots, scene: AttemptView) -> bool:
    """Only ranks that ended or waited along with others so far, and a slot that has not spoken may
    still say why.
    """
    if any(failure.reason not in _SHARED for failure in failures):
        return False
    settled = {failure.slot for failure in failures}
    settled |= {
        i
        for i, pod in enumerate(slots)
        if pod is not None and slot_rules.succeeded(pod, scene.attempt)
    }
    if len(settled) == sum(scene.involves(index) for index in range(len(slots))):
        return False
    return abs(scene.now - min(failure.time for failure in failures)) < SETTLE


def action(failure: Failure, previous: Json | None) -> Action:
    """What follows from a root cause, given the one before it."""
    if (
        failure.reason in INFRASTRUCTURE
        or failure.exit_code == STOPPED_CODE
        or failure.reason == Cause.STOPPED
    ):
        return Action.RESTART_IGNORING_LIMIT
    if failure.reason == Cause.PEER_LOST:
        return Action.RESTART
    if failure.exit_code in PERMANENT_CODES:
        return Action.FAIL
    if failure.reason == Cause.OOM_KILLED and _was_out_of_memory(previous, failure.attempt - 1):
        return Action.FAIL
    return Action.RESTART


def was_graceful(cause: Json) -> bool:
    """Whether the other ranks of the attempt that this root cause ended can still save together."""
    return cause.get("reason") in _GRACEFUL and cause.get("message") != _GONE


def _was_out_of_memory(cause: Json | None, attempt: int) -> bool:
    return (
        cause is not None
        and cause.get("reason") == Cause.OOM_KILLED
        and cause.get("attempt") == attempt
    )


def _remoteness(failure: Failure) -> int:
    return {Cause.STOPPED: 1, Cause.PEER_LOST: 2}.get(failure.reason, 0)


def _of_slot(slot: int, pod: PodView | None, scene: AttemptView) -> Failure | None:
    if pod is None:
        return None if scene.issued is None else _gone(slot, scene)
    if slot_rules.succeeded(pod, scene.attempt):
        return None
    involved = scene.issued is not None or slot_rules.given(pod, scene.attempt)
    own = _own(pod, scene, involved)
    if pod.deleting and involved:
        asked = pod.deletion_requested
        # What a pod says after it was told to go is an echo of that.
        return (
            own
            if own is not None and asked is not None and own.time < asked
            else _removed(pod, scene)
        )
    if pod.incarnation == scene.attempt and slot_rules.stuck(pod, scene.now):
        # Its successor needs another name, and names come from attempts.
        return _removed(pod, scene)
    if (
        pod.unhealthy
        and not slot_rules.finished(pod)
        and (involved or pod.incarnation == scene.attempt)
    ):
        # What its ranks say is what a broken device does to them.
        text = f"unhealthy: {pod.unhealthy}" + (
            f"; {own.message}" if own is not None and own.message else ""
        )
        return _failure(
            pod, scene, Cause.DEVICE_UNHEALTHY, own.time if own is not None else None, text
        )
    return own or _unresponsive(pod, scene)


def _own(pod: PodView, scene: AttemptView, involved: bool) -> Failure | None:
    """The failure that the pod itself shows: by its report, or by how its container ended."""
    report = pod.report
    spoke = (
        report is not None
        and report.attempt == scene.attempt
        and report.state in (ReportState.FAILED, ReportState.STOPPED)
    )
    if spoke and not (slot_rules.finished(pod) and _imposed(pod)):
        return _reported(pod, scene)
    if not slot_rules.finished(pod):
        return None
    if not involved and (pod.deleting or pod.incarnation != scene.attempt):
        return None
    return _ended(pod, scene)


def _failure(
    pod: PodView,
    scene: AttemptView,
    reason: str,
    time: datetime | None,
    message: str,
    code: int | None = None,
) -> Failure:
    return Failure(
        attempt=scene.attempt,
        slot=pod.slot,
        reason=reason,
        time=time or scene.now,
        pod=pod.name,
        node=pod.node,
        rank=scene.rank(pod.slot),
        exit_code=code,
        message=message,
        conditions=pod.conditions,
    )


def _reported(pod: PodView, scene: AttemptView) -> Failure:
    report = pod.report
    assert report is not None  # noqa: S101 - the caller has looked
    stopped = report.state == ReportState.STOPPED
    code = STOPPED_CODE if stopped and report.exit_code is None else report.exit_code
    reason = report.reason or (Cause.STOPPED if stopped else _cause_of_code(code))
    rank = report.rank if report.rank is not None else scene.rank(pod.slot)
    return Failure(
        attempt=scene.attempt,
        slot=pod.slot,
        reason=reason,
        time=report.time or pod.finished or scene.now,
        pod=pod.name,
        node=pod.node,
        rank=rank,
        exit_code=code,
        message=report.message or pod.message or "",
        conditions=pod.conditions,
    )


def _ended(pod: PodView, scene: AttemptView) -> Failure:
    code, imposed = pod.exit_code, _imposed(pod)
    if imposed:
        return _failure(
            pod,
            scene,
            imposed,
            pod.finished,
            pod.message or pod.disruption_reason or pod.reason or "",
            code,
        )
    if (
        pod.report is not None
        and 0 < pod.report.attempt < scene.attempt
        and scene.issued is not None
    ):
        # Its own failure has been counted in the attempt it belongs to.
        text = "the pod ended before this attempt reached it"
        return _failure(pod, scene, Cause.NOT_RESPONDING, pod.finished, text, code)
    if code == 0:
        return _failure(
            pod,
            scene,
            Cause.ERROR,
            pod.finished,
            "the container ended without having trained",
            code,
        )
    said = pod.report.message if pod.report is not None else None
    text = said or pod.message or pod.terminated_reason or ""
    return _failure(pod, scene, _cause_of_code(code), pod.finished, text, code)


def _imposed(pod: PodView) -> str | None:
    """A cause that the cluster states and that overrules exit codes."""
    if pod.disruption_reason is not None:
        return (
            Cause.NODE_LOST if pod.disruption_reason == "DeletionByTaintManager" else Cause.EVICTED
        )
    cause = _CAUSE_OF_POD_REASON.get(pod.reason or "")
    if cause is None and pod.exit_code is None and (pod.reason or "").startswith("OutOf"):
        cause = Cause.ADMISSION_ERROR
    return cause or _CAUSE_OF_CONTAINER_REASON.get(pod.terminated_reason or "")


def _gone(slot: int, scene: AttemptView) -> Failure:
    # In a later attempt the slot may be filled by a pod of any attempt before, and an operator that
    # has just begun has not seen which.
    first = VanishedPod(f"{scene.job}-{slot}-1", 1) if scene.attempt == 1 else None
    seen = scene.gone.get(slot, first)
    name, node = (seen.name, seen.node) if seen is not None else (None, None)
    return Failure(
        scene.attempt,
        slot,
        Cause.POD_DELETED,
        scene.now,
        name,
        node,
        rank=scene.rank(slot),
        message=_GONE,
    )


def _removed(pod: PodView, scene: AttemptView) -> Failure:
    if pod.disruption_reason is None:
        held = f" and is held by {', '.join(pod.finalizers)}" if pod.finalizers else ""
        return _failure(
            pod, scene, Cause.POD_DELETED, pod.deletion_requested, f"the pod was deleted{held}"
        )
    reason = (
        Cause.NODE_LOST if pod.disruption_reason == "DeletionByTaintManager" else Cause.DISRUPTED
    )
    return _failure(pod, scene, reason, pod.deletion_requested, pod.disruption_reason)


def _cause_of_code(code: int | None) -> str:
    if code is None:
        return Cause.POD_FAILED
    return _CAUSE_OF_CODE.get(code) or (Cause.SIGNAL if code > 128 else Cause.ERROR)


def deadline(pod: PodView, scene: AttemptView) -> datetime | None:
    """When a pod of the attempt counts as not responding or lost; None while it is well."""
    if pod.deleting or slot_rules.finished(pod):
        return None
    if scene.issued is None:
        # Older pods are replaced within the attempt that gathers; one made for it would come back
        # under its own name.
        return liveness.lost_at(scene.node_loss, pod) if pod.incarnation == scene.attempt else None
    silent = slot_rules.silent_since(pod, scene.issued)
    if silent is not None:
        return liveness.lost_at(scene.node_loss, pod) or silent + SILENCE
    told = slot_rules.given(pod, scene.attempt)
    # One that was not told, or whose assignment somebody has changed, is told in this very pass.
    if pod.reachable is not True or not told or slot_rules.acknowledged(pod, scene.attempt):
        return None
    patience = SILENCE + timedelta(seconds=GRACE_SECONDS) if _may_be_saving(pod, scene) else SILENCE
    return scene.issued + patience


def _may_be_saving(pod: PodView, scene: AttemptView) -> bool:
    """It was asked to let the ranks of an earlier attempt save first, and they still run."""
    order, report = pod.assignment, pod.report
    if order is None or not order.graceful or report is None:
        return False
    return report.attempt < scene.attempt and report.state == ReportState.RUNNING


def _unresponsive(pod: PodView, scene: AttemptView) -> Failure | None:
    limit = deadline(pod, scene)
    if limit is None or scene.now < limit:
        return None
    if liveness.is_lost(scene.node_loss, pod, scene.now):
        return _failure(
            pod, scene, Cause.NODE_LOST, scene.now, liveness.lost_text(scene.node_loss, pod)
        )
    text = f"the launcher has not taken up attempt {scene.attempt} within {SILENCE.seconds} s"
    if not pod.reachable:
        text = f"the launcher has not been ready and has not answered for {SILENCE.seconds} s"
    return _failure(pod, scene, Cause.NOT_RESPONDING, scene.now, text)
