"""What failed in an attempt: the failures of its pods, and which of them is the root cause.

Names of causes come from the launcher's report, from exit codes (docs/architecture.md has their
table), and from what the cluster states about a pod. What follows from a root cause is decided in
`restart_policy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import version
from inception_operator.contract.names import Cause, ReportState
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json, PodView, Report, VanishedPod
from inception_operator.spec.failure_policy import WAIT, NodeLoss

from . import imposed, liveness, slots
from .liveness import SILENCE, UNREACHED_REMEDY
from .slots import Slots

# Launchers tell of one accident within a second or two of one another.
SETTLE: Final = timedelta(seconds=2)
SETTLE_POLL: Final = 0.2
MAX_TEXT: Final = 1024
MAX_MESSAGE: Final = 3072

STOPPED_CODE: Final = 75
# Of the launcher and of sysexits.h; 126 and 127 are the shell's.
_CAUSE_OF_CODE: Final = {
    64: Cause.USAGE_ERROR,
    65: Cause.DATA_ERROR,
    66: Cause.INPUT_MISSING,
    70: Cause.HANG,
    75: Cause.STOPPED,
    78: Cause.CONFIG_ERROR,
    79: Cause.NON_FINITE,
    80: Cause.DEVICE_OUT_OF_MEMORY,
    126: Cause.CANNOT_RUN,
    127: Cause.CANNOT_RUN,
}
# After these all ranks are still there and can save together before they end.
_GRACEFUL: Final = frozenset((Cause.POD_DELETED, Cause.DISRUPTED, Cause.STOPPED))
# These befall all ranks of an attempt together. A launcher dates a hang that is its own back to its
# beginning, and one of ranks that only wait for others to the present, so that the former is acted
# on at once.
_SHARED: Final = frozenset((Cause.PEER_LOST, Cause.STOPPED, Cause.HANG))
_GONE: Final = "the pod is gone"
_TOLD_TO_END: Final = "SIGTERM reached the launcher of this pod"
# A number that fits into the status.
_STEP: Final = re.compile(r"\bstep ([0-9]{1,18})\b")


@dataclass(frozen=True)
class Failure:
    """The end of one slot in one attempt; ``conditions`` are type and status of the pod's, ``step``
    is the last one that it is known to have made or, of a loss that is no number, that it names.
    """

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
    told_to_end: bool = False
    """Its launcher got a signal to end, and with it all ranks of the attempt."""
    step: int | None = None
    heard: datetime | None = None
    """When the operator learned of it, by its own clock; None where the pod has told of no end."""

    @property
    def known_since(self) -> datetime:
        """Since when the operator waits for others to tell more."""
        # A hang is dated back on purpose; of everything else the clock of a node says nothing.
        return self.time if self.reason == Cause.HANG or self.heard is None else self.heard

    @property
    def text(self) -> str:
        """One sentence for conditions and events."""
        text = self.reason
        if self.rank is not None:
            text += f" of rank {self.rank}"
        text += f" in pod {self.pod}" if self.pod else f" in slot {self.slot}"
        if self.node:
            text += f" on node {self.node}"
        if self.exit_code is not None:
            text += f", exit code {self.exit_code}"
        if self.message:
            # The other lines are the last ones of stderr or a stack; the status has them.
            text += f": {self.message.splitlines()[0]}"
        return text[:MAX_TEXT]

    def to_json(self, now: datetime) -> Json:
        """The failure as ``status.rootCause`` has it; the clock of its node may be ahead."""
        data: Json = {
            "attempt": self.attempt,
            "pod": self.pod,
            "node": self.node,
            "rank": self.rank,
            "step": self.step,
            "exitCode": self.exit_code,
            "reason": self.reason,
            "message": self.message[:MAX_MESSAGE] or None,
            "time": format_time(min(self.time, now)),
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


def collect(pods: Slots, view: AttemptView) -> tuple[Failure, ...]:
    """At most one failure of each slot."""
    failures = []
    for slot, pod in enumerate(pods):
        if not view.involves(slot):
            continue
        failure = _of_slot(slot, pod, view)
        if failure is not None:
            failures.append(failure)
    # A launcher that was told to end is a failure only once ranks have ended: until then they save,
    # and that its pod is being deleted may be about to show.
    if failures:
        failures += _not_yet_ended(pods, view, {failure.slot for failure in failures})
    return tuple(failures)


def _not_yet_ended(pods: Slots, view: AttemptView, known: set[int]) -> list[Failure]:
    """The failures of launchers that were told to end and whose ranks are about to."""
    failures = []
    for slot, pod in enumerate(pods):
        if pod is None or slot in known or not view.involves(slot):
            continue
        report = pod.report
        if report is not None and report.attempt == view.attempt and slots.told_to_end(pod):
            failures.append(
                replace(
                    _failure(pod, view, Cause.STOPPED, report.time, _TOLD_TO_END, STOPPED_CODE),
                    told_to_end=True,
                )
            )
    return failures


def root_cause(failures: Sequence[Failure]) -> Failure:
    """The earliest genuine failure: a stop of all ranks and a lost peer have their cause elsewhere,
    if it shows.
    """
    return min(failures, key=lambda failure: (_remoteness(failure), failure.time, failure.slot))


def reached(pods: Slots, attempt: int) -> int:
    """The furthest step that a pod reports of this attempt, 0 when none does."""
    reports = [pod.report for pod in pods if pod is not None and pod.report is not None]
    return max((report.step or 0 for report in reports if report.attempt == attempt), default=0)


def must_wait(failures: Sequence[Failure], pods: Slots, view: AttemptView) -> bool:
    """Only ranks that ended or waited along with others so far, and a slot that has not spoken may
    still say why.
    """
    if any(failure.reason not in _SHARED for failure in failures):
        return False
    settled = {failure.slot for failure in failures}
    involved = 0
    for slot, pod in enumerate(pods):
        involved += view.involves(slot)
        if pod is not None and slots.succeeded(pod, view.attempt):
            settled.add(slot)
    if len(settled) == involved:
        return False
    first = min(failure.known_since for failure in failures)
    # Clocks may be set back, and those of nodes be ahead of ours.
    return abs(view.now - first) < SETTLE


def misfit(pod: PodView) -> str:
    """Why this pod's launcher would misread an assignment; empty when it would not."""
    return "" if pod.report is None else version.misfit(pod.report.contract)


