"""Looks at every running job, round after round: what the readers of figures and of ranks share."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from inception_operator.contract.types import Json

from .containment import Containment, Where
from .job_cache import JobCache
from .objects import PerJob
from .pod_cache import PodCache
from .probe import Probe
from .workqueue import Key

CONCURRENCY: Final = 32
MAX_SKIPPED_ROUNDS: Final = 12


S = TypeVar("S")


class Rounds(ABC, Generic[S]):
    """One look at each running job in every ``interval`` seconds, none of which can end another.

    ``S`` is what is kept about a job from one look to the next.
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
    ) -> None:
        self._jobs = jobs
        self._pods = pods
        self._probe = probe
        self._notify = notify
        self._containment = containment
        self._interval = interval
        self._states = PerJob[S]()
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def forget(self, key: Key) -> None:
        """Drop what was kept about a job that is gone."""
        self._states.drop(key)

    @abstractmethod
    async def look(self, key: Key) -> object:
        """Look at one job, unless it is left out in this round."""

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            started = time.monotonic()
            await self.look_at_all()
            left = self._interval - (time.monotonic() - started)
            # A round that took too long is followed by a short pause, never by none.
            await asyncio.sleep(max(self._interval / 10, left))

    async def look_at_all(self) -> None:
        """One round over all running jobs."""
        # Of jobs that wait or have ended not even a task is made.
        await asyncio.gather(*(self._look_contained(key) for key in self._jobs.running()))

    async def _look_contained(self, key: Key) -> None:
        with self._containment.contain(key, Where.SCRAPE):
            await self.look(key)


def attempt_of(resource: Json) -> int:
    """The attempt in the status of a job, 0 before the first."""
    return int((resource.get("status") or {}).get("attempt") or 0)
