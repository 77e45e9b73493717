"""How many nodes an attempt has, and which slots they are: starting smaller, growing back,
shrinking, hot spares.

The slots of an attempt are its *members*, in the order of their node ranks. They are written to the
status together with PodsReady=True, before any of them is told its rank, so every pass hands out
the same ranks. Slots that are kept filled but are no members are spares. A job without an
elasticPolicy has its slots as members, always.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import Phase, Reason
from inception_operator.contract.types import Json, PodView
from inception_operator.spec.job import MAX_NODES, Job

from . import slots

# The losses of one accident are seen together, and a pod without a node for so long has nowhere to
# go.
PLACEMENT: Final = timedelta(seconds=3)
# A replacement that has its node mostly trains sooner than a smaller attempt would have grown back.
ARRIVAL: Final = timedelta(seconds=10)
# While nothing has been trained there is no hurry, and pulling the image takes its time.
START: Final = timedelta(seconds=30)
# Capacity that comes and goes must not make the job save and begin anew all the time.
GROW_EVERY: Final = timedelta(seconds=30)
# A spare that ends by itself would mostly do so again.
RETRY: Final = timedelta(seconds=30)
# A pod that starts takes the cores that the ranks of a new attempt come back with.
HEAD_START: Final = timedelta(seconds=5)
_ON_ITS_WAY: Final = frozenset((None, "ContainerCreating", "PodInitializing"))

Members = tuple[int, ...]


@dataclass(frozen=True)
class Membership:
    """The members in rank order, those of the attempt before while one gathers, and the slots to
    keep filled.
    """

    members: Members
    pool: Members

    @property
    def spares(self) -> Members:
        """Slots without a rank."""
        return tuple(slot for slot in self.pool if slot not in self.members)


@dataclass(frozen=True)
class Availability:
    """Which slots of the pool can take ranks: ``ready`` ones can, in ascending order.

    ``desired`` is the number of nodes that the user asks for, ``least`` the number that will do.
    """

    membership: Membership
    pods: Mapping[int, PodView | None]
    ready: Members
    desired: int
    least: int
    now: datetime


def to_text(members: Members) -> str:
    """Members as ``status.nodes.members``: slots in rank order, runs as ``first-last``."""
    runs: list[list[int]] = []
    for slot in members:
        if runs and slot == runs[-1][1] + 1:
            runs[-1][1] = slot
        else:
            runs.append([slot, slot])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def from_text(text: object) -> Members:
    """Members that a status names; none when it names none."""
    members: list[int] = []
    for run in str(text or "").split(","):
        first, _, last = run.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return ()
        # A status is anybody's to edit: "0-999999999" must not fill the memory.
        end = min(int(last or first), int(first) + MAX_NODES)
        members += range(int(first), end + 1)
    return tuple(members) if len(set(members)) == len(members) else ()


def find_membership(
    job: Job, written: Members, pods: Iterable[PodView], attempt: int, *, issued: bool
) -> Membership:
    """Who trains, and which slots are to be filled; follows from the status and the pods alone.

    A pod that was made for this attempt and is being deleted keeps the name that its successor
    would have: another slot is filled instead.
    """
    everybody = tuple(range(job.num_nodes))
    if job.elastic is None:
        return Membership(everybody, everybody)
    living: dict[int, PodView] = {}
    taken: set[int] = set()
    for slot, pod in slots.newest(pods).items():
        if not pod.deleting and not slots.finished(pod):
            living[slot] = pod
        elif pod.deleting and pod.incarnation == attempt:
            taken.add(slot)

    kept = [slot for slot in written if issued or slot in living]
    # Pods that run are kept rather than those that wait.
    others = sorted(
        living.keys() - set(kept),
        key=lambda slot: (living[slot].phase != Phase.RUNNING, slot),
    )
    size = job.num_nodes + job.elastic.spare_nodes
    in_use = living.keys() | set(kept) | taken
    free = [slot for slot in range(size + len(in_use)) if slot not in in_use]
    # Members of a running attempt stay in the pool even where numNodes has been lowered.
    pool_size = max(size, len(kept)) if issued else size
    return Membership(written, tuple((kept + others + free)[:pool_size]))


def choose_members(before: Members, ready: Collection[int], size: int) -> Members:
    """The next members: who stays keeps its node rank if there is still such a rank, others fill
    the gaps. None at all where fewer than ``size`` slots are ready.
    """
    ranked: list[int | None] = [slot if slot in ready else None for slot in before[:size]]
    ranked += [None] * (size - len(ranked))
    # Members whose rank is no more go before spares: their caches are warm.
    substitutes = [slot for slot in before[size:] if slot in ready]
    substitutes += [slot for slot in ready if slot not in before]
    members = []
    for slot in ranked:
        if slot is not None:
            members.append(slot)
        elif substitutes:
            members.append(substitutes.pop(0))
    return tuple(members) if len(members) == size else ()


def starting_members(
    availability: Availability, since: datetime, *, rejected: bool
) -> tuple[Members, float | None]:
    """The members to begin an attempt with, or none and the seconds until fewer than desired will
    do.

    ``since`` is when the job began to wait for its pods; ``rejected`` says that the API server
    refuses to create more of them.
    """
    before, ready = availability.membership.members, availability.ready
    if len(ready) >= availability.desired:
        return choose_members(before, ready, availability.desired), None
    if len(ready) < availability.least:
        return (), None
    survived = any(slot in ready for slot in before)
    patience = PLACEMENT if survived else START
    left = (since + patience - availability.now).total_seconds()
    arrival = ARRIVAL if survived else START
    left = max(left, _seconds_to_arrivals(availability, arrival, rejected=rejected))
    if left > 0:
        return (), left
    return choose_members(before, ready, len(ready)), None


def resized_members(
    availability: Availability, issued: datetime, nodes: Json, *, rejected: bool
) -> tuple[Members, float | None]:
    """The members that a running attempt is to be replaced with, or none and the seconds until it
    may be.

    ``issued`` is when the attempt began, ``nodes`` is ``status.nodes``.
    """
    members, ready = availability.membership.members, availability.ready
    desired, size = availability.desired, len(members)
    if desired < size:
        # Fewer are wanted: at once, but not before there are enough for the new size.
        enough = len(ready) >= desired
        return (choose_members(members, ready, desired) if enough else ()), None
    reach = min(desired, len(ready))
    if reach <= size or not set(members) <= set(ready):
        return (), None
    left = 0.0
    # A change of numNodes is obeyed at once.
    if desired == nodes.get("desiredAtStart"):
        left = (issued + GROW_EVERY - availability.now).total_seconds()
    if reach < desired:
        left = max(left, _seconds_to_arrivals(availability, START, rejected=rejected))
    if left > 0:
        return (), left
    return choose_members(members, ready, reach), None


def outlook(availability: Availability, rejection: str | None) -> tuple[str, str]:
    """Reason and message of PodsReady for an attempt that has been issued."""
    size, desired = len(availability.membership.members), availability.desired
    reach = min(desired, len(availability.ready))
    if size >= desired:
        return Reason.ALL_PODS_READY, f"{size} of {size} pods ready"
    if reach > size:
        text = f"{size} of {desired} nodes, growing to {reach} shortly"
        return Reason.ENOUGH_PODS_READY, text
    missing = desired - size
    pods = "pod is" if missing == 1 else "pods are"
    text = f"{size} of {desired} nodes, growing when {missing} more {pods} ready"
    obstacle = rejection or _first_unschedulable(availability.pods.values())
    return Reason.ENOUGH_PODS_READY, f"{text}: {obstacle}" if obstacle else text


def nodes_of_attempt(job: Job, members: Members) -> Json:
    """What ``status.nodes`` says of an attempt before its first assignment goes out."""
    if job.elastic is None:
        return {}
    return {"members": to_text(members), "desiredAtStart": job.num_nodes}


def count_nodes(
    job: Job, nodes: Json, membership: Membership, ready: Collection[int], *, issued: bool
) -> Json:
    """``status.nodes``: how many nodes are desired and ready; of an elastic job also who trains and
    who is spare.
    """
    if job.elastic is None:
        return {"desired": job.num_nodes, "ready": len(ready)}
    if issued:
        members_ready = sum(slot in ready for slot in membership.members)
    else:
        members_ready = min(job.num_nodes, len(ready))
    counts: Json = {
        "desired": job.num_nodes,
        "ready": members_ready,
        "spareReady": len(ready) - members_ready,
    }
    kept = {key: nodes[key] for key in ("members", "desiredAtStart") if key in nodes}
    return counts | kept


def retry_at(pod: PodView, now: datetime) -> datetime | None:
    """When a spare that has ended may be replaced; None when it has not ended or may be replaced at
    once.
    """
    ended = pod.finished or pod.ready_changed or pod.created
    if not slots.finished(pod) or ended is None or now >= ended + RETRY:
        return None
    return ended + RETRY


def head_start(attempt: int, issued: datetime | None, now: datetime) -> float:
    """For how many seconds new spares wait for the ranks to come back; nothing comes back in the
    first attempt.
    """
    if attempt == 1 or issued is None:
        return 0.0
    return max(0.0, (issued + HEAD_START - now).total_seconds())


def _first_unschedulable(pods: Iterable[PodView | None]) -> str | None:
    messages = (pod.unschedulable_message for pod in pods if pod is not None)
    return next(filter(None, messages), None)


def _seconds_to_arrivals(
    availability: Availability, patience: timedelta, *, rejected: bool
) -> float:
    """For how many seconds it is worth waiting for pods that are not ready yet."""
    seconds = 0.0
    for slot, pod in availability.pods.items():
        if slot in availability.ready:
            continue
        if pod is None:
            # It is made in this very pass, unless the API server refuses.
            left = 0.0 if rejected else PLACEMENT.total_seconds()
        else:
            left = _seconds_to_arrival(pod, availability.now, patience)
        seconds = max(seconds, left)
    return seconds


def _seconds_to_arrival(pod: PodView, now: datetime, patience: timedelta) -> float:
    if pod.deleting or slots.finished(pod) or pod.created is None:
        return 0.0
    if pod.waiting_reason not in _ON_ITS_WAY:
        return 0.0
    limit = PLACEMENT if pod.node is None else patience
    return (pod.created + limit - now).total_seconds()
