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
# Torch is imported on a busy node; afterwards silence is silence.
WARM_UP: Final = timedelta(minutes=5)
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
    """Who is there: the pods of the pool, and which of its slots can take ranks."""

    roster: Membership
    pods: Mapping[int, PodView | None]
    ready: Members
    wanted: int
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
        members += range(int(first), min(int(last or first), int(first) + MAX_NODES) + 1)
    return tuple(members) if len(set(members)) == len(members) else ()


def roster(
    job: Job, written: Members, pods: Iterable[PodView], attempt: int, *, issued: bool
) -> Membership:
    """Who trains, and which slots are to be filled; follows from the status and the pods alone.

    A pod that was made for this attempt and is being deleted keeps the name that its successor
    would have: another slot is filled instead.
    """
    everybody = tuple(range(job.num_nodes))
    if job.elastic is None:
        return Membership(everybody, everybody)
    newest = slots.newest(pods)
    living = {
        slot: pod for slot, pod in newest.items() if not pod.deleting and not slots.finished(pod)
    }
    taken = {slot for slot, pod in newest.items() if pod.deleting and pod.incarnation == attempt}
    kept = [slot for slot in written if issued or slot in living]
    others = sorted(
        living.keys() - set(kept), key=lambda slot: (living[slot].phase != Phase.RUNNING, slot)
    )
    size = job.num_nodes + job.elastic.spare_nodes
    known = living.keys() | set(kept) | taken
    free = [slot for slot in range(size + len(known)) if slot not in known]
    return Membership(
        written, tuple((kept + others + free)[: max(size, len(kept) if issued else 0)])
    )


def crew(before: Members, ready: Collection[int], size: int) -> Members:
    """The next members: who stays keeps its node rank if there is still such a rank, others fill
    the gaps.
    """
    ranked: list[int | None] = [slot if slot in ready else None for slot in before[:size]]
    ranked += [None] * (size - len(ranked))
    late = [slot for slot in before[size:] if slot in ready]
    late += [slot for slot in ready if slot not in before]
    members = [
        slot if slot is not None else late.pop(0) for slot in ranked if slot is not None or late
    ]
    return tuple(members) if len(members) == size else ()


def start(muster: Availability, since: datetime, *, rejected: bool) -> tuple[Members, float | None]:
    """The members to begin an attempt with, or none and the seconds until fewer than wanted will
    do.
    """
    before, ready, wanted = muster.roster.members, muster.ready, muster.wanted
    if len(ready) >= wanted:
        return crew(before, ready, wanted), None
    if len(ready) < muster.least:
        return (), None
    survived = any(slot in ready for slot in before)
    left = (since + (PLACEMENT if survived else START) - muster.now).total_seconds()
    left = max(left, _arrivals(muster, ARRIVAL if survived else START, rejected=rejected))
    return ((), left) if left > 0 else (crew(before, ready, len(ready)), None)


def resize(
    muster: Availability, issued: datetime, known: Json, *, rejected: bool
) -> tuple[Members, float | None]:
    """The members that a running attempt is to be replaced with, or none and the seconds until it
    may be.
    """
    members, ready, wanted = muster.roster.members, muster.ready, muster.wanted
    size = len(members)
    if wanted < size:
        return (crew(members, ready, wanted) if len(ready) >= wanted else ()), None
    reach = min(wanted, len(ready))
    if reach <= size or not set(members) <= set(ready):
        return (), None
    left = 0.0
    # A change of numNodes is obeyed at once.
    if wanted == known.get("desiredAtStart"):
        left = (issued + GROW_EVERY - muster.now).total_seconds()
    if reach < wanted:
        left = max(left, _arrivals(muster, START, rejected=rejected))
    return ((), left) if left > 0 else (crew(members, ready, reach), None)


def outlook(muster: Availability, rejection: str | None) -> tuple[str, str]:
    """Reason and message of PodsReady for an attempt that has been issued."""
    size, wanted = len(muster.roster.members), muster.wanted
    reach = min(wanted, len(muster.ready))
    if size >= wanted:
        return Reason.ALL_PODS_READY, f"{size} of {size} pods ready"
    if reach > size:
        return Reason.ENOUGH_PODS_READY, f"{size} of {wanted} nodes, growing to {reach} shortly"
    more = wanted - size
    text = f"{size} of {wanted} nodes, growing when {more} more {'pod is' if more == 1 else 'pods are'} ready"
    stuck = rejection or next(filter(None, map(_unschedulable, muster.pods.values())), None)
    return Reason.ENOUGH_PODS_READY, f"{text}: {stuck}" if stuck else text


def figures(job: Job, members: Members) -> Json:
    """What is written of an attempt's nodes before its first assignment goes out."""
    if job.elastic is None:
        return {}
    return {"members": to_text(members), "desiredAtStart": job.num_nodes}


def count(
    job: Job, known: Json, roster: Membership, ready: Collection[int], *, issued: bool
) -> Json:
    """``status.nodes``: how many nodes are wanted and ready; of an elastic job also who trains and
    who is spare.
    """
    if job.elastic is None:
        return {"desired": job.num_nodes, "ready": len(ready)}
    at_work = (
        sum(slot in ready for slot in roster.members) if issued else min(job.num_nodes, len(ready))
    )
    kept = {key: known[key] for key in ("members", "desiredAtStart") if key in known}
    return {"desired": job.num_nodes, "ready": at_work, "spareReady": len(ready) - at_work} | kept


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


def useless(pod: PodView, now: datetime) -> bool:
    """Whether a spare that was made for the attempt that runs will never take ranks; its name can
    wait.
    """
    silent = slots.silent_since(pod, (pod.created or now) + WARM_UP)
    return bool(pod.unhealthy) or (silent is not None and now >= silent + slots.SILENCE)


def _unschedulable(pod: PodView | None) -> str | None:
    return None if pod is None else pod.unschedulable_message


def _arrivals(muster: Availability, patience: timedelta, *, rejected: bool) -> float:
    """For how many seconds it is worth waiting for pods that are not ready yet."""
    missing = [pod for slot, pod in muster.pods.items() if slot not in muster.ready]
    return max(
        (_worth_waiting(pod, muster.now, patience, rejected=rejected) for pod in missing),
        default=0.0,
    )


def _worth_waiting(
    pod: PodView | None, now: datetime, patience: timedelta, *, rejected: bool
) -> float:
    if pod is None:
        return 0.0 if rejected else PLACEMENT.total_seconds()
    if (
        pod.deleting
        or slots.finished(pod)
        or pod.created is None
        or pod.waiting_reason not in _ON_ITS_WAY
    ):
        return 0.0
    return (pod.created + (PLACEMENT if pod.node is None else patience) - now).total_seconds()
