"""Moves: members leave nodes that are about to go before these take them along.

A spare that is ready elsewhere takes the place of such a member. Without one a *replacement* is
made first: a second pod for the slot, made for the attempt to come (its name says so), on another
node. While both are there the attempt runs on. Once there is a substitute the attempt ends: the pod
on the node that goes is deleted, all ranks save together, and when it has ended the next attempt
begins without it. That is no restart. An attempt that fails meanwhile goes first.

A job for which there is no room elsewhere stays where it is until its pods are evicted, and so does
one that would not find its state there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import ConditionType, Reason
from inception_operator.contract.types import Plan, PodView
from inception_operator.spec.job import Job

from . import elastic, failure, headway, liveness, slots
from .departure import PAUSE
from .elastic import Members
from .gather import build_slot, lingering_pods, replace_pods
from .plans import delete_pods, is_leaving, requeue_in
from .status import Draft
from .view import JobView, Placement

# Images of 20 GB are pulled and nodes are made by autoscalers within it.
PATIENCE: Final = timedelta(minutes=10)
# One that came to a node which goes as well, or broke, is tried again soon.
RETRY: Final = timedelta(seconds=30)
# Those of several members that leave at once come one after another; one attempt does for all.
TOGETHER: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class Departure:
    """The members whose nodes are about to go, and who may take over from them, by slot.

    ``ready`` are those of the ``replacements`` that can take ranks, ``spares`` the slots that can.
    """

    leaving: Mapping[int, PodView]
    replacements: Mapping[int, PodView]
    ready: frozenset[int]
    spares: Members

    @property
    def covered(self) -> frozenset[int]:
        """The slots of members for which there is a substitute."""
        others = [slot for slot in self.leaving if slot not in self.ready]
        return self.ready | frozenset(others[: len(self.spares)])


def leave_if_due(
    view: JobView,
    draft: Draft,
    placed: Placement,
    plan: Plan,
) -> Plan:
    """Make replacements for members on nodes that are about to go, and end the attempt once they
    can take over.
    """
    departure = find_departure(view, draft, placed, plan)
    if view.observation.nodes_known:
        plan |= _withdraw(view, draft, placed, plan)
    if not departure.leaving:
        if view.observation.nodes_known:
            draft.stop_departing()
        return plan
    why = _reason_to_stay(view.job)
    if why is not None:
        _stay(view, draft, departure, why)
        return plan
    plan |= _give_up(view, draft, departure, plan)
    plan |= _make_replacements(view, draft, departure)
    left = _seconds_to_wait(view, departure, plan)
    if departure.covered and left <= 0 and _may_end(view, draft, placed):
        headway.keep(view, draft, placed)
        return plan | _end_attempt(view, draft, departure)
    _describe(view, draft, departure, plan)
    if left > 0:
        plan |= requeue_in(left)
    return plan | _look_again(view, draft, departure)


def _reason_to_stay(job: Job) -> str | None:
    """Why a job is better off where it is, whatever happens to its node."""
    if job.checkpoint is None:
        # The node may stay for long, and the job begin anew elsewhere with nothing.
        return "spec.checkpoint is not set, so nothing would go on elsewhere"
    if job.pod_overlay.get("nodeName"):
        return "spec.template.spec.nodeName demands the node"
    return None


def find_departure(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> Departure:
    """Who has to leave, and who may take over."""
    leaving = {}
    for slot in placed.membership.members:
        pod = placed.pod_of(slot)
        if pod is not None and pod.leaving and not is_leaving(pod, plan):
            leaving[slot] = pod
    replacements = slots.replacements(view.pods, draft.attempt)
    ready = [slot for slot in leaving if _can_take_over(replacements.get(slot), plan)]
    spares = [
        slot for slot in placed.membership.spares if _can_take_over(placed.pod_of(slot), plan)
    ]
    return Departure(leaving, replacements, frozenset(ready), tuple(spares))


def _can_take_over(pod: PodView | None, plan: Plan) -> bool:
    if pod is None or not slots.available(pod) or is_leaving(pod, plan):
        return False
    return not (pod.unhealthy or pod.leaving or failure.misfit(pod))


def _withdraw(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> Plan:
    """Delete replacements of members that stay after all, or whose place a spare has taken."""
    needless = []
    for slot, pod in slots.replacements(view.pods, draft.attempt).items():
        member = placed.pod_of(slot) if slot in placed.membership.members else None
        if member is None or not (member.leaving or is_leaving(member, plan)):
            needless.append(pod)
    return delete_pods(pod for pod in needless if not pod.deleting)


def _give_up(view: JobView, draft: Draft, departure: Departure, plan: Plan) -> Plan:
    """Delete replacements that will not take ranks; others are made after a pause."""
    useless, late = [], []
    for slot in departure.leaving:
        pod = departure.replacements.get(slot)
        if pod is None or is_leaving(pod, plan) or slot in departure.ready:
            continue
        if slots.finished(pod):
            if elastic.retry_at(pod, view.now) is None:
                useless.append(pod)
        elif _is_of_no_use(pod, view):
            useless.append(pod)
        elif view.now >= _deadline(pod, view.now):
            late.append(pod)
    if useless:
        draft.postpone_move(RETRY)
    if late:
        draft.postpone_move(PAUSE)
    return replace_pods(view, draft, [*useless, *late])


def _is_of_no_use(replacement: PodView, view: JobView) -> bool:
    """Whether one that runs, or is to run, is better made anew.

    One without a node may keep away from nodes that stay after all. Nobody can change that of a
    pod, and there may be no room but there.
    """
    if replacement.leaving or liveness.is_dead_spare(replacement, view.job.node_loss, view.now):
        return True
    if replacement.node is not None or not view.observation.nodes_known:
        return False
    return not replacement.excluded_nodes <= {*view.observation.leaving}


def _deadline(replacement: PodView, now: datetime) -> datetime:
    return (replacement.created or now) + PATIENCE


def _make_replacements(view: JobView, draft: Draft, departure: Departure) -> Plan:
    if view.violation or draft.next_move is not None:
        return Plan()
    create = []
    for slot in departure.leaving:
        if slot in departure.covered or slot in departure.replacements:
            continue
        # A condition keeps nobody away from a node, and a pod may tolerate any taint.
        nodes = view.observation.leaving
        body = build_slot(view, slot, draft.attempt + 1, avoid=draft.avoided, exclude=nodes)
        create.append(body)
    return Plan(create=tuple(create))


def _seconds_to_wait(view: JobView, departure: Departure, plan: Plan) -> float:
    """For how many seconds it is worth waiting for more substitutes, so that one attempt does."""
    seconds = 0.0
    for slot in departure.leaving:
        if slot in departure.covered:
            continue
        pod = departure.replacements.get(slot)
        if pod is None:
            # Made in this very pass, unless the API server refuses.
            awaited = plan.create and not view.observation.rejection
            left = elastic.PLACEMENT.total_seconds() if awaited else 0.0
        elif is_leaving(pod, plan):
            left = 0.0
        else:
            left = elastic.seconds_to_arrival(pod, view.now, TOGETHER)
        seconds = max(seconds, left)
    return seconds


def _may_end(view: JobView, draft: Draft, placed: Placement) -> bool:
    """Whether the attempt is in a state to save: it has begun, and nobody is ending already."""
    if not draft.is_true(ConditionType.RUNNING) or lingering_pods(view):
        return False
    pods = placed.pods_of(placed.membership.members)
    # The end of the others is a matter of seconds, and with it success or a restart.
    return not any(slots.finished(pod) for pod in pods)


def _end_attempt(view: JobView, draft: Draft, departure: Departure) -> Plan:
    covered = [pod for slot, pod in departure.leaving.items() if slot in departure.covered]
    draft.move(f"leaving {_places(covered)}")
    slow = view.straggler
    if slow is not None and slow.pod in [pod.name for pod in covered]:
        draft.replace_straggler(slow)
    # With their own grace period: their ranks save along with the others, who are told in the next
    # pass. That one also waits for these to end: the first of them may be writing the checkpoint.
    return delete_pods(covered)


def _describe(view: JobView, draft: Draft, departure: Departure, plan: Plan) -> None:
    """Say in PodsReady who has to leave, and what it waits for."""
    waiting = {
        slot: pod for slot, pod in departure.leaving.items() if slot not in departure.covered
    }
    pods = [departure.replacements.get(slot) for slot in waiting]
    obstacle = _obstacle(view, draft, [pod for pod in pods if pod is not None], plan)
    if obstacle is not None:
        _stay(view, draft, departure, obstacle)
        return
    text = f"to leave {_places(departure.leaving.values())} once there is a replacement"
    unplaced = [pod for pod in pods if pod is not None and pod.unschedulable_message]
    if unplaced:
        text += f"; pod {unplaced[0].name}: {unplaced[0].unschedulable_message}"
    slow = _only_slow(view, departure)
    draft.depart(Reason.REPLACING_STRAGGLER if slow else Reason.LEAVING_NODE, text)


def _obstacle(
    view: JobView,
    draft: Draft,
    replacements: Collection[PodView],
    plan: Plan,
) -> str | None:
    """Why nothing takes over, None while something may."""
    if view.violation:
        return view.violation
    if replacements and any(not is_leaving(pod, plan) for pod in replacements):
        return None
    if view.observation.rejection:
        return view.observation.rejection
    due = draft.next_move
    if due is None or due - view.now <= RETRY:
        return None
    return f"none was ready in time, the next one is made at {due:%H:%M} UTC"


def _look_again(view: JobView, draft: Draft, departure: Departure) -> Plan:
    """When to look again at what no watch event tells of."""
    dates = [draft.next_move]
    for slot in departure.leaving:
        pod = departure.replacements.get(slot)
        if pod is not None and not pod.deleting:
            retry = elastic.retry_at(pod, view.now)
            dates.append(retry if slots.finished(pod) else _deadline(pod, view.now))
    pauses = [(date - view.now).total_seconds() for date in dates if date is not None]
    return requeue_in(*(pause for pause in pauses if pause > 0))


def _stay(view: JobView, draft: Draft, departure: Departure, why: str) -> None:
    """Say in PodsReady why nobody leaves."""
    slow = _only_slow(view, departure)
    reason = Reason.CANNOT_REPLACE_STRAGGLER if slow else Reason.CANNOT_LEAVE_NODE
    rest = "goes on with it" if slow else "stays there until it is evicted"
    places = _places(departure.leaving.values())
    draft.depart(reason, f"no replacement for {places}: {why}; the job {rest}")


def _only_slow(view: JobView, departure: Departure) -> bool:
    """Whether nobody leaves but a straggler."""
    slow = view.straggler
    return slow is not None and [pod.name for pod in departure.leaving.values()] == [slow.pod]


def _places(pods: Collection[PodView]) -> str:
    """Nodes that go, and why, of up to three pods."""
    listed = [f"node {pod.node} ({pod.leaving}) with pod {pod.name}" for pod in pods]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
