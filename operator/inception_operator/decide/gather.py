"""Gathering: pods for all slots, until an attempt can be issued; spares and other sizes beside one
that runs.

The functions take the plan so far and return it with their own part, because what is about to be
deleted counts as gone. They change the draft only through its transitions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from inception_operator.contract.names import ConditionType, Phase, Reason
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Assignment, Json, Plan, PodView
from inception_operator.pod.build import build_pod

from . import elastic, headway, liveness, slots, starting
from .elastic import Members
from .plans import delete_pods, is_leaving, requeue_in
from .ranks import assignment_of, stand_by
from .status import Draft
from .view import JobView, Placement, find_availability, place_pods

STARTING_POLL: Final = 2.0
REJECTED_POLL: Final = 5.0
# A launcher that does not answer does not save either.
UNRESPONSIVE_GRACE_SECONDS: Final = 10
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IMAGE_REASONS: Final = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImageVolumeMountFailed",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)


def gather_pods(
    view: JobView,
    draft: Draft,
    placed: Placement,
    plan: Plan,
) -> tuple[Plan, Placement]:
    """Fill empty slots; with all launchers up, issue the attempt, else keep the others warm."""
    staying = [pod for pod in placed.pods if not is_leaving(pod, plan)]
    plan |= delete_pods(pod for pod in staying if slots.finished(pod))
    unresponsive = _unresponsive_survivors(view, draft, staying, plan)
    plan |= replace_pods(view, draft, unresponsive)
    present = [pod for pod in staying if not is_leaving(pod, plan)]

    pause = draft.back_off()
    if pause:
        plan |= stand_by(draft, present)
        return plan | requeue_in(pause), placed

    lingering = lingering_pods(view)
    availability = find_availability(view, placed, plan)
    members, left = elastic.starting_members(
        availability,
        since=draft.waiting_since or view.now,
        rejected=bool(view.violation or view.observation.rejection),
    )
    if members and not lingering:
        plan, placed = _issue(view, draft, plan, members)
        plan |= _fill_spares(view, draft, placed, plan)
        return plan, placed

    # The pod of a one-node job is born with its assignment, so making it is issuing the attempt.
    # And where enough are there that only wait for others to save, what is missing are spares.
    complete = len(members) >= view.job.num_nodes
    if not (lingering and (view.starts_assigned or complete)):
        plan |= _fill_slots(view, draft, placed, plan, placed.membership.pool)
    if left is not None:
        plan |= requeue_in(left)
    plan |= stand_by(draft, present)
    reason, text = waiting_for(
        placed.slots,
        view.job.num_nodes,
        _rejection(view, plan),
        draft,
        lingering,
        view.now,
    )
    if view.violation and plan.create:
        reason, text = Reason.POD_POLICY_VIOLATION, view.violation
    draft.wait(reason, text)
    plan |= _watch_gathering(view, draft, placed, plan, present, lingering)
    return plan, placed


def resize_if_due(
    view: JobView,
    draft: Draft,
    placed: Placement,
    plan: Plan,
) -> tuple[Plan, Placement]:
    """Go on with another attempt when the one that runs should have another size."""
    availability = find_availability(view, placed, plan)
    members, left = elastic.resized_members(
        availability,
        issued=draft.issued or view.now,
        nodes=draft.nodes,
        rejected=bool(view.violation or view.observation.rejection),
    )
    if left is not None:
        plan |= requeue_in(left)
    if not members or lingering_pods(view):
        return plan, placed
    pods = placed.pods_of(placed.membership.members)
    if any(slots.finished(pod) for pod in pods):
        # The end of the others is a matter of seconds, and with it success or a restart.
        return plan, placed
    headway.keep(view, draft, placed)
    draft.resize(len(members))
    return _issue(view, draft, plan, members)


def maintain_spares(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> Plan:
    """Keep up what has no ranks; its failures are none of the attempt's."""
    spares = placed.pods_of(placed.membership.spares)
    spares = [pod for pod in spares if not is_leaving(pod, plan)]
    for pod in spares:
        retry = elastic.retry_at(pod, view.now)
        if retry is not None:
            left = retry - view.now
            plan |= requeue_in(left.total_seconds())
        elif slots.finished(pod):
            plan |= delete_pods([pod])

    unresponsive = _unresponsive_survivors(view, draft, spares, plan)
    useless = [pod for pod in spares if pod in unresponsive or _is_dead(pod, view)]
    plan |= replace_pods(view, draft, useless)
    plan |= _fill_spares(view, draft, placed, plan)
    plan |= stand_by(draft, spares)

    lingering = lingering_pods(view)
    plan |= _watch_gathering(view, draft, placed, plan, spares, lingering)
    availability = find_availability(view, placed, plan)
    obstacle = view.violation if plan.create else None
    reason, text = elastic.outlook(availability, obstacle or _rejection(view, plan))
    members = placed.pods_of(placed.membership.members)
    but, again = liveness.unreached(members, view.now)
    draft.describe_pods(reason, text, but)
    return plan | again


