"""Looks at the ranks of running jobs, through launchers that answer over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inception_operator.contract import assignment
from inception_operator.contract.names import ANNOTATION_ASSIGNMENT
from inception_operator.contract.types import Json
from inception_operator.decide.stragglers import LOOKS
from inception_operator.runtime import rank_watch
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.pod_cache import PodCache
from inception_operator.runtime.probe import Probe
from inception_operator.runtime.rank_watch import RankWatch
from inception_operator.runtime.workqueue import Key
from operator_objects import job, pod, strict_containment

KEY = ("ns", "job")


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_watch, "REQUESTS_PER_SECOND", 1e6)


class Launchers:
    """Two pods with a rank each, of which rank 1 takes four times as long for itself."""

    def __init__(self) -> None:
        self.attempt = 1
        self.steps = 0
        self.tells = True
        self.asked = 0

    def pods(self, _key: Key) -> tuple[Json, ...]:
        return tuple(self._pod(rank) for rank in range(2))

    def _pod(self, rank: int) -> Json:
        raw = pod(f"job-{rank}-1", ip="127.0.0.1")
        raw["spec"]["nodeName"] = f"node-{rank}"
        raw["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        ranks = assignment.work(1, rank, 2, 1, "127.0.0.1", graceful=False)
        raw["metadata"]["annotations"] = {ANNOTATION_ASSIGNMENT: assignment.to_json(ranks)}
        return raw

    async def status(self, request: web.Request) -> web.Response:
        self.asked += 1
        uid = request.headers["Authorization"].removeprefix("Bearer ")
        rank = next(
            number for number, raw in enumerate(self.pods(KEY)) if raw["metadata"]["uid"] == uid
        )
        times = {
            "rank": rank,
            "steps": self.steps,
            "stepSeconds": self.steps * 0.5,
            "ownSeconds": self.steps * (0.4 if rank else 0.1),
            "waitSeconds": self.steps * (0.1 if rank else 0.4),
        }
        report = {"attempt": self.attempt, "state": "Running", "ranks": [times] * self.tells}
        return web.Response(text=json.dumps(report))


def running(version: int = 1, uid: str = "job-uid") -> Json:
    conditions = [{"type": "Running", "status": "True"}]
    return job(version=version, uid=uid, state="Running", attempt=1, conditions=conditions)


@asynccontextmanager
async def looking(
    launchers: Launchers, told: list[Key], jobs: JobCache | None = None
) -> AsyncIterator[RankWatch]:
    jobs = JobCache() if jobs is None else jobs
    jobs.update(running())
    app = web.Application()
    app.router.add_get("/status", launchers.status)
    async with TestServer(app, host="127.0.0.1") as server:
        probe = Probe(lambda _key: None, clock=time.monotonic, launcher_port=server.port or 0)
        pods = cast(PodCache, launchers)
        try:
            yield RankWatch(jobs, pods, probe, told.append, strict_containment(), interval=5.0)
        finally:
            await probe.close()


async def test_the_slow_rank_is_found_and_the_job_decided_on_once() -> None:
    launchers, told = Launchers(), list[Key]()
    async with looking(launchers, told) as watch:
        assert watch.verdict(KEY) is None
        for _ in range(LOOKS + 3):
            assert await watch.look(KEY) == 2
            launchers.steps += 10
        verdict = watch.verdict(KEY)
        assert verdict is not None
        named = verdict.straggler
        assert named is not None
        assert (named.rank, named.pod, named.node) == (1, "job-1-1", "node-1")
        assert told == [KEY]
        watch.forget(KEY)
        assert watch.verdict(KEY) is None


async def test_a_job_made_anew_under_the_same_name_has_no_slow_rank_yet() -> None:
    launchers, jobs = Launchers(), JobCache()
    async with looking(launchers, [], jobs) as watch:
        for _ in range(LOOKS + 3):
            await watch.look(KEY)
            launchers.steps += 10
        assert watch.verdict(KEY) is not None
        jobs.update(running(2, "successor"))
        assert watch.verdict(KEY) is None


async def test_launchers_of_the_attempt_before_say_nothing_of_this_one() -> None:
    launchers = Launchers()
    launchers.attempt = 0
    async with looking(launchers, []) as watch:
        for _ in range(LOOKS + 1):
            await watch.look(KEY)
            launchers.steps += 10
        assert watch.verdict(KEY) is None


async def test_ranks_that_tell_nothing_are_asked_ever_less_often() -> None:
    launchers = Launchers()
    launchers.tells = False
    async with looking(launchers, []) as watch:
        asked = [await watch.look(KEY) for _ in range(40)]
        assert sum(asked) == launchers.asked == 2 * 5
        assert asked[:11] == [2, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0]
        launchers.tells = True
        while not await watch.look(KEY):
            pass
        assert [await watch.look(KEY) for _ in range(3)] == [2, 2, 2]


async def test_a_job_that_runs_no_more_is_not_asked() -> None:
    launchers, jobs = Launchers(), JobCache()
    jobs.update(job(version=1, state="Succeeded", attempt=1, conditions=[]))
    probe = Probe(lambda _key: None, clock=time.monotonic)
    pods = cast(PodCache, launchers)
    watch = RankWatch(jobs, pods, probe, lambda _key: None, strict_containment(), interval=5.0)
    assert await watch.look(KEY) == 0
    assert await watch.look(("ns", "gone")) == 0
    await probe.close()
