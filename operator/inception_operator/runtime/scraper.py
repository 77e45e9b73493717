"""Reads the training figures of every running job every few seconds, and says when to write them.

The bundled trainer serves them on local rank 0's metrics page. A program of the user's has none: it
leaves its figures in a file, and its launcher reports them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from typing_extensions import override

from inception_operator.contract.progress import from_metrics, from_report
from inception_operator.contract.types import Json, PodView, Progress
from inception_operator.decide.questions import wants_progress
from inception_operator.pod.view import view

from .containment import Containment
from .job_cache import JobCache
from .pod_cache import PodCache
from .probe import Probe
from .rounds import MAX_SKIPPED_ROUNDS, Rounds, attempt_of
from .workqueue import Key

_log = logging.getLogger(__name__)


@dataclass
class _State:
    """What is kept about one job.

    ``attempt`` is the one that ``progress`` is of, ``notified`` when the work queue was last told,
    ``ignored`` the figure that people have been warned of, ``skip`` how many rounds the job is left
    out after ``failures`` in a row.
    """

    progress: Progress | None = None
    attempt: int = 0
    notified: float = 0.0
    ignored: str = ""
    failures: int = 0
    skip: int = 0


class Scraper(Rounds[_State]):
    """The latest `Progress` of each running job.

    ``interval`` are the seconds between two rounds, ``report_interval`` those between two
    notifications of the work queue about one job: each costs a write of its status.
    """

    def __init__(
        self,
        jobs: JobCache,
        pods: PodCache,
        probe: Probe,
        notify: Callable[[Key], None],
        containment: Containment,
        *,
        interval: float,
        report_interval: float,
    ) -> None:
        super().__init__(jobs, pods, probe, notify, containment, interval=interval)
        self._report_interval = report_interval

    def progress(self, key: Key) -> Progress | None:
        """The latest figures of the present attempt."""
        resource = self._jobs.get(key)
        state = self._states.get(key, resource) if resource is not None else None
        if resource is None or state is None or state.attempt != attempt_of(resource):
            return None
        return state.progress

    @override
    async def look(self, key: Key) -> None:
        """Read the figures of one job, unless it is left out in this round."""
        resource = self._jobs.get(key)
        if resource is None:
            return
        state = self._states.get(key, resource) or _State()
        # Before its pods are looked through, of which a job may have a thousand.
        if state.skip > 0:
            state.skip -= 1
            return
        chief = self._chief(key, resource)
        if chief is None:
            return
        self._states.put(key, resource, state)
        async with self._slots:
            progress, reachable = await self._figures(chief, attempt_of(resource))
        if progress is None:
            # A pod nobody can reach must not take a slot in every round; a program that answers
            # may yet begin to write figures.
            state.failures = 1 if reachable else state.failures + 1
            skip = 2 ** min(state.failures - 1, 10) - 1
            state.skip = 1 if reachable else min(MAX_SKIPPED_ROUNDS, skip)
            return
        if progress.ignored and progress.ignored != state.ignored:
            state.ignored = progress.ignored
            _log.warning(
                "%s is no time in seconds since 1970; it is ignored",
                progress.ignored,
                extra={"key": key},
            )
        state.progress = progress
        state.attempt = attempt_of(resource)
        state.failures = 0
        if time.monotonic() - state.notified >= self._report_interval:
            state.notified = time.monotonic()
            self._notify(key)

    async def _figures(self, pod: PodView, attempt: int) -> tuple[Progress | None, bool]:
        """The figures, and whether anybody was there to ask."""
        ip = pod.ip or ""
        text = await self._probe.metrics(ip)
        now = datetime.now(UTC)
        progress = from_metrics(text, now) if text is not None else None
        if progress is not None:
            return progress, True
        report = await self._probe.report(ip, pod.uid)
        if report is None:
            return None, False
        # A launcher still reports the attempt before while its ranks start.
        if report.attempt != attempt or (report.step is None and not report.metrics):
            return None, True
        return from_report(report, now), True

    def _chief(self, key: Key, resource: Json) -> PodView | None:
        """The pod with rank 0, if the job runs."""
        for raw in self._pods.pods(key):
            pod = view(raw)
            if pod is not None and wants_progress(resource, pod):
                return pod
        return None
