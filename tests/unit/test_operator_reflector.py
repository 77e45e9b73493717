"""The pod reflector: a complete view after every disturbance, and one notice per real change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from fake_time import now, run
from inception_operator.contract.errors import GoneError, NotFoundError, UnavailableError
from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.contract.types import Json
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.reflector import STRAYS, PodReflector
from inception_operator.runtime.workqueue import Key
from operator_objects import pod, strict_containment

JOB = ("ns", "job")
Step = tuple[str, Any]


class FakeSource(Client):
    """Answers lists and watches from a script; once it is used up, watches stay silent."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.calls: list[str] = []
        self.strays: list[Json] = []
        self.there: dict[str, Json | Exception] = {}

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        self.calls.append(f"get {name}")
        answer = self.there.get(name, NotFoundError(404, "gone"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list_page(
        self,
        kind: Kind,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
        limit: int = 500,
    ) -> Json:
        if query["labelSelector"] == STRAYS:
            return {"metadata": {"resourceVersion": "1"}, "items": self.strays}
        self.calls.append(f"list {token}".strip())
        kind, answer = self.script.pop(0)
        assert kind == "list", f"unexpected list, expected {kind}"
        if isinstance(answer, Exception):
            raise answer
        pods, version, following = answer
        return {"metadata": {"resourceVersion": str(version), "continue": following}, "items": pods}

    async def watch(
        self,
        kind: Kind,
        query: Mapping[str, str],
        idle: float,
        namespace: str | None = None,
    ) -> AsyncGenerator[Json, None]:
        self.calls.append(f"watch {query['resourceVersion']}")
        kind, answer = self.script.pop(0) if self.script else ("watch", [None])
        assert kind == "watch", f"unexpected watch, expected {kind}"
        for event in answer:
            if isinstance(event, Exception):
                raise event
            if event is None:
                await asyncio.sleep(10_000)
            else:
                yield {"type": event[0], "object": event[1]}


def listed(*pods: Json, version: int = 10, following: str = "") -> Step:
    return "list", (list(pods), version, following)


def watched(*events: Any) -> Step:
    return "watch", list(events)


def observe(
    *script: Step,
    act: Callable[[PodReflector, list[Key]], Awaitable[None]] | None = None,
    seconds: float = 100,
    strays: tuple[Json, ...] = (),
    shard: Shard = ALL_JOBS,
    **there: Json | Exception,
) -> tuple[PodReflector, list[Key], FakeSource]:
    """Run a reflector over the script in fake time."""

    async def main() -> tuple[PodReflector, list[Key], FakeSource]:
        notices: list[Key] = []
        source = FakeSource(*script)
        source.strays = list(strays)
        source.there = {name.replace("_", "-"): answer for name, answer in there.items()}
        reflector = PodReflector(
            source, notices.append, strict_containment(), shard=shard, clock=now
        )
        task = asyncio.create_task(reflector.run())
        await asyncio.sleep(1)
        if act is not None:
            await act(reflector, notices)
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.wait((task,))
        return reflector, notices, source

    return run(main())


def names(reflector: PodReflector, key: Key = JOB) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in reflector.pods(key))


def test_a_list_of_several_pages_fills_the_view() -> None:
    reflector, notices, source = observe(
        listed(pod("job-0-1"), following="next"), listed(pod("job-1-1"), pod("other-0-1"))
    )
    assert reflector.synced.is_set()
    assert names(reflector) == ["job-0-1", "job-1-1"]
    assert names(reflector, ("ns", "other")) == ["other-0-1"]
    assert sorted(notices) == [JOB, ("ns", "other")]
    assert source.calls == ["list", "list next", "watch 10"]


def test_watch_events_change_the_view_and_say_whose_it_is() -> None:
    events = [
        ("ADDED", pod("job-1-1", version=11)),
        ("MODIFIED", pod("job-0-1", version=12, ip="10.0.0.1")),
        ("DELETED", pod("job-1-1")),
    ]
    reflector, notices, _ = observe(listed(pod("job-0-1")), watched(*events, None))
    assert names(reflector) == ["job-0-1"]
    assert reflector.pods(JOB)[0]["metadata"]["resourceVersion"] == "12"
    assert notices == [JOB] * 4


def test_a_change_that_no_decision_reads_is_no_news() -> None:
    annotated = pod(version=11)
    annotated["metadata"]["annotations"] = {"cni.projectcalico.org/podIP": "10.0.0.1/32"}
    addressed = pod(version=12, ip="10.0.0.1")
    events = [("MODIFIED", annotated), ("MODIFIED", addressed)]
    reflector, notices, _ = observe(listed(pod()), watched(*events, None))
    assert notices == [JOB] * 2, "the list, and the address"
    assert reflector.pods(JOB)[0]["metadata"]["resourceVersion"] == "12"


def test_a_watch_that_ends_goes_on_from_the_last_version() -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "40"}})
    _, _, source = observe(
        listed(pod()),
        watched(bookmark),
        watched(("MODIFIED", pod(version=41))),
        watched(UnavailableError(0, "cut")),
        watched(None),
    )
    assert source.calls == ["list", "watch 10", "watch 40", "watch 41", "watch 41"]


