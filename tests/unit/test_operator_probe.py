"""Asking pods: answers are kept, silence is bounded and does not hold anybody up, figures find
their training.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inception_operator.contract import assignment
from inception_operator.contract.names import ANNOTATION_ASSIGNMENT, KEY_HEADER
from inception_operator.contract.types import Json, PodView
from inception_operator.pod import view as podview
from inception_operator.runtime import probe
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.pod_cache import PodCache
from inception_operator.runtime.probe import Probe
from inception_operator.runtime.scraper import Scraper
from inception_operator.runtime.workqueue import Key
from operator_objects import job, pod, strict_containment

KEY = ("ns", "job")
IDLE = {"attempt": 2, "state": "Idle"}


@pytest.fixture(autouse=True)
def on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes a while is no silence."""
    monkeypatch.setattr(probe, "PATIENCE", 5.0)
    monkeypatch.setattr(probe, "STATUS_SECONDS", 5.0)


class Launcher:
    """Plays the launcher and the trainer of one pod."""

    def __init__(self) -> None:
        self.answer: Json | str = IDLE
        self.metrics = "trainer_step 5\ntrainer_progress_ratio 0.5\n"
        self.pause = 0.0
        self.asked = 0
        self.shown: list[str | None] = []
        self.delivered: list[tuple[str, str]] = []

    async def status(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.shown.append(request.headers.get("Authorization"))
        await asyncio.sleep(self.pause)
        return web.Response(
            text=self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        )

    async def assign(self, request: web.Request) -> web.Response:
        self.delivered.append((request.headers[KEY_HEADER], await request.text()))
        return web.Response(status=202)

    async def page(self, request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.Response(text=self.metrics)


@asynccontextmanager
async def asking(
    notify: Callable[[Key], None] = lambda _key: None, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[Probe, Launcher]]:
    launcher = Launcher()
    app = web.Application()
    app.router.add_get("/status", launcher.status)
    app.router.add_get("/metrics", launcher.page)
    app.router.add_post("/assignment", launcher.assign)
    async with TestServer(app, host="127.0.0.1") as server:
        port = server.port or 0
        asker = Probe(notify, clock=clock, launcher_port=port, metrics_port=port)
        try:
            yield asker, launcher
        finally:
            await asker.close()


def view(name: str = "job-0-1", ip: str | None = "127.0.0.1") -> PodView:
    found = podview.view(pod(name, ip=ip))
    assert found is not None
    return found


async def test_an_answer_is_kept_for_the_next_decision() -> None:
    async with asking() as (asker, _):
        assert asker.answer(KEY, view().uid) == (None, None, None)
        assert await asker.refresh(KEY, [view()])
        found, reachable, since = asker.answer(KEY, view().uid)
        assert found is not None
        assert (found.attempt, found.state, reachable, since) == (2, "Idle", True, None)
        asker.retain(KEY, ())
        assert asker.answer(KEY, view().uid) == (None, None, None)


async def test_a_launcher_is_shown_the_uid_of_its_pod() -> None:
    async with asking() as (asker, launcher):
        assert await asker.refresh(KEY, [view()])
        assert await asker.report("127.0.0.1", "another") is not None
        assert await asker.metrics("127.0.0.1") is not None
        assert launcher.shown == [f"Bearer {view().uid}", "Bearer another"]


@pytest.mark.parametrize("nonsense", ["", "hello", "[]", '{"state": "Idle"}', "x" * 100_000])
async def test_nonsense_is_no_report(nonsense: str) -> None:
    async with asking() as (asker, launcher):
        launcher.answer = nonsense
        assert await asker.refresh(KEY, [view()])
        assert asker.answer(KEY, view().uid)[0] is None


async def test_the_last_good_report_outlives_the_launcher() -> None:
    async with asking() as (asker, launcher):
        await asker.refresh(KEY, [view()])
        launcher.answer = "broken"
        await asker.refresh(KEY, [view()])
        found, *_ = asker.answer(KEY, view().uid)
        assert found is not None


async def test_a_refused_connection_is_asked_again_after_a_second(unused_tcp_port: int) -> None:
    now, asked = [0.0], []
    asker = Probe(lambda _key: None, clock=lambda: now[0], launcher_port=unused_tcp_port)
    ask = asker._get_status
    asker._get_status = lambda *who: asked.append(who) or ask(*who)  # type: ignore[method-assign, func-returns-value]
    assert await asker.refresh(KEY, [view()])
    found, reachable, since = asker.answer(KEY, view().uid)
    assert (found, reachable) == (None, False)
    assert await asker.refresh(KEY, [view()])
    assert len(asked) == 1, "another pass within the same second"
    assert await asker.refresh(KEY, [replace(view(), ready=True)])
    assert len(asked) == 2, "it has become ready"
    now[0] += 0.2
    assert await asker.refresh(KEY, [replace(view(), ready=True)], {view().uid: 0.1})
    assert len(asked) == 3, "it has notified"
    now[0] += probe.REFUSED_PAUSE
    assert await asker.refresh(KEY, [replace(view(), ready=True)])
    assert len(asked) == 4
    assert not asker.is_silent(KEY, view().uid), "the container may yet begin to listen"
    assert since is not None
    assert asker.answer(KEY, view().uid)[2] == since, "the first of the tries that failed in a row"
    assert await asker.metrics("127.0.0.1") is None
    await asker.close()


async def test_silence_does_not_hold_up_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.02)
    monkeypatch.setattr(probe, "STATUS_SECONDS", 0.1)
    clock, noticed = [0.0], asyncio.Event()
    async with asking(lambda _key: noticed.set(), lambda: clock[0]) as (asker, launcher):
        launcher.pause = 5.0
        assert not await asker.refresh(KEY, [view()])
        assert asker.answer(KEY, view().uid) == (None, None, None)
        async with asyncio.timeout(5):
            await noticed.wait()
        assert await asker.refresh(KEY, [view()])
        assert asker.answer(KEY, view().uid)[:2] == (None, False)
        assert launcher.asked == 1, "a pod that kept silent is left alone for a while"
        clock[0] += probe.FIRST_PAUSE
        launcher.pause = 0.0
        # On a busy machine an answer may take longer.
        monkeypatch.setattr(probe, "PATIENCE", 5.0)
        monkeypatch.setattr(probe, "STATUS_SECONDS", 5.0)
        assert await asker.refresh(KEY, [view()])
        assert asker.answer(KEY, view().uid)[1:] == (True, None)


async def test_a_pod_that_becomes_ready_is_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "STATUS_SECONDS", 0.1)
    async with asking(clock=lambda: 0.0) as (asker, launcher):
        launcher.pause = 5.0
        lost = replace(view(), ready=False)
        await asker.refresh(KEY, [lost])
        launcher.pause = 0.0
        await asker.refresh(KEY, [lost])
        assert (launcher.asked, asker.answer(KEY, lost.uid)[1]) == (1, False)
        await asker.refresh(KEY, [replace(lost, ready=True)])
        assert (launcher.asked, asker.answer(KEY, lost.uid)[1]) == (2, True)


