"""Which rank do the others wait for? Judged from the times that the ranks of a job tell.

In synchronous training a step takes as long on every rank as on the slowest one, so steps show
nothing. What differs is a rank's *own time*: from the beginning of a step until its gradients are
ready, before it waits for those of the others. A rank is slow in a look when its own time since the
look before is well above the median of all ranks, and the difference is a part of the step that is
worth having. It is named after `LOOKS` such looks in a row, and no more after as many in which it
keeps up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import median_low
from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType, Reason
from inception_operator.contract.times import format_time, parse_time
from inception_operator.contract.types import (
    NORMAL,
    WARNING,
    Event,
    Json,
    RankTimes,
    RankVerdict,
    Straggler,
)

KEY: Final = "straggler"
LOOKS: Final = 3
"""In a row: one stall of a disk or of a neighbour is no straggler."""
BEGIN_RATIO: Final = 1.5
END_RATIO: Final = 1.2
"""Own time of a rank, in medians of all ranks."""
BEGIN_SHARE: Final = 0.1
END_SHARE: Final = 0.05
"""Of a step: what the others lose by waiting. Twice a millisecond is no reason to replace a node.
"""
# A rank that needs no time at all would make all others infinitely slow.
_SHORTEST_SECONDS: Final = 1e-6

UNKNOWN: Final[RankVerdict | None] = None
UNWATCHED: Final = RankVerdict(watched=False)


@dataclass(frozen=True)
class Told:
    """What one rank says, and where it runs."""

    times: RankTimes
    pod: str
    node: str


@dataclass(frozen=True)
class Pace:
    """Means of one rank over the steps between two looks, in seconds."""

    own: float
    step: float


@dataclass(frozen=True)
class Slowness:
    """How one rank compares with the others: its own time in medians, and how much longer than the
    median it is, as a share of the step.
    """

    ratio: float
    share: float

    @property
    def slow(self) -> bool:
        """Whether the others wait for it."""
        return self.ratio >= BEGIN_RATIO and self.share >= BEGIN_SHARE

    @property
    def keeps_up(self) -> bool:
        """Whether they do no longer."""
        return self.ratio < END_RATIO or self.share < END_SHARE


@dataclass(frozen=True)
class Watch:
    """What the looks at the ranks of one attempt have shown so far.

    ``since`` is when what is told next begins: ``base`` are the sums of that moment. ``slow`` has
    for each rank that is slow how many looks in a row it has been, and when the first of them
    began; ``kept_up`` counts the looks in a row in which the straggler was not.
    """

    attempt: int
    base: Mapping[int, RankTimes] = field(default_factory=dict)
    since: datetime | None = None
    slow: Mapping[int, tuple[int, datetime]] = field(default_factory=dict)
    kept_up: int = 0
    looks: int = 0
    straggler: Straggler | None = None

    @property
    def verdict(self) -> RankVerdict | None:
        """What is known; None before there were looks enough."""
        if self.straggler is None and self.looks < LOOKS:
            return UNKNOWN
        return RankVerdict(self.straggler)


def begin(attempt: int, status: Json) -> Watch:
    """A watch over an attempt; what another operator has named in its status stays named until
    the ranks say otherwise.
    """
    return Watch(attempt, straggler=_from_json(status.get(KEY)))


def look(watch: Watch, told: Iterable[Told], now: datetime) -> Watch:
    """The watch after another look; the same where too little has happened since the last one."""
    ranks = {each.times.rank: each for each in told}
    sums = {rank: each.times for rank, each in ranks.items()}
    if watch.since is None or _begun_anew(watch.base, sums):
        return replace(watch, base=sums, since=now) if sums else watch
    paces = _paces(watch.base, sums)
    if paces is None:
        return watch
    found = compare(paces)
    slow = {}
    for rank, slowness in found.items():
        looks, first = watch.slow.get(rank, (0, watch.since))
        if slowness.slow:
            slow[rank] = (looks + 1, first)
    after = replace(watch, base=sums, since=now, slow=slow, looks=watch.looks + 1)
    return _name(_update(after, found), ranks, found)


def compare(paces: Mapping[int, Pace]) -> dict[int, Slowness]:
    """Every rank against the median of all; of an even number the lower one, so that of two ranks
    the faster is what the other is held against.
    """
    own = max(_SHORTEST_SECONDS, median_low(pace.own for pace in paces.values()))
    step = max(own, median_low(pace.step for pace in paces.values()))
    return {rank: Slowness(pace.own / own, (pace.own - own) / step) for rank, pace in paces.items()}


def present(status: Json, verdict: RankVerdict | None) -> Straggler | None:
    """The straggler of an attempt that runs: who is named, and since when by the status; what the
    status says alone, while nothing is known of the ranks.
    """
    before = _from_json(status.get(KEY))
    if verdict is None:
        return before
    named = verdict.straggler
    if before is not None and named is not None and _is_same(before, named):
        return replace(named, since=before.since)
    return named


def carried_on(old: Json, new: Json, verdict: RankVerdict | None) -> tuple[Json, list[Event]]:
    """The status ``new``, about to be written over ``old``, with the straggler, and the events when
    one begins or ends.
    """
    before = _from_json(old.get(KEY))
    rest = {key: value for key, value in new.items() if key != KEY}
    if not conditions.is_true(new["conditions"], ConditionType.RUNNING):
        # The end of the attempt has an event of its own.
        return rest, []
    if verdict is None:
        return new, []
    named = present(old, verdict)
    if before is not None and named is not None and _is_same(before, named):
        return new | {KEY: _to_json(named)}, []
    events = []
    if before is not None and verdict.watched:
        text = f"{_who(before)} keeps up with the other ranks again"
        events.append(Event(NORMAL, Reason.STRAGGLER_GONE, text))
    if named is None:
        return rest, events
    shown = _to_json(named)
    text = (
        f"{_who(named)} takes {shown['ratio']} times as long as the median of the ranks until "
        "its gradients are ready; all of them wait for it in every step"
    )
    return new | {KEY: shown}, [*events, Event(WARNING, Reason.STRAGGLER_FOUND, text)]


def _begun_anew(base: Mapping[int, RankTimes], sums: Mapping[int, RankTimes]) -> bool:
    """Whether these cannot be later sums of the same processes, or no two of them are."""
    common = base.keys() & sums.keys()
    if len(common) < 2:
        return True
    return any(sums[rank].steps < base[rank].steps for rank in common)


def _paces(base: Mapping[int, RankTimes], sums: Mapping[int, RankTimes]) -> dict[int, Pace] | None:
    """Means since the last look; None while a rank has made no step since."""
    paces = {}
    for rank in base.keys() & sums.keys():
        before, after = base[rank], sums[rank]
        steps = after.steps - before.steps
        if steps <= 0:
            return None
        own = max(0.0, after.own_seconds - before.own_seconds) / steps
        paces[rank] = Pace(own, max(0.0, after.step_seconds - before.step_seconds) / steps)
    return paces


def _update(watch: Watch, found: Mapping[int, Slowness]) -> Watch:
    """What the look says of the straggler that is named already."""
    named = watch.straggler
    if named is None or named.rank not in found:
        return watch
    slowness = found[named.rank]
    kept_up = watch.kept_up + 1 if slowness.keeps_up else 0
    if kept_up >= LOOKS:
        return replace(watch, straggler=None, kept_up=0)
    # While it may be over, the last ratio that was bad is the one to show.
    if not kept_up:
        named = replace(named, ratio=slowness.ratio, until=watch.since)
    return replace(watch, kept_up=kept_up, straggler=named)


def _name(watch: Watch, ranks: Mapping[int, Told], found: Mapping[int, Slowness]) -> Watch:
    """Name the slowest of those that have been slow for long enough, where none is named."""
    slow = [rank for rank, (looks, _) in watch.slow.items() if looks >= LOOKS]
    if watch.straggler is not None or not slow:
        return watch
    rank = max(slow, key=lambda each: (found[each].ratio, -each))
    told = ranks[rank]
    since = watch.slow[rank][1]
    named = Straggler(rank, told.pod, told.node, found[rank].ratio, since, watch.since)
    return replace(watch, straggler=named, kept_up=0)


def _to_json(straggler: Straggler) -> Json:
    return {
        "rank": straggler.rank,
        "pod": straggler.pod,
        "node": straggler.node,
        "ratio": f"{min(straggler.ratio, 9999):.1f}",
        "startTime": format_time(straggler.since),
    }


def _from_json(status: object) -> Straggler | None:
    """What a status names; None where somebody else has written something there."""
    if not isinstance(status, dict):
        return None
    since = parse_time(status.get("startTime"))
    rank = status.get("rank")
    if since is None or not isinstance(rank, int):
        return None
    try:
        ratio = float(status.get("ratio", ""))
    except ValueError:
        return None
    return Straggler(rank, str(status.get("pod")), str(status.get("node")), ratio, since)


def _is_same(one: Straggler, other: Straggler) -> bool:
    return (one.rank, one.pod) == (other.rank, other.pod)


def _who(straggler: Straggler) -> str:
    return f"rank {straggler.rank} (pod {straggler.pod} on node {straggler.node})"