def describe_members(view: JobView, draft: Draft, placed: Placement) -> Plan:
    """Say of the pods of a running attempt that they are ready, and which ones only the kubelet
    reaches.
    """
    members = placed.pods_of(placed.membership.members)
    but, again = liveness.unreached(members, view.now)
    size = len(placed.membership.members)
    draft.describe_pods(Reason.ALL_PODS_READY, f"{size} of {size} pods ready", but)
    return again


def place_again(view: JobView, draft: Draft, plan: Plan) -> tuple[Plan, Placement]:
    """Place the pods after a change of the attempt, and delete those that fill no slot any more."""
    placed = place_pods(view, draft)
    surplus = [pod for pod in placed.surplus if not is_leaving(pod, plan)]
    return plan | delete_pods(surplus), placed


def replace_pods(view: JobView, draft: Draft, pods: Iterable[PodView]) -> Plan:
    """Delete pods whose launcher does not respond; by force where nobody is left to confirm their
    end.
    """
    pods = tuple(pods)
    draft.avoid(pods)
    loss = view.job.node_loss
    delete: dict[str, int | None] = {}
    for pod in pods:
        delete[pod.name] = UNRESPONSIVE_GRACE_SECONDS
        if loss.force and liveness.is_lost(loss, pod, view.now):
            delete[pod.name] = 0
    return Plan(delete=delete)


def waiting_for(
    pods: Sequence[PodView | None],
    desired: int,
    rejection: str | None,
    draft: Draft,
    lingering: Sequence[PodView],
    now: datetime,
) -> tuple[str, str]:
    """Why an attempt is still gathering, as reason and message of PodsReady: the most telling
    reason, the one a person can act on first.
    """
    present = [pod for pod in pods if pod is not None]
    staying = [pod for pod in present if not pod.deleting]
    ready = sum(slots.available(pod) for pod in staying)
    if ready >= desired and lingering:
        first = min(lingering, key=lambda pod: (pod.slot, pod.incarnation))
        return Reason.WAITING_FOR_PODS, f"waiting for pod {first.name} to save and end"
    if rejection:
        return Reason.POD_CREATION_REJECTED, rejection
    blocked = [pod for pod in staying if starting.is_blocked(pod)]
    for reason, about_image in (
        (Reason.IMAGE_PULL_FAILED, True),
        # The kubelet has many more words for it, and new ones with each release.
        (Reason.CONTAINER_CONFIG_ERROR, False),
    ):
        failing = [pod for pod in blocked if (pod.waiting_reason in _IMAGE_REASONS) is about_image]
        if failing:
            written = draft.message(ConditionType.PODS_READY, reason)
            return reason, _steady_text(failing, written)
    for pod in staying:
        trouble = starting.trouble(pod, now)
        if trouble is not None:
            return Reason.POD_START_FAILED, f"pod {pod.name}: {trouble}"
    for pod in staying:
        if pod.unschedulable_message is not None:
            return Reason.UNSCHEDULABLE, f"pod {pod.name}: {pod.unschedulable_message}"
    text = f"{ready} of {desired} pods ready"
    held = next((pod for pod in present if pod.finalizers), None)
    if held is not None:
        holders = ", ".join(held.finalizers)
        text += f"; pod {held.name} was deleted and is held by {holders}"
    silence = starting.silence(staying, now)
    if silence is not None:
        text += f"; {silence}"
    return Reason.WAITING_FOR_PODS, text


def _steady_text(failing: Sequence[PodView], written: str | None) -> str:
    """The kubelet alternates between the error and its back-off; the text stays while the same pod
    fails.
    """
    for pod in failing:
        if written is not None and written.startswith(f"pod {pod.name}: "):
            return written
    pod = failing[0]
    text = pod.waiting_message or pod.waiting_reason
    return f"pod {pod.name}: {text}"


def _issue(view: JobView, draft: Draft, plan: Plan, members: Members) -> tuple[Plan, Placement]:
    draft.issue(len(members), elastic.nodes_of_attempt(view.job, members))
    return place_again(view, draft, plan)