async def test_a_pod_that_appears_while_others_are_asked_is_asked_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.02)
    async with asking() as (asker, launcher):
        launcher.pause = 0.1
        assert not await asker.refresh(KEY, [view()])
        monkeypatch.setattr(probe, "PATIENCE", 5.0)
        assert await asker.refresh(KEY, [view(), view("job-1-1")])
        assert asker.answer(KEY, view("job-1-1").uid)[1] is True


async def test_an_answer_under_way_survives_that_nothing_is_known_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.02)
    async with asking() as (asker, launcher):
        launcher.pause = 0.1
        assert not await asker.refresh(KEY, [view()])
        asker.retain(KEY, {view().uid})
        monkeypatch.setattr(probe, "PATIENCE", 5.0)
        assert await asker.refresh(KEY, [view()])
        assert asker.answer(KEY, view().uid)[1] is True


async def test_a_pod_without_an_address_is_not_asked() -> None:
    async with asking() as (asker, launcher):
        assert await asker.refresh(KEY, [view(ip=None)])
        assert launcher.asked == 0


async def test_an_answer_from_before_a_notification_is_not_taken_for_the_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.02)
    clock = [0.0]
    async with asking(clock=lambda: clock[0]) as (asker, launcher):
        launcher.pause = 0.1
        assert not await asker.refresh(KEY, [view()])
        clock[0] = 1.0
        launcher.answer = {"attempt": 2, "state": "Failed"}
        launcher.pause = 0.0
        monkeypatch.setattr(probe, "PATIENCE", 5.0)
        assert await asker.refresh(KEY, [view()], {view().uid: 0.5})
        found, *_ = asker.answer(KEY, view().uid)
        assert found is not None
        assert (launcher.asked, found.state) == (2, "Failed")
        assert await asker.refresh(KEY, [], {view().uid: 0.5})
        assert launcher.asked == 2, "once is enough"


async def test_a_silent_pod_that_notifies_is_asked_at_once_and_until_it_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "STATUS_SECONDS", 0.5)
    monkeypatch.setattr(probe, "FIRST_PAUSE", 0.01)
    noticed = asyncio.Event()
    clock = [0.0]
    async with asking(lambda _key: noticed.set(), lambda: clock[0]) as (asker, launcher):
        launcher.pause = 5.0
        assert await asker.refresh(KEY, [view()])
        assert asker.is_silent(KEY, view().uid)
        clock[0] = 0.005
        # Within the pause that follows a time-out, and into another one.
        assert await asker.refresh(KEY, [view()], {view().uid: 0.002})
        assert (launcher.asked, asker.is_silent(KEY, view().uid)) == (2, True)
        async with asyncio.timeout(5):
            await noticed.wait()
        clock[0] = 1.0
        launcher.pause = 0.0
        assert await asker.refresh(KEY, [view()], {view().uid: 0.002})
        assert (launcher.asked, asker.is_silent(KEY, view().uid)) == (3, False)


