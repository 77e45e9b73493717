"""Reads rank 0's figures of every running training every few seconds and says when they are worth a
status patch.

They are on the trainer's metrics page; a program of the user's has none and leaves its progress
with the launcher.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from inception_operator.contract.progress import from_report
from inception_operator.contract.types import Json, PodView, Progress

from .job_cache import JobCache
from .probe import Probe
from .workqueue import Key

CONCURRENCY = 32
MAX_SKIPPED_ROUNDS = 12

_log = logging.getLogger(__name__)

Parse = Callable[[str, datetime], "Progress | None"]


@dataclass
class _State:
    """What is known about one training. ``attempt`` tells old figures from new ones."""

    progress: Progress | None = None
    attempt: int = 0
    told: float = 0.0
    failures: int = 0
    skip: int = 0


class Scraper:
    """The latest `Progress` of each running training."""

    def __init__(
        self,
        jobs: JobCache,
        pods: Callable[[Key], tuple[PodView, ...]],
        probe: Probe,
        parse: Parse,
        wants: Callable[[Json, PodView], bool],
        notify: Callable[[Key], None],
        *,
        interval: float,
        report_interval: float,
    ) -> None:
        self._jobs = jobs
        self._pods = pods
        self._probe = probe
        self._parse = parse
        self._wants = wants
        self._notify = notify
        self._interval = interval
        self._report_interval = report_interval
        self._states: dict[Key, _State] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def progress(self, key: Key) -> Progress | None:
        """The latest figures of the present attempt."""
        state, job = self._states.get(key), self._jobs.get(key)
        if state is None or job is None or state.attempt != _attempt(job):
            return None
        return state.progress

    def forget(self, key: Key) -> None:
        """The training is gone."""
        self._states.pop(key, None)

    async def run(self) -> None:
        """Scrape until cancelled."""
        while True:
            started = time.monotonic()
            await self.scrape_all()
            await asyncio.sleep(
                max(self._interval / 10, self._interval - (time.monotonic() - started))
            )

    async def scrape_all(self) -> None:
        """One round over all running trainings."""
        await asyncio.gather(*(self._scrape(key) for key in self._jobs))

    async def _scrape(self, key: Key) -> None:
        job = self._jobs.get(key)
        ip = self._target(key, job) if job is not None else None
        if job is None or ip is None:
            return
        state = self._states.setdefault(key, _State())
        if state.skip > 0:
            state.skip -= 1
            return
        async with self._slots:
            progress, reachable = await self._figures(ip, _attempt(job))
        if progress is None:
            # A pod nobody can reach must not take a slot in every round; a program may yet begin to
            # speak.
            state.failures = 1 if reachable else state.failures + 1
            state.skip = (
                1 if reachable else min(MAX_SKIPPED_ROUNDS, 2 ** min(state.failures - 1, 10) - 1)
            )
            return
        state.progress, state.attempt, state.failures = progress, _attempt(job), 0
        if time.monotonic() - state.told >= self._report_interval:
            state.told = time.monotonic()
            self._notify(key)

    async def _figures(self, ip: str, attempt: int) -> tuple[Progress | None, bool]:
        """The figures, and whether anybody was there to ask."""
        text = await self._probe.metrics(ip)
        progress = self._parse(text, datetime.now(UTC)) if text is not None else None
        if progress is not None:
            return progress, True
        report = await self._probe.report(ip)
        tells = (
            report is not None
            and report.attempt == attempt
            and (report.step is not None or report.metrics)
        )
        return (
            from_report(report, datetime.now(UTC)) if report is not None and tells else None
        ), report is not None

    def _target(self, key: Key, job: Json) -> str | None:
        """Address of rank 0, if the training runs."""
        return next((pod.ip for pod in self._pods(key) if self._wants(job, pod)), None)


def _attempt(job: Json) -> int:
    return int((job.get("status") or {}).get("attempt") or 0)
