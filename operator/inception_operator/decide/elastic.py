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

from . import slots, starting

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
    """Which slots of the pool can take ranks: the ``ready`` ones can, in ascending order.

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
    texts = []
    for first, last in runs:
        texts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(texts)


def _is_slot(text: str) -> bool:
    # Nine digits are the greatest slot that a pod's name can have; isdigit alone takes "²" too.
    return text.isdecimal() and text.isascii() and len(text) <= 9


def from_text(text: object) -> Members:
    """Members that a status names; none when it names none."""
    members: list[int] = []
    for run in str(text or "").split(","):
        first, _, last = run.partition("-")
        last = last or first
        if not _is_slot(first) or not _is_slot(last):
            return ()
        begin, end = int(first), int(last)
        # A status is anybody's to edit: "0-999999999" must not fill the memory.
        if end - begin + len(members) >= MAX_NODES:
            return ()
        members += range(begin, end + 1)
    if len(set(members)) < len(members):
        return ()
    return tuple(members)


def find_membership(
    job: Job,
    written: Members,
    pods: Iterable[PodView],
    attempt: int,
    *,
    issued: bool,
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
    for slot, pod in slots.holders(pods, attempt).items():
        if pod.deleting:
            if pod.incarnation == attempt:
                taken.add(slot)
        elif not slots.finished(pod):
            living[slot] = pod

    kept = [slot for slot in written if issued or slot in living]
    others = living.keys() - set(kept)
    in_use = {*kept, *others, *taken}
    size = job.num_nodes + job.elastic.spare_nodes
    # Enough numbers to fill the pool even if all that are in use are among them.
    numbers = range(size + len(in_use))
    pool = [
        *kept,
        # Pods that run are kept rather than those that wait.
        *sorted(slot for slot in others if living[slot].phase == Phase.RUNNING),
        *sorted(slot for slot in others if living[slot].phase != Phase.RUNNING),
        *(slot for slot in numbers if slot not in in_use),
    ]
    if issued:
        # Members of a running attempt stay in the pool even where numNodes has been lowered.
        size = max(size, len(kept))
    return Membership(written, tuple(pool[:size]))


def choose_members(before: Members, ready: Collection[int], size: int) -> Members:
    """The next members: who stays keeps its node rank if there is still such a rank, others fill
    the gaps. None at all where fewer than ``size`` slots are ready.
    """
    # Members whose rank is no more go before spares: they have shown that they can train.
    substitutes = [slot for slot in before[size:] if slot in ready]
    substitutes += [slot for slot in ready if slot not in before]
    members = []
    for rank in range(size):
        if rank < len(before) and before[rank] in ready:
            members.append(before[rank])
        elif substitutes:
            members.append(substitutes.pop(0))
    if len(members) < size:
        return ()
    return tuple(members)


def starting_members(
    availability: Availability,
    since: datetime,
    *,
    rejected: bool,
) -> tuple[Members, float | None]:
    """The members to begin an attempt with, or none and the seconds until fewer than desired will
    do.

    ``since`` is when the job began to wait for its pods; ``rejected`` says that the API server
    refuses to create more of them.
    """
    before = availability.membership.members
    ready = availability.ready
    desired = availability.desired
    if len(ready) >= desired:
        return choose_members(before, ready, desired), None
    if len(ready) < availability.least:
        return (), None
    placement, arrival = START, START
    if any(slot in ready for slot in before):
        # Ranks were running a moment ago, and every second of waiting is a second of theirs.
        placement, arrival = PLACEMENT, ARRIVAL
    waited = availability.now - since
    left = max(
        (placement - waited).total_seconds(),
        _seconds_to_arrivals(availability, arrival, rejected=rejected),
    )
    if left > 0:
        return (), left
    return choose_members(before, ready, len(ready)), None


def resized_members(
    availability: Availability,
    issued: datetime,
    nodes: Json,
    *,
    rejected: bool,
) -> tuple[Members, float | None]:
    """The members that a running attempt is to be replaced with, or none and the seconds until it
    may be.

    ``issued`` is when the attempt began, ``nodes`` is ``status.nodes``.
    """
    members = availability.membership.members
    ready = availability.ready
    desired = availability.desired
    size = len(members)
    if desired < size:
        # Fewer are wanted: at once, but not before there are enough for the new size.
        if len(ready) < desired:
            return (), None
        return choose_members(members, ready, desired), None
    reach = min(desired, len(ready))
    if reach <= size:
        return (), None
    if not set(members) <= set(ready):
        # A member that is not well recovers or fails first; a restart chooses members anew.
        return (), None
    left = 0.0
    # A change of numNodes is obeyed at once.
    if desired == nodes.get("desiredAtStart"):
        ran = availability.now - issued
        left = (GROW_EVERY - ran).total_seconds()
    if reach < desired:
        arrivals = _seconds_to_arrivals(availability, START, rejected=rejected)
        left = max(left, arrivals)
    if left > 0:
        return (), left
    return choose_members(members, ready, reach), None


def outlook(availability: Availability, rejection: str | None) -> tuple[str, str]:
    """Reason and message of PodsReady for an attempt that has been issued."""
    size = len(availability.membership.members)
    desired = availability.desired
    if size >= desired:
        return Reason.ALL_PODS_READY, f"{size} of {size} pods ready"
    text = f"{size} of {desired} nodes, growing"
    reach = min(desired, len(availability.ready))
    if reach > size:
        return Reason.ENOUGH_PODS_READY, f"{text} to {reach} shortly"
    missing = desired - size
    pods = "pod is" if missing == 1 else "pods are"
    text += f" when {missing} more {pods} ready"
    obstacle = rejection or _first_obstacle(availability)
    if obstacle:
        text += f": {obstacle}"
    return Reason.ENOUGH_PODS_READY, text


def nodes_of_attempt(job: Job, members: Members) -> Json:
    """What ``status.nodes`` says of an attempt before its first assignment goes out."""
    if job.elastic is None:
        return {}
    return {
        "members": to_text(members),
        "desiredAtStart": job.num_nodes,
    }


def count_nodes(
    job: Job,
    nodes: Json,
    membership: Membership,
    ready: Collection[int],
    *,
    issued: bool,
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
    # Written when the attempt was issued, and true until the next one is.
    for key in ("members", "desiredAtStart"):
        if key in nodes:
            counts[key] = nodes[key]
    return counts


def retry_at(pod: PodView, now: datetime) -> datetime | None:
    """When a spare that has ended may be replaced; None when it has not ended or may be replaced at
    once.
    """
    if not slots.finished(pod):
        return None
    ended = pod.finished or pod.ready_changed or pod.created
    if ended is None:
        return None
    due = ended + RETRY
    return due if due > now else None


def head_start(attempt: int, issued: datetime | None, now: datetime) -> float:
    """For how many seconds new spares wait for the ranks to come back; nothing comes back in the
    first attempt.
    """
    if attempt == 1 or issued is None:
        return 0.0
    left = issued + HEAD_START - now
    return max(0.0, left.total_seconds())


def _first_obstacle(availability: Availability) -> str | None:
    """The words of whoever keeps a pod from starting."""
    for pod in availability.pods.values():
        if pod is None:
            continue
        words = pod.unschedulable_message or starting.trouble(pod, availability.now)
        if words:
            return words
    return None


def _seconds_to_arrivals(
    availability: Availability,
    patience: timedelta,
    *,
    rejected: bool,
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
            left = seconds_to_arrival(pod, availability.now, patience)
        seconds = max(seconds, left)
    return seconds


def seconds_to_arrival(pod: PodView, now: datetime, patience: timedelta) -> float:
    """For how many seconds it is worth waiting for a pod that is not ready yet; a pod without a
    node has nowhere to go.
    """
    if pod.deleting or slots.finished(pod):
        return 0.0
    if pod.created is None or starting.is_blocked(pod):
        return 0.0
    age = now - pod.created
    limit = PLACEMENT if pod.node is None else patience
    return (limit - age).total_seconds()