class RankZero:
    """The pods of a job: one, with rank 0 of attempt 1."""

    def pods(self, _key: Key) -> tuple[Json, ...]:
        raw = pod(ip="127.0.0.1")
        raw["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        ranks = assignment.work(1, 0, 1, 1, None, graceful=False)
        raw["metadata"]["annotations"] = {ANNOTATION_ASSIGNMENT: assignment.to_json(ranks)}
        return (raw,)


def running(version: int, attempt: int, uid: str = "job-uid") -> Json:
    conditions = [{"type": "Running", "status": "True"}]
    return job(version=version, uid=uid, state="Running", attempt=attempt, conditions=conditions)


def scraper(asker: Probe, jobs: JobCache, notices: list[Key]) -> Scraper:
    pods = cast(PodCache, RankZero())
    return Scraper(
        jobs,
        pods,
        asker,
        notices.append,
        strict_containment(),
        interval=0.01,
        report_interval=10,
    )


async def test_a_job_made_anew_under_the_same_name_has_no_figures_yet() -> None:
    jobs = JobCache()
    async with asking() as (asker, _):
        reader = scraper(asker, jobs, [])
        jobs.update(running(2, 1))
        await reader.look_at_all()
        assert reader.progress(KEY) is not None
        jobs.update(running(3, 1, "successor"))
        assert reader.progress(KEY) is None
        await reader.look_at_all()
        assert reader.progress(KEY) is not None


async def test_figures_are_read_while_the_training_runs_and_reported_at_intervals() -> None:
    notices: list[Key] = []
    jobs = JobCache()
    jobs.update(job(version=1, state="Pending"))
    async with asking() as (asker, launcher):
        reader = scraper(asker, jobs, notices)
        await reader.look_at_all()
        assert reader.progress(KEY) is None
        jobs.update(running(2, 1))
        await reader.look_at_all()
        launcher.metrics = "trainer_step 6\n"
        await reader.look_at_all()
        found = reader.progress(KEY)
        assert found is not None
        assert found.step == 6
        assert notices == [KEY]
        jobs.update(running(3, 2))
        assert reader.progress(KEY) is None, (
            "figures of an earlier attempt are not those of this one"
        )
        reader.forget(KEY)


PROGRAM = {"attempt": 1, "state": "Running", "step": 7, "metrics": {"progress": 0.5, "loss": 0.25}}


@pytest.mark.parametrize(
    "page", ["", "python_info 1\n"], ids=["no page", "a page without the trainer's series"]
)
async def test_a_program_without_metrics_is_heard_through_its_launcher(page: str) -> None:
    notices: list[Key] = []
    jobs = JobCache()
    jobs.update(running(2, 1))
    async with asking() as (asker, launcher):
        launcher.metrics, launcher.answer = page, PROGRAM
        reader = scraper(asker, jobs, notices)
        await reader.look_at_all()
        found = reader.progress(KEY)
        assert found is not None
        assert (found.step, found.progress, found.loss) == (7, 0.5, 0.25)
        assert notices == [KEY]


@pytest.mark.parametrize(
    "answer",
    [{**PROGRAM, "attempt": 0}, {"attempt": 1, "state": "Running"}, "nonsense"],
    ids=["an earlier attempt", "silence", "nonsense"],
)
async def test_a_launcher_without_news_is_asked_again(answer: Json | str) -> None:
    jobs = JobCache()
    jobs.update(running(2, 1))
    async with asking() as (asker, launcher):
        launcher.metrics, launcher.answer = "", answer
        reader = scraper(asker, jobs, [])
        await reader.look_at_all()
        assert reader.progress(KEY) is None
        launcher.answer = PROGRAM
        await reader.look_at_all()
        await reader.look_at_all()
        assert reader.progress(KEY) is not None


async def test_an_unreachable_pod_is_scraped_less_and_less_often(unused_tcp_port: int) -> None:
    jobs = JobCache()
    jobs.update(running(2, 1))
    ports = {"launcher_port": unused_tcp_port, "metrics_port": unused_tcp_port}
    asker = Probe(lambda _key: None, clock=time.monotonic, **ports)
    asked = 0
    original = asker.metrics

    async def counting(ip: str) -> str | None:
        nonlocal asked
        asked += 1
        return await original(ip)

    asker.metrics = counting  # type: ignore[method-assign]
    reader = scraper(asker, jobs, [])
    for _ in range(40):
        await reader.look_at_all()
    assert 5 <= asked <= 8
    await asker.close()


async def test_an_assignment_is_sent_and_not_waited_for() -> None:
    async with asking() as (asker, launcher):
        asker.deliver("127.0.0.1", "a key", '{"attempt": 4}')
        assert launcher.delivered == []
        await asyncio.gather(*asker._deliveries)
        assert launcher.delivered == [("a key", '{"attempt": 4}')]


async def test_nobody_who_takes_it_is_no_failure() -> None:
    asker = Probe(lambda _key: None, clock=time.monotonic, launcher_port=1)
    asker.deliver("127.0.0.1", "a key", "{}")
    await asyncio.gather(*asker._deliveries)
    assert not asker._deliveries
    asker.deliver("127.0.0.1", "a key", "{}")
    await asker.close()
    assert not asker._deliveries