def test_after_gone_a_new_list_reports_what_vanished_changed_and_appeared() -> None:
    kept, lost, changed = pod("kept-0-1"), pod("lost-0-1"), pod("changed-0-1")
    again = [kept, pod("changed-0-1", version=15, ip="10.0.0.1"), pod("new-0-1", version=16)]
    reflector, notices, source = observe(
        listed(kept, lost, changed),
        watched(GoneError(410, "expired")),
        listed(*again, version=20),
        watched(None),
    )
    assert source.calls == ["list", "watch 10", "list", "watch 20"]
    assert names(reflector, ("ns", "lost")) == []
    assert set(notices[3:]) == {("ns", "lost"), ("ns", "changed"), ("ns", "new")}


def test_a_successor_of_the_same_name_replaces_its_predecessor() -> None:
    fresh = pod("job-0-1", uid="second", version=15)
    reflector, _, _ = observe(
        listed(pod()), watched(GoneError(410, "expired")), listed(fresh, version=20), watched(None)
    )
    assert [p["metadata"]["uid"] for p in reflector.pods(JOB)] == ["second"]


def test_errors_are_retried_with_growing_pauses() -> None:
    failing = [("list", UnavailableError(503, "down"))] * 8
    reflector, _, source = observe(*failing, listed(pod()), watched(None))
    assert names(reflector) == ["job-0-1"]
    assert source.calls == ["list"] * 9 + ["watch 10"]


def test_the_age_grows_while_nothing_moves() -> None:
    async def act(reflector: PodReflector, _notices: list[Key]) -> None:
        assert reflector.age == pytest.approx(1)

    observe(listed(pod()), watched(None), act=act)