def was_graceful(cause: Json) -> bool:
    """Whether the other ranks of the attempt that this root cause ended can still save together."""
    return cause.get("reason") in _GRACEFUL and cause.get("message") != _GONE


def _remoteness(failure: Failure) -> int:
    """How many steps away from its own cause a failure of this kind is."""
    if failure.reason == Cause.PEER_LOST:
        return 3
    if failure.reason == Cause.STOPPED:
        return 1 if failure.told_to_end else 2
    return 0


def _of_slot(slot: int, pod: PodView | None, view: AttemptView) -> Failure | None:
    attempt, issued = view.attempt, view.issued
    if pod is None:
        return None if issued is None else _gone(slot, view)
    if slots.succeeded(pod, attempt):
        return None
    involved = issued is not None or slots.given(pod, attempt)
    shown = _shown(pod, view, involved)
    if pod.deleting and involved:
        asked = pod.deletion_requested
        if shown is not None and asked is not None and shown.time < asked:
            return shown
        # What a pod says after it was told to go is an echo of that.
        return _removed(pod, view)
    made_for_it = pod.incarnation == attempt
    takes_part = involved or made_for_it
    if made_for_it and slots.stuck(pod, view.now):
        # Its successor needs another name, and names come from attempts.
        return _removed(pod, view)
    if takes_part and pod.unhealthy and not slots.finished(pod):
        return _unhealthy(pod, view, shown)
    return shown or _misfit(pod, view) or _unresponsive(pod, view)


def _unhealthy(pod: PodView, view: AttemptView, shown: Failure | None) -> Failure:
    """A device is broken; what the ranks say is what that does to them."""
    text = f"unhealthy: {pod.unhealthy}"
    time = None
    if shown is not None:
        time = shown.time
        if shown.message:
            text += f"; {shown.message}"
    return _failure(pod, view, Cause.DEVICE_UNHEALTHY, time, text)


def _shown(pod: PodView, view: AttemptView, involved: bool) -> Failure | None:
    """The failure that the pod itself shows: by its report, or by how its container ended."""
    report = pod.report
    ended = slots.finished(pod)
    if report is not None and report.attempt == view.attempt:
        spoke = report.state in (ReportState.FAILED, ReportState.STOPPED)
        if spoke and not (ended and imposed.cause(pod)):
            return _reported(pod, report, view)
    if not ended:
        return None
    if not involved and (pod.deleting or pod.incarnation != view.attempt):
        return None
    return _ended(pod, view)


def _failure(
    pod: PodView,
    view: AttemptView,
    reason: str,
    time: datetime | None,
    message: str,
    code: int | None = None,
) -> Failure:
    return Failure(
        attempt=view.attempt,
        slot=pod.slot,
        reason=reason,
        time=time or view.now,
        pod=pod.name,
        node=pod.node,
        rank=view.rank(pod.slot),
        exit_code=code,
        message=message,
        conditions=pod.conditions,
        heard=pod.heard,
    )


