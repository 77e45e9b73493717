"""Is this launcher still there? One answer for every decision that has to know.

Three witnesses are heard: the kubelet's readiness probe, the launcher's own answers to ``/status``,
and the state of the node. A launcher that was up and neither is ready nor answers counts as gone
after `SILENCE`. With ``failurePolicy.nodeLostSeconds`` a pod counts as lost with its node once all
three have spoken against it for so long; a launcher that has not started or is being deleted is
not asked. `questions` says whom to ask before deciding, `reminders` who is told once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import GRACE_SECONDS, Phase, ReportState
from inception_operator.contract.types import Plan, PodView
from inception_operator.spec.failure_policy import WAIT, NodeLoss

from . import slots
from .plans import delete_pods, requeue_in

SILENCE: Final = timedelta(seconds=30)
# How often a launcher that has never answered is asked again while its ranks run.
UNREACHED_POLL: Final = 30.0
UNREACHED_REMEDY: Final = (
    "NetworkPolicies have to let the operator to ports 8080 and 8081 of the job's pods"
)
# Torch is imported on a busy node; afterwards silence is silence.
WARM_UP: Final = timedelta(minutes=5)
POLL: Final = 10.0
BLIND: Final = "spec.failurePolicy.nodeLostSeconds has no effect: this operator may not read nodes"
"""What is said to jobs with these fields where the operator has no right to look at nodes."""


def unresponsive_at(pod: PodView, since: datetime, policy: NodeLoss = WAIT) -> datetime | None:
    """When a launcher that was up counts as gone; None while it is ready or answers.

    ``since`` is the earliest time from which its silence counts.
    """
    if pod.ready or pod.reachable is not False:
        return None
    if pod.phase != Phase.RUNNING or slots.finished(pod):
        return None
    lost = lost_at(policy, pod)
    if lost is not None:
        # Its node is seen to be gone, and the user has said how long that may last.
        return lost
    unready = pod.ready_changed or since
    unreachable = pod.unreachable_since or since
    return max(since, unready, unreachable) + SILENCE


def unreached(pods: Iterable[PodView], now: datetime) -> tuple[str | None, Plan]:
    """What is to be said of pods that are ready and that the operator has not reached for
    `SILENCE`, None if there are none; and when to look again.
    """
    names: list[str] = []
    pauses: list[float] = []
    for pod in pods:
        if not pod.never_reached or not pod.ready or pod.deleting or slots.finished(pod):
            continue
        due = (pod.unreachable_since or pod.ready_changed or now) + SILENCE
        left = (due - now).total_seconds()
        if left <= 0:
            names.append(pod.name)
        pauses.append(left if left > 0 else UNREACHED_POLL)
    if not names:
        return None, requeue_in(*pauses)
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    text = (
        f"the operator cannot reach the launcher of pod {names[0]}{others} on port 8080, learns "
        f"late of failures and has no figures: {UNREACHED_REMEDY}"
    )
    return text, requeue_in(*pauses)


def is_cut_off(pod: PodView) -> bool:
    """Whether nobody has ever reached this launcher: its silence then tells of the network and not
    of a device or node, and would be the same with the next pod.
    """
    # What an operator has learned goes with its process. Of a pod that ran before, an earlier one
    # may have heard, and a restart that counts must not rest on what is not known.
    return pod.never_reached and not pod.ran_before


def lost_at(policy: NodeLoss, pod: PodView) -> datetime | None:
    """When the pod counts as lost with its node; None while a witness speaks for it."""
    seconds, node_lost = policy.seconds, pod.node_lost_since
    if seconds is None or node_lost is None or pod.ready:
        return None
    witnesses = [
        node_lost,
        pod.ready_changed,
        pod.created,
    ]
    if not pod.deleting and pod.phase != Phase.PENDING:
        if pod.reachable is not False:
            return None
        witnesses.append(pod.unreachable_since)
    latest = max(time for time in witnesses if time is not None)
    return latest + timedelta(seconds=seconds)


def is_lost(policy: NodeLoss, pod: PodView, now: datetime) -> bool:
    """Whether the pod counts as lost with its node."""
    return _has_passed(lost_at(policy, pod), now)


def lost_text(policy: NodeLoss, pod: PodView) -> str:
    """What is said of a pod that is lost."""
    silence = "the launcher does not answer"
    if pod.phase == Phase.PENDING:
        silence = "the pod has not started"
    return f"the node has not been ready for {policy.seconds} s and {silence}"


def response_deadline(
    pod: PodView,
    attempt: int,
    issued: datetime | None,
    policy: NodeLoss,
) -> datetime | None:
    """When a pod of the attempt counts as not responding or lost; None while it is well.

    ``issued`` is when the attempt's assignments went out; None while it gathers.
    """
    if pod.deleting or slots.finished(pod):
        return None
    if issued is None:
        # Older pods are replaced within the attempt that gathers; one made for it would come back
        # under its own name.
        made_for_it = pod.incarnation == attempt
        return lost_at(policy, pod) if made_for_it else None
    silent = unresponsive_at(pod, issued, policy)
    if silent is not None:
        return silent
    # One that was not told, or whose assignment somebody has changed, is told in this very pass.
    if pod.reachable is not True or not slots.given(pod, attempt):
        return None
    if slots.acknowledged(pod, attempt):
        return None
    patience = SILENCE
    if _may_be_saving(pod, attempt):
        patience += timedelta(seconds=GRACE_SECONDS)
    elif pod.report is not None and pod.report.state == ReportState.STARTING:
        # It answers, and has to import torch again.
        patience = WARM_UP
    return issued + patience


def is_unresponsive(pod: PodView, since: datetime, policy: NodeLoss, now: datetime) -> bool:
    """Whether a survivor of an earlier attempt is of no use to the next one: its device is broken,
    its node is lost, or its launcher has been silent, counted from ``since`` on.
    """
    if pod.unhealthy or is_lost(policy, pod, now):
        return True
    return _has_passed(unresponsive_at(pod, since, policy), now)


def is_dead_spare(pod: PodView, policy: NodeLoss, now: datetime) -> bool:
    """Whether a spare that was made for the attempt that runs will never take ranks."""
    if pod.unhealthy or is_lost(policy, pod, now):
        return True
    warm = (pod.created or now) + WARM_UP
    # Its replacement stops nobody's work, so it is given up after the usual silence even where the
    # loss of its node would be waited out longer.
    return _has_passed(unresponsive_at(pod, warm), now)


def free_lost_pods(policy: NodeLoss, pods: Iterable[PodView], now: datetime) -> Plan:
    """Delete by force what ends on a lost node: its kubelet, which would confirm the end, is gone,
    and until then the pod keeps its volumes and its name.
    """
    if policy.seconds is None:
        return Plan()
    held: list[PodView] = []
    pauses: list[float] = []
    for pod in pods:
        if _is_held_by_lost_node(policy, pod, now):
            held.append(pod)
        if _is_quiet(policy, pod):
            # Nothing else tells of the nodes of pods that end or start.
            pauses.append(_seconds_left(policy, pod, now))
    return delete_pods(held, grace=0) | requeue_in(*pauses)


def earliest_loss(pod: PodView, seconds: int) -> datetime | None:
    """When a pod that has not started may be lost at the earliest."""
    if pod.created is None:
        return None
    return pod.created + timedelta(seconds=seconds)


def _has_passed(due: datetime | None, now: datetime) -> bool:
    return due is not None and now >= due


def _may_be_saving(pod: PodView, attempt: int) -> bool:
    """It was asked to let the ranks of an earlier attempt save first, and they still run."""
    assignment = pod.assignment
    if assignment is None or not assignment.graceful:
        return False
    report = pod.report
    if report is None or report.attempt >= attempt:
        return False
    return report.state == ReportState.RUNNING


def _is_held_by_lost_node(policy: NodeLoss, pod: PodView, now: datetime) -> bool:
    if not policy.force or not pod.deleting:
        return False
    # With a grace of 0 it has been told already, and something else holds it.
    if pod.deletion_requested == pod.deletion_deadline:
        return False
    return is_lost(policy, pod, now)


def _is_quiet(policy: NodeLoss, pod: PodView) -> bool:
    """Whether nobody would notice that its node is gone."""
    if pod.ready or not pod.node:
        return False
    return policy.force if pod.deleting else pod.phase == Phase.PENDING


def _seconds_left(policy: NodeLoss, pod: PodView, now: datetime) -> float:
    due = lost_at(policy, pod)
    if due is None and not pod.deleting:
        due = earliest_loss(pod, policy.seconds or 0)
    if due is None or due <= now:
        return POLL
    return (due - now).total_seconds()
