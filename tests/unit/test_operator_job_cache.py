"""The view of trainings: versions only move forward, the dead stay dead, and a list finds what the
watch has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from fake_time import now, run
from inception_operator.contract.errors import StalledWatchError, UnavailableError
from inception_operator.contract.types import Json
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.resync import Resync
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


class FakeSource(Client):
    def __init__(self, *listed: Json, version: int = 100) -> None:
        self.listed, self.version = list(listed), version
        self.failing = False
        self.versions: dict[str | None, int] = {}

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
        if self.failing:
            raise UnavailableError(503, "down")
        found = [raw for raw in self.listed if namespace in (None, raw["metadata"]["namespace"])]
        version = self.versions.get(namespace, self.version)
        # As the API server answers where there are none.
        return {"metadata": {"resourceVersion": str(version)}, "items": found or None}


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