def _reported(pod: PodView, report: Report, view: AttemptView) -> Failure:
    """The failure that a launcher has reported, with its own words, rank and time."""
    code = report.exit_code
    reason = _cause_of_code(code)
    if report.state == ReportState.STOPPED:
        reason = Cause.STOPPED
        code = STOPPED_CODE if code is None else code
    told_to_end = report.leaving and report.state == ReportState.STOPPED
    text = report.message or pod.message or (_TOLD_TO_END if told_to_end else "")
    failure = _failure(pod, view, report.reason or reason, report.time or pod.finished, text, code)
    step = report.step or None
    if failure.reason == Cause.NON_FINITE:
        # The figures are older: they are written after steps that went well.
        step = _step_in(failure.message) or step
    rank = failure.rank if report.rank is None else report.rank
    return replace(failure, rank=rank, step=step, told_to_end=told_to_end)


def _step_in(message: str) -> int | None:
    """The step that the first line of a message names."""
    found = _STEP.search(message.partition("\n")[0])
    return None if found is None else int(found[1])


def _ended(pod: PodView, view: AttemptView) -> Failure:
    """The failure that the end of a container without a report of this attempt is."""
    code, report = pod.exit_code, pod.report
    stated = imposed.cause(pod)
    if stated:
        reason = stated
        text = pod.message or pod.disruption_reason or pod.reason or ""
    elif view.issued is not None and report is not None and 0 < report.attempt < view.attempt:
        # Its own failure has been counted in the attempt it belongs to.
        cut_off = liveness.is_cut_off(pod)
        reason = Cause.LAUNCHER_UNREACHABLE if cut_off else Cause.NOT_RESPONDING
        text = "the pod ended before this attempt reached it"
        if cut_off:
            text += f"; the operator has never reached its launcher: {UNREACHED_REMEDY}"
    elif code == 0:
        reason = Cause.ERROR
        text = "the container ended without having trained"
    else:
        reason = _cause_of_code(code)
        said = report.message if report is not None else None
        text = said or pod.message or pod.terminated_reason or ""
    return _failure(pod, view, reason, pod.finished, text, code)


def _gone(slot: int, view: AttemptView) -> Failure:
    # In a later attempt the slot may be filled by a pod of any attempt before, and an operator that
    # has just begun has not seen which.
    first = VanishedPod(f"{view.job}-{slot}-1", 1) if view.attempt == 1 else None
    seen = view.gone.get(slot, first)
    if seen is not None and seen.incarnation > view.attempt:
        # A replacement for the attempt to come; of the pod itself nothing is known.
        seen = first
    return Failure(
        attempt=view.attempt,
        slot=slot,
        reason=Cause.POD_DELETED,
        time=view.now,
        pod=None if seen is None else seen.name,
        node=None if seen is None else seen.node,
        rank=view.rank(slot),
        message=_GONE,
    )


def _removed(pod: PodView, view: AttemptView) -> Failure:
    asked, disruption = pod.deletion_requested, pod.disruption_reason
    if disruption is not None:
        reason = imposed.cause_of_deletion(disruption)
        return _failure(pod, view, reason, asked, disruption)
    text = "the pod was deleted"
    if pod.finalizers:
        text += f" and is held by {', '.join(pod.finalizers)}"
    return _failure(pod, view, Cause.POD_DELETED, asked, text)


def _cause_of_code(code: int | None) -> str:
    if code is None:
        return Cause.POD_FAILED
    if code in _CAUSE_OF_CODE:
        return _CAUSE_OF_CODE[code]
    # Container runtimes report a death by signal n as 128 + n.
    return Cause.SIGNAL if code > 128 else Cause.ERROR


def _misfit(pod: PodView, view: AttemptView) -> Failure | None:
    # Ranks that run are left alone: an operator that was rolled back must not end what its
    # successor has started.
    if slots.finished(pod) or slots.confirmed(pod, view.attempt):
        return None
    text = misfit(pod)
    return _failure(pod, view, Cause.CONTRACT_MISMATCH, None, text) if text else None


def _unresponsive(pod: PodView, view: AttemptView) -> Failure | None:
    now, policy = view.now, view.node_loss
    due = liveness.response_deadline(pod, view.attempt, view.issued, policy)
    if due is None or now < due:
        return None
    if liveness.is_lost(policy, pod, now):
        text = liveness.lost_text(policy, pod)
        return _failure(pod, view, Cause.NODE_LOST, now, text)
    text = f"the launcher has not taken up attempt {view.attempt} within {SILENCE.seconds} s"
    if liveness.is_cut_off(pod):
        # A device or a node does not do that: it would happen to the next pod as well.
        text = (
            f"the launcher has not been ready for {SILENCE.seconds} s and the operator has never "
            f"reached it on port 8080: {UNREACHED_REMEDY}"
        )
        return _failure(pod, view, Cause.LAUNCHER_UNREACHABLE, now, text)
    if not pod.reachable:
        text = f"the launcher has not been ready and has not answered for {SILENCE.seconds} s"
    return _failure(pod, view, Cause.NOT_RESPONDING, now, text)
