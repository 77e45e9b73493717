"""Which rank the others wait for: what the ranks tell, what is made of it, what the status says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_sim import Sim, job
from inception_operator.contract import report
from inception_operator.contract.types import Json, RankTimes, RankVerdict, Straggler
from inception_operator.decide import stragglers
from inception_operator.decide.questions import wants_ranks
from inception_operator.decide.reconcile import reconcile
from inception_operator.decide.stragglers import LOOKS, Pace, Told, Watch, compare
from inception_operator.pod import view as podview

START = datetime(2026, 1, 1, tzinfo=UTC)
EXCHANGE = 0.05
"""Seconds that it takes to exchange gradients once all ranks are ready."""


@dataclass
class Ranks:
    """Ranks that train together: a step takes as long as the slowest of them."""

    size: int = 4
    now: datetime = START
    watch: Watch = field(default_factory=lambda: stragglers.begin(1, {}))
    sums: dict[int, RankTimes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sums = {rank: RankTimes(rank, 0, 0.0, 0.0, 0.0) for rank in range(self.size)}

    def told(self, without: Sequence[int] = ()) -> list[Told]:
        return [
            Told(times, f"job-{rank}-1", f"node-{rank}")
            for rank, times in self.sums.items()
            if rank not in without
        ]

    def train(self, own: Mapping[int, float], steps: int = 10, exchange: float = EXCHANGE) -> None:
        """``own`` is what a rank takes for itself in a step where that is not 0.1 s."""
        times = {rank: own.get(rank, 0.1) for rank in self.sums}
        step = max(times.values()) + exchange
        for rank, before in self.sums.items():
            self.sums[rank] = RankTimes(
                rank,
                before.steps + steps,
                before.step_seconds + steps * step,
                before.own_seconds + steps * times[rank],
                before.wait_seconds + steps * (step - times[rank]),
            )
        self.now += timedelta(seconds=5)

    def look(self, own: Mapping[int, float] | None = None, **options: Any) -> Straggler | None:
        """Train for five seconds and look."""
        self.train(own or {}, **options)
        self.watch = stragglers.look(self.watch, self.told(), self.now)
        return self.watch.straggler


def test_a_rank_is_named_when_it_was_slow_in_several_looks_in_a_row() -> None:
    ranks = Ranks()
    ranks.look()
    began = ranks.now
    found = [ranks.look({2: 0.4}) for _ in range(LOOKS)]
    assert found[:-1] == [None] * (LOOKS - 1)
    named = found[-1]
    assert named is not None
    assert (named.rank, named.pod, named.node, named.since) == (2, "job-2-1", "node-2", began)
    assert named.ratio == pytest.approx(4.0)


def test_the_whole_step_shows_nothing_of_it() -> None:
    ranks = Ranks()
    ranks.train({2: 0.4})
    assert len({round(times.step_seconds, 9) for times in ranks.sums.values()}) == 1


@pytest.mark.parametrize(
    ("own", "exchange"),
    [
        pytest.param([{2: 0.4}, {2: 0.4}, {}, {2: 0.4}, {2: 0.4}, {}], EXCHANGE, id="now and then"),
        pytest.param([{1: 0.4}, {2: 0.4}, {3: 0.4}] * 3, EXCHANGE, id="another one each time"),
        pytest.param([{2: 0.14}] * 9, EXCHANGE, id="a little"),
        pytest.param([{2: 0.4}] * 9, 9.0, id="a small part of the step"),
        pytest.param([{2: 0.01}] * 9, EXCHANGE, id="faster than the others"),
        pytest.param([{0: 0.4, 1: 0.4, 2: 0.4, 3: 0.4}] * 9, EXCHANGE, id="all of them"),
        pytest.param([{0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}] * 9, EXCHANGE, id="no time at all"),
    ],
)
def test_who_is_no_straggler(own: list[dict[int, float]], exchange: float) -> None:
    ranks = Ranks()
    ranks.look()
    assert [ranks.look(each, exchange=exchange) for each in own] == [None] * len(own)
    assert ranks.watch.verdict == RankVerdict(None)


def test_of_two_ranks_the_slower_is_named() -> None:
    ranks = Ranks(2)
    for _ in range(LOOKS + 1):
        ranks.look({0: 0.4})
    named = ranks.watch.straggler
    assert named is not None
    assert (named.rank, round(named.ratio, 6)) == (0, 4.0)


def test_the_slowest_of_several_is_named() -> None:
    ranks = Ranks(8)
    for _ in range(LOOKS + 1):
        ranks.look({3: 0.3, 5: 0.6, 6: 0.3})
    named = ranks.watch.straggler
    assert named is not None
    assert named.rank == 5


def test_it_stays_named_until_it_has_kept_up_for_several_looks() -> None:
    ranks = Ranks()
    for _ in range(LOOKS + 1):
        ranks.look({2: 0.4})
    slow_at = ranks.now
    for own in ({}, {}, {2: 0.14}, {}, {}):
        named = ranks.look(own)
        slow_at = ranks.now if own else slow_at
        assert named is not None
        assert (named.rank, named.until) == (2, slow_at)
    assert named is not None
    assert named.ratio == pytest.approx(1.4), "of the last look in which it did not keep up"
    assert ranks.look() is None
    assert ranks.watch.verdict == RankVerdict(None)


def test_the_next_slowest_takes_its_place() -> None:
    ranks = Ranks()
    for _ in range(LOOKS + 1):
        ranks.look({2: 0.4})
    for _ in range(LOOKS):
        ranks.look({3: 0.4})
    named = ranks.watch.straggler
    assert named is not None
    assert named.rank == 3


def test_nothing_is_known_before_there_were_looks_enough() -> None:
    ranks = Ranks()
    for _ in range(LOOKS):
        ranks.look()
        assert ranks.watch.verdict is None
    ranks.look()
    assert ranks.watch.verdict == RankVerdict(None)


def test_looks_between_which_a_rank_made_no_step_do_not_count() -> None:
    """Steps that are longer than the time between two looks; a hang; an evaluation."""
    ranks = Ranks()
    ranks.look()
    for _ in range(LOOKS):
        for _ in range(5):
            assert ranks.look({2: 4.0}, steps=0) is None
        ranks.look({2: 4.0}, steps=1)
    named = ranks.watch.straggler
    assert named is not None
    assert named.ratio == pytest.approx(40.0)


def test_a_pod_that_does_not_answer_keeps_nobody_from_judging_the_others() -> None:
    ranks = Ranks()
    ranks.look()
    for _ in range(LOOKS):
        ranks.train({2: 0.4})
        ranks.watch = stragglers.look(ranks.watch, ranks.told(without=[0]), ranks.now)
    assert ranks.watch.straggler is not None
    before = ranks.watch
    for _ in range(LOOKS * 2):
        ranks.train({2: 0.4})
        told = ranks.told(without=[0, 1, 2, 3])
        ranks.watch = stragglers.look(ranks.watch, told, ranks.now)
    assert ranks.watch == before, "nothing was heard, so nothing is known better"


def test_another_operator_goes_on_with_what_the_status_names() -> None:
    ranks = Ranks()
    status = {"rank": 2, "pod": "job-2-1", "node": "n", "ratio": "4.0", "startTime": "2026-01-01"}
    ranks.watch = stragglers.begin(1, {"straggler": status})
    verdict = ranks.watch.verdict
    assert verdict is not None
    assert verdict.straggler is not None
    assert verdict.straggler.rank == 2
    for _ in range(LOOKS):
        assert ranks.look() is not None
    assert ranks.look() is None


@pytest.mark.parametrize(
    "status",
    [
        {},
        "rank 2",
        {"rank": 2},
        {"rank": "2", "startTime": "2026-01-01"},
        {"startTime": "soon"},
        {"rank": 2, "startTime": "2026-01-01", "ratio": "much"},
    ],
)
def test_a_status_that_somebody_else_has_written_names_nobody(status: Any) -> None:
    assert stragglers.begin(1, {"straggler": status}).straggler is None


PACES = st.dictionaries(
    st.integers(0, 20),
    st.builds(Pace, st.floats(0, 1e6), st.floats(0, 1e6)),
    min_size=2,
    max_size=6,
)


@settings(max_examples=40)
@given(PACES)
def test_half_of_the_ranks_or_more_are_never_slow(paces: dict[int, Pace]) -> None:
    found = compare(paces)
    slow = [rank for rank, slowness in found.items() if slowness.slow]
    assert len(slow) <= len(paces) / 2
    assert not any(found[rank].keeps_up for rank in slow)
    slowest = max(paces.values(), key=lambda pace: pace.own)
    for rank in slow:
        assert paces[rank].own > 0
        assert (
            found[rank].ratio
            <= slowest.own / min(max(pace.own, 1e-6) for pace in paces.values()) + 1e-6
        )


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), max_size=12))
def test_whatever_ranks_tell_one_is_named_or_none(own: list[list[float]]) -> None:
    ranks = Ranks(3)
    before = None
    for times in own:
        named = ranks.look(dict(enumerate(times)))
        if named is not None and before is None:
            assert ranks.watch.slow[named.rank][0] >= LOOKS
            assert named.since <= ranks.now - timedelta(seconds=5 * LOOKS)
        before = named


# What a report says of ranks.

GOOD = {"rank": 3, "steps": 8, "stepSeconds": 4.0, "ownSeconds": 1.5, "waitSeconds": 2}


@pytest.mark.parametrize(
    ("ranks", "read"),
    [
        pytest.param([GOOD], (RankTimes(3, 8, 4.0, 1.5, 2.0),), id="good"),
        pytest.param([{**GOOD, "more": 1}, 5, None], (RankTimes(3, 8, 4.0, 1.5, 2.0),), id="more"),
        pytest.param(None, (), id="none"),
        pytest.param({"rank": 3}, (), id="no list"),
        pytest.param([GOOD] * 200, (), id="too many"),
        pytest.param([{**GOOD, "steps": -1}], (), id="negative"),
        pytest.param([{**GOOD, "ownSeconds": -0.5}], (), id="negative seconds"),
        pytest.param([{**GOOD, "ownSeconds": "1"}], (), id="text"),
        pytest.param([{**GOOD, "rank": True}], (), id="a truth value"),
        pytest.param([{**GOOD, "rank": 2**40}], (), id="too large"),
        pytest.param([{"rank": 3, "steps": 8}], (), id="too little"),
    ],
)
def test_what_a_report_says_of_ranks(ranks: Any, read: tuple[RankTimes, ...]) -> None:
    found = report.from_json({"attempt": 1, "state": "Running", "ranks": ranks})
    assert found is not None
    assert found.ranks == read


# What the status and events say.

SLOW = Straggler(1, "job-1-1", "node-b", 3.94, START)


def told_status(sim: Sim, ranks: RankVerdict | None) -> Json:
    """One pass of the operator that knows this of the ranks; gives the status after it."""
    plan = reconcile(replace(sim.observe(), ranks=ranks), sim.context)
    sim.events += plan.events
    if plan.status is not None:
        sim.job["status"] = plan.status
    return sim.status


@pytest.fixture
def sim() -> Sim:
    world = Sim(job(2))
    world.run_until("Running")
    world.events.clear()
    return world


def test_the_straggler_is_in_the_status_and_in_one_event_at_either_end(sim: Sim) -> None:
    assert "straggler" not in told_status(sim, None)
    for _ in range(3):
        assert told_status(sim, RankVerdict(SLOW))["straggler"] == {
            "rank": 1,
            "pod": "job-1-1",
            "node": "node-b",
            "ratio": "3.9",
            "startTime": "2026-01-01T00:00:00Z",
        }
    later = replace(SLOW, ratio=5.0, since=START + timedelta(hours=1))
    named = told_status(sim, RankVerdict(later))["straggler"]
    assert (named["ratio"], named["startTime"]) == ("5.0", "2026-01-01T00:00:00Z")
    assert told_status(sim, None)["straggler"] == named, "an operator that has just begun"
    assert "straggler" not in told_status(sim, RankVerdict(None))
    assert [(event.type, event.reason) for event in sim.events] == [
        ("Warning", "StragglerFound"),
        ("Normal", "StragglerGone"),
    ]
    assert "rank 1 (pod job-1-1 on node node-b) takes 3.9 times" in sim.events[0].message


def test_another_straggler_is_told_of_as_well(sim: Sim) -> None:
    told_status(sim, RankVerdict(SLOW))
    other = replace(SLOW, rank=0, pod="job-0-1")
    assert told_status(sim, RankVerdict(other))["straggler"]["rank"] == 0
    assert sim.reasons == ["StragglerFound", "StragglerGone", "StragglerFound"]


def test_the_end_of_the_attempt_is_the_end_of_the_straggler(sim: Sim) -> None:
    told_status(sim, RankVerdict(SLOW))
    sim.events.clear()
    sim.fail_ranks(sim.pod(0), 1)
    assert "straggler" not in told_status(sim, RankVerdict(SLOW))
    assert "StragglerGone" not in sim.reasons


def test_who_does_not_want_to_know_is_told_nothing(sim: Sim) -> None:
    told_status(sim, RankVerdict(SLOW))
    sim.edit(failurePolicy={"stragglerPolicy": "None"})
    sim.events.clear()
    assert "straggler" not in told_status(sim, RankVerdict(SLOW))
    assert not sim.events


def test_a_status_without_its_parts_is_written_anew(sim: Sim) -> None:
    told_status(sim, RankVerdict(SLOW))
    sim.job["status"]["straggler"] = {"rank": 1}
    assert told_status(sim, RankVerdict(SLOW))["straggler"]["pod"] == "job-1-1"


@pytest.mark.parametrize(
    ("nodes", "policy", "asked"),
    [(2, {}, 2), (1, {}, 0), (2, {"stragglerPolicy": "None"}, 0)],
    ids=["two ranks", "one rank", "not wanted"],
)
def test_whom_to_ask(nodes: int, policy: Json, asked: int) -> None:
    sim = Sim(job(nodes, failurePolicy=policy))

    def pods_to_ask() -> int:
        views = [podview.view(pod.raw) for pod in sim.pods.values()]
        return sum(view is not None and wants_ranks(sim.job, view) for view in views)

    assert pods_to_ask() == 0
    sim.run_until("Running")
    assert sum(wants_ranks(sim.job, view) for view in sim.observe().pods) == asked
    sim.finish_all()
    sim.settle()
    assert sum(wants_ranks(sim.job, view) for view in sim.observe().pods) == 0