def _unresponsive_survivors(
    view: JobView,
    draft: Draft,
    pods: Iterable[PodView],
    plan: Plan,
) -> list[PodView]:
    """Pods of earlier attempts that are of no use to this one. One that was made for this attempt
    would come back under its own name: it fails the attempt instead.
    """
    cause = draft.root_cause or {}
    # No later than the end of the last attempt, as far as the status tells.
    since = parse_time(cause.get("time")) or LONG_AGO
    loss, now = view.job.node_loss, view.now
    unresponsive = []
    for pod in pods:
        if is_leaving(pod, plan) or pod.incarnation == draft.attempt:
            continue
        if liveness.is_unresponsive(pod, since, loss, now):
            unresponsive.append(pod)
    return unresponsive


def _is_dead(spare: PodView, view: JobView) -> bool:
    # One that has ended waits for its retry.
    if slots.finished(spare):
        return False
    return liveness.is_dead_spare(spare, view.job.node_loss, view.now)


def lingering_pods(view: JobView) -> list[PodView]:
    """Pods whose ranks may still save; those on a lost node are not waited for."""
    loss = view.job.node_loss
    lingering = [pod for pod in view.pods if slots.lingering(pod, view.now)]
    return [pod for pod in lingering if not liveness.is_lost(loss, pod, view.now)]


def _rejection(view: JobView, plan: Plan) -> str | None:
    """Why the API server refused the last pod, where this plan makes pods again."""
    # Those that break the operator's own policy are not sent, so there is nothing to try again.
    return view.observation.rejection if plan.create and not view.violation else None


def _fill_slots(
    view: JobView,
    draft: Draft,
    placed: Placement,
    plan: Plan,
    numbers: Iterable[int],
) -> Plan:
    create = []
    for slot in numbers:
        pod = placed.pod_of(slot)
        if pod is not None and not _has_room_beside(pod, draft, plan):
            continue
        body = _new_pod(view, draft, placed, slot)
        create.append(body)
    return Plan(create=tuple(create))


def _has_room_beside(pod: PodView, draft: Draft, plan: Plan) -> bool:
    """Whether a successor can be made while the pod is still there."""
    # One of this attempt that is being deleted has the name that its successor would have.
    return is_leaving(pod, plan) and pod.incarnation < draft.attempt


def _fill_spares(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> Plan:
    spares = placed.membership.spares
    if not spares:
        return Plan()
    left = elastic.head_start(draft.attempt, draft.issued, view.now)
    if left:
        return requeue_in(left)
    return _fill_slots(view, draft, placed, plan, spares)


def _new_pod(view: JobView, draft: Draft, placed: Placement, slot: int) -> Json:
    first_assignment = None
    if view.starts_assigned:
        first_assignment = assignment_of(view, draft, placed, slot)
    avoid = {*draft.avoided, *view.observation.leaving}
    return build_slot(view, slot, draft.attempt, first_assignment, avoid=avoid)


def build_slot(
    view: JobView,
    slot: int,
    attempt: int,
    first_assignment: Assignment | None = None,
    *,
    avoid: Collection[str] = (),
    exclude: Collection[str] = (),
) -> Json:
    """The pod of a slot with what the operator brings to it; `build_pod` has the words."""
    job, context = view.job, view.context
    image = job.image or job.trainer_overlay.get("image") or context.image
    return build_pod(
        job,
        view.devices,
        slot,
        attempt,
        image=image,
        launcher_image=context.image,
        assignment=first_assignment,
        notify_address=context.notify_address,
        pull_policy=context.pull_policy,
        avoid=avoid,
        exclude=exclude,
        user=context.pod_user,
    )


def _watch_gathering(
    view: JobView,
    draft: Draft,
    placed: Placement,
    plan: Plan,
    present: Sequence[PodView],
    lingering: Iterable[PodView],
) -> Plan:
    """When to look again at pods whose next change no watch event tells of."""
    pauses: list[float] = []
    if _rejection(view, plan):
        pauses.append(REJECTED_POLL)
    if any(pod.phase == Phase.RUNNING and not slots.available(pod) for pod in present):
        pauses.append(STARTING_POLL)
    made_for_it = [pod for pod in placed.pods if pod.incarnation == draft.attempt]
    for pod in (*lingering, *made_for_it):
        deadline = pod.deletion_deadline
        if deadline is not None:
            left = deadline + slots.LINGER_SLACK - view.now
            pauses.append(left.total_seconds())
    return requeue_in(*pauses) | starting.look_again(present, view.now)
