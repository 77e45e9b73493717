"""The view of trainings: versions only move forward, the dead stay dead, and a list finds what the
watch has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from fake_time import now, run
from inception_operator.contract.errors import GoneError, StalledWatchError, UnavailableError
from inception_operator.contract.shard import Shard
from inception_operator.contract.types import Json
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.resync import LIST_EVERY, Resync
from inception_operator.runtime.workqueue import Key
from operator_objects import job

KEY = ("ns", "job")


def test_only_news_is_taken_over() -> None:
    jobs = JobCache()
    assert jobs.update(job(version=9))
    assert not jobs.update(job(version=9))
    assert jobs.update(job(version=10))
    known = jobs.get(KEY)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "10"


def test_managed_fields_are_not_kept() -> None:
    jobs = JobCache()
    raw = job()
    raw["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    jobs.update(raw)
    known = jobs.get(KEY)
    assert known is not None
    assert "managedFields" not in known["metadata"]
    assert "managedFields" in raw["metadata"], "the caller's object is left alone"


def test_a_deleted_training_does_not_come_back_but_a_successor_does() -> None:
    jobs = JobCache()
    jobs.update(job(version=5))
    assert jobs.forget(KEY, "job-uid")
    assert not jobs.update(job(version=6))
    assert jobs.update(job(version=7, uid="second"))
    assert not jobs.forget(KEY, "job-uid"), "a late event about the first leaves the second alone"
    assert len(jobs) == 1


def test_only_jobs_that_run_are_among_the_running() -> None:
    jobs = JobCache()
    conditions = [{"type": "Running", "status": "True"}]
    for version, name in enumerate(("a", "b", "c"), 1):
        jobs.update(job(name, version=version, uid=name, conditions=conditions))
    jobs.update(job("waiting", version=4, uid="d"))
    assert jobs.running() == [("ns", "a"), ("ns", "b"), ("ns", "c")]
    over = [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}]
    jobs.update(job("a", version=5, uid="a", conditions=over))
    jobs.forget(("ns", "b"), "b")
    assert jobs.running() == [("ns", "c")]


def test_a_job_that_was_only_not_found_may_come_back() -> None:
    jobs = JobCache()
    jobs.update(job(version=5))
    assert not jobs.drop(KEY, "another")
    assert jobs.drop(KEY, "job-uid")
    assert not jobs.has_seen(KEY, "job-uid", 5)
    assert jobs.update(job(version=6))


MINE = Shard(0, 2)
"""Of these, ``ns/a`` is a job and ``ns/d`` is none."""


def test_of_the_jobs_of_other_shards_nothing_is_kept() -> None:
    jobs = JobCache(MINE)
    assert [jobs.owns(("ns", name)) for name in ("a", "d")] == [True, False]
    assert jobs.update(job("a", uid="a"))
    assert not jobs.update(job("d", uid="d"))
    assert list(jobs) == [("ns", "a")]


class FakeSource(Client):
    def __init__(self, *listed: Json, version: int = 100) -> None:
        self.listed, self.version = list(listed), version
        self.failing = False
        self.versions: dict[str | None, int] = {}
        self.lists = 0
        self.events: list[Json] = []
        self.broken: Exception | None = None
        self.asked: list[str] = []

    async def list_page(
        self,
        kind: Kind,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
        limit: int = 500,
    ) -> Json:
        assert metadata_only
        self.lists += 1
        if self.failing:
            raise UnavailableError(503, "down")
        found = [raw for raw in self.listed if namespace in (None, raw["metadata"]["namespace"])]
        version = self.versions.get(namespace, self.version)
        # As the API server answers where there are none.
        return {"metadata": {"resourceVersion": str(version)}, "items": found or None}

    async def watch(
        self,
        kind: Kind,
        query: Mapping[str, str],
        idle: float,
        namespace: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Json, None]:
        assert metadata_only
        assert int(query["timeoutSeconds"]) < idle
        self.asked.append(query["resourceVersion"])
        for event in self.events:
            yield event
        if self.broken is not None:
            raise self.broken


def event(kind: str, raw: Json) -> Json:
    return {"type": kind, "object": raw}


def resync(source: FakeSource, jobs: JobCache, notices: list[Key], *namespaces: str) -> Resync:
    return Resync(source, jobs, notices.append, interval=60, namespaces=namespaces, clock=now)


def test_a_training_that_vanished_silently_is_found() -> None:
    async def main() -> None:
        jobs, notices = JobCache(), list[Key]()
        jobs.update(job("kept", uid="a"))
        jobs.update(job("lost", uid="b"))
        jobs.update(job("new", uid="c", version=101))
        await resync(FakeSource(job("kept", uid="a")), jobs, notices).compare()
        assert notices == [("ns", "lost")]
        assert sorted(jobs) == [("ns", "kept"), ("ns", "new")]

    run(main())


def test_the_last_training_may_vanish_silently_too() -> None:
    async def main() -> None:
        jobs, notices = JobCache(), list[Key]()
        jobs.update(job("lost", uid="b"))
        await resync(FakeSource(), jobs, notices).compare()
        assert notices == [("ns", "lost")]
        assert sorted(jobs) == []

    run(main())


def test_each_namespace_of_a_list_is_compared_by_itself() -> None:
    async def main() -> None:
        jobs, notices = JobCache(), list[Key]()
        jobs.update(job("lost", uid="a", version=90))
        jobs.update(job("new", uid="b", version=95))
        elsewhere = job("elsewhere", uid="c")
        elsewhere["metadata"]["namespace"] = "other"
        source = FakeSource(elsewhere)
        # The list that was taken first says nothing about what was made after it.
        source.versions = {"ns": 94, "second": 110}
        await resync(source, jobs, notices, "ns", "second").compare()
        assert notices == [("ns", "lost")]
        assert sorted(jobs) == [("ns", "new")], "a training elsewhere is none of ours"

    run(main())


def test_a_watch_that_is_only_late_is_fine() -> None:
    async def main() -> None:
        jobs = JobCache()
        comparison = resync(FakeSource(job(version=7)), jobs, [])
        comparing = asyncio.create_task(comparison.compare())
        await asyncio.sleep(5)
        jobs.update(job(version=8))
        await comparing
        assert comparison.age == 0

    run(main())


@pytest.mark.parametrize("known", [None, 3], ids=["never seen", "an old version"])
def test_a_deaf_watch_ends_the_process(known: int | None) -> None:
    async def main() -> None:
        jobs = JobCache()
        if known is not None:
            jobs.update(job(version=known))
        with pytest.raises(StalledWatchError, match="ns/job"):
            await resync(FakeSource(job(version=7)), jobs, []).run()

    run(main())


def test_a_training_deleted_meanwhile_is_not_missed() -> None:
    async def main() -> None:
        jobs = JobCache()
        jobs.forget(KEY, "job-uid")
        await resync(FakeSource(job(version=7)), jobs, []).compare()

    run(main())


@pytest.mark.parametrize("successor", [(), (job(version=9, uid="second"),)], ids=["", "successor"])
def test_a_training_that_goes_while_the_watch_is_broken_is_not_missed(
    successor: tuple[Json, ...],
) -> None:
    async def main() -> None:
        jobs = JobCache()
        source = FakeSource(job(version=7))
        comparing = asyncio.create_task(resync(source, jobs, []).compare())
        await asyncio.sleep(5)
        for each in successor:
            jobs.update(each)
        source.listed = list(successor)
        await comparing
        assert len(jobs) == len(successor)

    run(main())


def test_a_failed_list_is_tried_again_and_shows_in_the_age() -> None:
    async def main() -> None:
        source = FakeSource()
        source.failing = True
        comparison = resync(source, JobCache(), [])
        task = asyncio.create_task(comparison.run())
        await asyncio.sleep(200)
        assert comparison.age == pytest.approx(200)
        source.failing = False
        await asyncio.sleep(60)
        assert comparison.age < 60
        task.cancel()

    run(main())


def test_after_the_first_list_only_changes_are_asked_for() -> None:
    async def main() -> None:
        jobs, notices = JobCache(), list[Key]()
        jobs.update(job("kept", uid="a"))
        jobs.update(job("lost", uid="b"))
        source = FakeSource(job("kept", uid="a"), job("lost", uid="b"))
        comparison = resync(source, jobs, notices)
        await comparison.compare()
        jobs.update(job("kept", uid="a", version=101))
        bookmark: dict[str, Any] = {"metadata": {"resourceVersion": "110"}}
        source.events = [
            event("MODIFIED", job("kept", uid="a", version=101)),
            event("DELETED", job("lost", uid="b", version=102)),
            event("BOOKMARK", bookmark),
        ]
        await comparison.compare()
        assert notices == [("ns", "lost")], "nobody had told of its deletion"
        assert sorted(jobs) == [("ns", "kept")]
        source.events = []
        await comparison.compare()
        assert source.asked == ["100", "110"], "each goes on where the one before it ended"
        assert source.lists == 1

    run(main())


def test_a_change_that_only_we_hear_of_ends_the_process() -> None:
    async def main() -> None:
        jobs = JobCache()
        jobs.update(job(version=3))
        source = FakeSource(job(version=3))
        comparison = resync(source, jobs, [])
        await comparison.compare()
        source.events = [event("MODIFIED", job(version=104))]
        with pytest.raises(StalledWatchError, match="ns/job"):
            await comparison.compare()

    run(main())


@pytest.mark.parametrize(
    "error", [GoneError(410, "too old"), UnavailableError(0, "cut")], ids=["too old", "cut"]
)
def test_where_the_changes_are_not_known_all_jobs_are_listed(error: Exception) -> None:
    async def main() -> None:
        jobs, notices = JobCache(), list[Key]()
        jobs.update(job("lost", uid="b"))
        source = FakeSource(job("lost", uid="b"))
        comparison = resync(source, jobs, notices)
        await comparison.compare()
        source.listed, source.broken, source.version = [], error, 200
        await comparison.compare()
        assert notices == [("ns", "lost")]
        source.broken = None
        await comparison.compare()
        assert source.asked == ["100", "200"]
        assert source.lists == 2

    run(main())


def test_now_and_then_all_jobs_are_listed() -> None:
    async def main() -> None:
        source = FakeSource()
        comparison = resync(source, JobCache(), [])
        for _ in range(2 * LIST_EVERY):
            await comparison.compare()
        assert (source.lists, len(source.asked)) == (2, 2 * (LIST_EVERY - 1))

    run(main())


def test_what_becomes_of_the_jobs_of_other_shards_is_not_compared() -> None:
    async def main() -> None:
        jobs, notices = JobCache(MINE), list[Key]()
        jobs.update(job("a", uid="a"))
        source = FakeSource(job("a", uid="a"), job("d", uid="d"))
        comparison = resync(source, jobs, notices)
        await comparison.compare()
        source.events = [
            event("MODIFIED", job("d", uid="d", version=101)),
            event("DELETED", job("d", uid="d", version=102)),
            event("DELETED", job("a", uid="a", version=103)),
        ]
        await comparison.compare()
        assert notices == [("ns", "a")]

    run(main())