def test_our_own_writes_are_seen_at_once_and_not_reported_again() -> None:
    async def act(reflector: PodReflector, notices: list[Key]) -> None:
        before = len(notices)
        reflector.merge(pod("job-1-1", version=30))
        assert names(reflector) == ["job-0-1", "job-1-1"]
        assert len(notices) == before

    echo = ("ADDED", pod("job-1-1", version=30))

    async def act_later(reflector: PodReflector, notices: list[Key]) -> None:
        await act(reflector, notices)

    _, notices, _ = observe(listed(pod()), watched(None), act=act_later)
    assert notices == [JOB]

    async def echoed() -> None:
        found: list[Key] = []
        reflector = PodReflector(
            FakeSource(listed(), watched(echo, None)), found.append, strict_containment(), clock=now
        )
        reflector.merge(pod("job-1-1", version=30))
        task = asyncio.create_task(reflector.run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait((task,))
        assert found == []
        assert names(reflector) == ["job-1-1"], "a list taken before our write does not undo it"

    run(echoed())


def test_an_older_event_never_replaces_a_newer_view() -> None:
    async def act(reflector: PodReflector, _notices: list[Key]) -> None:
        reflector.merge(pod(version=50))
        reflector.merge(pod(version=49))
        assert reflector.pods(JOB)[0]["metadata"]["resourceVersion"] == "50"

    observe(listed(pod()), watched(None), act=act)


def test_a_dead_pod_does_not_come_back_with_a_late_answer() -> None:
    async def act(reflector: PodReflector, _notices: list[Key]) -> None:
        reflector.merge(pod(version=60))
        assert names(reflector) == []

    observe(listed(pod()), watched(("DELETED", pod(version=55)), None), act=act)


def test_only_a_pod_that_was_seen_before_it_ran_is_known_from_its_birth() -> None:
    old, born = pod(ip="1.2.3.4"), pod("job-1-1", version=11)
    runs = pod("job-1-1", ip="1.2.3.5", version=12)
    successor = pod("job-0-1", uid="successor", version=13)
    reflector, _, _ = observe(
        listed(old),
        watched(("ADDED", born), ("MODIFIED", runs), ("MODIFIED", pod(ip="1.2.3.4", version=12))),
    )
    assert reflector.ran_before("job-0-1-uid")
    assert not reflector.ran_before("job-1-1-uid")
    reflector.merge(successor)
    assert not reflector.ran_before("successor")
    assert not reflector.ran_before("job-0-1-uid"), "forgotten with the pod"
    reflector.remove(JOB, "job-1-1", "job-1-1-uid")
    assert not reflector.ran_before("job-1-1-uid")


def test_the_latest_pod_of_a_slot_that_vanished_is_remembered() -> None:
    async def main() -> None:
        reflector = PodReflector(FakeSource(), lambda _key: None, strict_containment())
        for version, name in enumerate(("job-1-1", "job-1-3", "job-0-1"), start=1):
            reflector.merge(pod(name, uid=name, version=version))
        for name in ("job-1-3", "job-1-1"):
            reflector.remove(JOB, name, name)
        assert {slot: gone.name for slot, gone in reflector.gone(JOB).items()} == {1: "job-1-3"}
        assert reflector.gone(("ns", "other")) == {}
        # Of a job made anew under the same name, which counts from one again.
        reflector.merge(pod("job-1-1", uid="anew", version=9, owner="successor"))
        reflector.remove(JOB, "job-1-1", "anew")
        seen = reflector.gone(JOB)[1]
        assert (seen.name, seen.owner) == ("job-1-1", "successor")

    run(main())


def test_a_pod_that_the_server_no_longer_knows_is_removed() -> None:
    async def act(reflector: PodReflector, _notices: list[Key]) -> None:
        reflector.remove(JOB, "job-0-1", "somebody else")
        assert names(reflector) == ["job-0-1"]
        reflector.remove(JOB, "job-0-1", "job-0-1-uid")
        assert names(reflector) == []
        reflector.merge({"kind": "Status", "status": "Success"})

    observe(listed(pod()), watched(None), act=act)


@pytest.mark.parametrize(
    "labels", [None, {}, {"training.inception.dev/job": "other"}], ids=["none", "empty", "other"]
)
def test_a_pod_belongs_to_the_training_of_its_name(labels: Json | None) -> None:
    stray = pod("job-1-1", version=11)
    stray["metadata"]["labels"] = labels
    reflector, notices, _ = observe(listed(pod()), watched(("ADDED", stray), None))
    assert names(reflector) == ["job-0-1", "job-1-1"]
    assert notices == [JOB, JOB]


def test_a_pod_whose_name_is_none_of_ours_belongs_to_nobody() -> None:
    stranger = pod("job-1-1", version=11)
    stranger["metadata"]["name"] = "job-one-1"
    reflector, notices, _ = observe(listed(pod()), watched(("ADDED", stranger), None))
    assert names(reflector) == ["job-0-1"]
    assert notices == [JOB]


def test_a_pod_that_only_left_the_selector_stays_in_the_view() -> None:
    bare = pod(version=12)
    bare["metadata"]["labels"] = {}
    reflector, notices, source = observe(
        listed(pod()), watched(("DELETED", pod(version=12)), None), job_0_1=bare
    )
    assert reflector.pods(JOB)[0]["metadata"]["labels"] == {}
    assert notices == [JOB, JOB], "so that its labels can be put back"
    assert source.calls == ["list", "watch 10", "get job-0-1"]


@pytest.mark.parametrize(
    "answer",
    [NotFoundError(404, "gone"), UnavailableError(503, "down"), pod(uid="successor", version=20)],
    ids=["gone", "no answer", "a successor"],
)
def test_a_pod_that_is_not_there_any_more_is_gone(answer: Json | Exception) -> None:
    reflector, notices, _ = observe(
        listed(pod()), watched(("DELETED", pod(version=12)), None), job_0_1=answer
    )
    assert names(reflector) == []
    assert notices == [JOB, JOB]


def test_a_pod_that_was_deleted_in_order_is_not_looked_for() -> None:
    leaving = pod(version=12)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    reflector, _, source = observe(
        listed(pod()), watched(("DELETED", leaving), None), job_0_1=pod()
    )
    assert names(reflector) == []
    assert source.calls == ["list", "watch 10"]


def test_a_list_finds_pods_that_lost_their_role_while_nobody_watched() -> None:
    bare = pod("job-1-1", version=4)
    del bare["metadata"]["labels"]["training.inception.dev/role"]
    reflector, _, _ = observe(listed(pod()), watched(None), strays=(bare,))
    assert names(reflector) == ["job-0-1", "job-1-1"]


def test_pods_of_jobs_of_other_shards_are_no_news() -> None:
    async def act(reflector: PodReflector, _notices: list[Key]) -> None:
        reflector.merge(pod("d-3-1", version=20))

    events = [
        ("ADDED", pod("d-1-1", version=11)),
        ("ADDED", pod("a-1-1", version=12)),
        # Whether it has only left the selector would be asked of each of one's own.
        ("DELETED", pod("d-0-1", version=13)),
    ]
    # Of these two jobs only a is one of the first of two shards.
    reflector, notices, source = observe(
        listed(pod("a-0-1"), pod("d-0-1")), watched(*events, None), act=act, shard=Shard(0, 2)
    )
    assert names(reflector, ("ns", "a")) == ["a-0-1", "a-1-1"]
    assert names(reflector, ("ns", "d")) == []
    assert set(notices) == {("ns", "a")}
    assert not [call for call in source.calls if call.startswith("get")]
