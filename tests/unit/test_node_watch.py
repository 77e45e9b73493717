"""The watch of nodes: only what matters is kept and told, and its lack ends nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Any

import pytest

from fake_time import now, run
from inception_operator.contract.errors import GoneError, RejectedError, UnavailableError
from inception_operator.contract.types import Json
from inception_operator.decide.leave_signs import parse_signs
from inception_operator.runtime.client import NODES, Client, Kind
from inception_operator.runtime.node_watch import (
    MOST_DELETED,
    MOST_NAMED,
    RECHECK_SECONDS,
    LeavingNodes,
    NodeWatch,
)
from operator_objects import strict_containment

Step = tuple[str, Any]
FORBIDDEN = RejectedError(403, "nodes is forbidden")


def node(name: str, *, cordoned: bool = False, version: int = 1) -> Json:
    spec = {"unschedulable": True} if cordoned else {}
    metadata = {"name": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec, "status": {"images": [{"names": ["i"]}] * 50}}


class FakeSource(Client):
    """Answers lists and watches from a script; once it is used up, watches stay silent."""

    def __init__(self, *script: Step, rights: Collection[bool] = ()) -> None:
        self.script = list(script)
        self.rights = list(rights)
        self.calls: list[str] = []

    async def allowed(self, verb: str, kind: Kind) -> bool:
        assert kind is NODES
        self.calls.append(f"may {verb}")
        return self.rights.pop(0) if self.rights else True

    async def list_page(
        self,
        kind: Kind,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
        limit: int = 500,
    ) -> Json:
        self.calls.append(f"list {token}".strip())
        assert (kind, namespace, limit) == (NODES, None, 50)
        name, answer = self.script.pop(0)
        assert name == "list"
        if isinstance(answer, Exception):
            raise answer
        nodes, following = answer
        return {"metadata": {"resourceVersion": "10", "continue": following}, "items": nodes}

    async def watch(
        self, kind: Kind, query: Mapping[str, str], idle: float, namespace: str | None = None
    ) -> AsyncGenerator[Json, None]:
        self.calls.append(f"watch {query['resourceVersion']}")
        name, answer = self.script.pop(0) if self.script else ("watch", [None])
        assert name == "watch"
        for event in answer:
            if isinstance(event, Exception):
                raise event
            if event is None:
                await asyncio.sleep(10_000)
            else:
                yield {"type": event[0], "object": event[1]}


class World:
    def __init__(self, *script: Step, rights: Collection[bool] = ()) -> None:
        self.source = FakeSource(*script, rights=rights)
        self.leaving = LeavingNodes()
        self.told: list[set[str]] = []
        self.working = False

    def observe(
        self, act: Callable[[World], Awaitable[None]] | None = None, seconds: float = 100
    ) -> World:
        """Run the watch over the script in fake time."""

        async def main() -> None:
            watch = NodeWatch(
                self.source,
                lambda names: self.told.append(set(names)),
                strict_containment(),
                parse_signs(["default"]),
                self.leaving,
                clock=now,
            )
            task = asyncio.create_task(watch.run())
            await asyncio.sleep(seconds)
            if act is not None:
                await act(self)
            self.working = watch.working
            assert not task.done()
            task.cancel()
            await asyncio.wait((task,))

        run(main())
        return self


def listed(*nodes: Json, following: str = "") -> Step:
    return "list", (list(nodes), following)


def watched(*events: Any) -> Step:
    return "watch", list(events)


def test_nodes_that_go_are_found_in_a_list_of_several_pages_and_others_are_forgotten() -> None:
    world = World(
        listed(node("a"), node("b", cordoned=True), following="next"),
        listed(node("c", cordoned=True)),
    ).observe()
    assert world.source.calls == ["may list", "may watch", "list", "list next", "watch 10"]
    assert [world.leaving.why(name) for name in ("a", "b", "c", "d", None)] == [
        None,
        "cordoned",
        "cordoned",
        None,
        None,
    ]
    assert (world.told, len(world.leaving), world.working) == ([{"b", "c"}], 2, True)
    assert world.leaving.known


def test_only_changes_that_matter_are_told_and_those_of_one_moment_together() -> None:
    heartbeats = [("MODIFIED", node(name, version=11)) for name in ("a", "b") * 50]
    cordons = [("MODIFIED", node(name, cordoned=True, version=12)) for name in ("a", "b", "a")]
    world = World(listed(node("a"), node("b")), watched(*heartbeats, *cordons, None)).observe()
    assert world.told == [{"a", "b"}]


def test_a_node_that_stays_after_all_is_told_too() -> None:
    events = [("MODIFIED", node("a", cordoned=True, version=11)), ("MODIFIED", node("a"))]
    first = World(listed(node("a")), watched(events[0], None)).observe()
    assert first.leaving.why("a") == "cordoned"
    world = World(listed(node("a", cordoned=True)), watched(events[1], None)).observe()
    assert (world.told, world.leaving.why("a")) == ([{"a"}], None)


def test_a_deleted_node_goes_on_to_be_left_until_it_comes_back() -> None:
    gone = ("DELETED", node("a", version=12))
    world = World(listed(node("a", cordoned=True)), watched(gone, None)).observe()
    assert (world.leaving.why("a"), len(world.leaving)) == ("deleted", 0)
    back = ("ADDED", node("a", version=13))
    world = World(listed(node("a")), watched(gone, back, None)).observe()
    assert world.leaving.why("a") is None


def test_a_new_list_after_a_gap_tells_the_difference() -> None:
    world = World(
        listed(node("a", cordoned=True), node("b", cordoned=True), node("c")),
        watched(GoneError(410, "too old")),
        listed(node("b"), node("c", cordoned=True)),
        watched(None),
    ).observe()
    assert [world.leaving.why(name) for name in "abc"] == ["deleted", None, "cordoned"]
    assert set().union(*world.told) == {"a", "b", "c"}


def test_a_broken_watch_comes_back() -> None:
    world = World(
        listed(node("a")),
        watched(UnavailableError(0, "cut")),
        watched(("MODIFIED", node("a", cordoned=True, version=20)), None),
    ).observe()
    assert (world.leaving.why("a"), world.source.calls[-1]) == ("cordoned", "watch 10")


def test_without_the_right_nothing_is_asked_but_for_the_right_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World(rights=[False] * 6).observe(seconds=RECHECK_SECONDS * 2.5)
    assert world.source.calls == ["may list", "may watch"] * 3
    assert (world.working, world.leaving.known) == (False, True)
    warnings = [record.getMessage() for record in caplog.records]
    assert len([text for text in warnings if "planned moves are off" in text]) == 1


def test_a_right_that_is_given_later_is_found() -> None:
    world = World(listed(node("a", cordoned=True)), rights=[True, False]).observe(
        seconds=RECHECK_SECONDS + 10
    )
    assert (world.leaving.why("a"), world.working) == ("cordoned", True)


def test_a_right_that_is_taken_away_makes_it_forget_what_may_not_be_true_any_more() -> None:
    world = World(
        listed(node("a", cordoned=True)), watched(FORBIDDEN), rights=[True, True, False, False]
    ).observe()
    assert (world.leaving.why("a"), world.working) == (None, False)
    assert world.told[-1] == {"a"}


def test_an_object_that_makes_no_sense_costs_nothing() -> None:
    odd = {"metadata": {"name": "odd", "resourceVersion": "12"}, "spec": None, "status": None}
    world = World(listed(odd), watched(("MODIFIED", odd), None)).observe()
    assert (world.leaving.why("odd"), world.working) == (None, True)


def test_new_pods_are_kept_from_a_bounded_number_of_nodes_the_own_ones_first() -> None:
    leaving = LeavingNodes()
    for number in range(1000):
        leaving.note(f"n{number}", "cordoned")
    named = leaving.named(["z", "n999"])
    assert (named[:2], len(named), len(set(named))) == (("n999", "z"), MOST_NAMED, MOST_NAMED)


def test_deleted_nodes_are_remembered_for_a_while_only() -> None:
    leaving = LeavingNodes()
    for number in range(MOST_DELETED + 1):
        leaving.delete(f"n{number}")
    assert (leaving.why("n0"), leaving.why("n1")) == (None, "deleted")


def test_five_thousand_nodes_cost_no_memory_and_no_decision() -> None:
    template = json.dumps(node("NAME"))
    nodes = [json.loads(template.replace("NAME", f"node-{number}")) for number in range(5000)]
    pages = [
        listed(*nodes[start : start + 50], following="next" if start < 4950 else "")
        for start in range(0, 5000, 50)
    ]
    del nodes
    kept: list[int] = []

    async def measure(world: World) -> None:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        world.source.script = [watched(*events, None)]
        await asyncio.sleep(11_000)
        kept.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()

    events = [("MODIFIED", node(f"node-{number}", version=11)) for number in range(5000)]
    world = World(*pages).observe(act=measure)
    assert world.told == []
    assert len(world.leaving) == 0
    assert kept[0] < 100_000
