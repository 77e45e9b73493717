"""Compares what kopf's watch told us with a list of our own.

It finds trainings that vanished while the watch was broken, which kopf never reports, and a watch
that is open but deaf, which ends the process: a new one starts from a fresh list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from inception_operator.contract.errors import ApiError, StalledWatchError
from inception_operator.contract.types import Json

from .client import JOBS, Resource
from .job_cache import JobCache, key_of, version_of
from .workqueue import Key

GRACE_SECONDS = 15.0

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What this needs of the client."""

    async def list_page(
        self,
        resource: Resource,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
    ) -> Json:
        """One page of a list."""


class Resync:
    """The periodic comparison; ``age`` is how long ago the watch was last known to be complete."""

    def __init__(
        self,
        source: Source,
        jobs: JobCache,
        notify: Callable[[Key], None],
        *,
        interval: float,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._jobs = jobs
        self._notify = notify
        self._interval = interval
        self._scopes: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._clock = clock
        self._sleep = sleep
        self._proven = clock()

    @property
    def age(self) -> float:
        """Seconds since the watch was last known to be complete."""
        return self._clock() - self._proven

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await self._sleep(self._interval)
            try:
                await self.compare()
            except ApiError as error:
                _log.warning("the comparison with a list failed: %s", error)

    async def compare(self) -> None:
        """One comparison; raises StalledWatchError when the watch misses changes for longer than
        events can take.
        """
        listed, version = await self._list()
        for key in self._jobs:
            job = self._jobs.get(key)
            if job is not None and key not in listed and version_of(job) <= version:
                _log.info("vanished without an event", extra={"key": key})
                self._jobs.forget(key, job["metadata"]["uid"])
                self._notify(key)
        missed = self._missed(listed)
        if missed:
            await self._sleep(GRACE_SECONDS)
            missed = self._missed(missed)
        if missed:
            raise StalledWatchError(
                f"the watch misses changes of {len(missed)} trainings, {'/'.join(min(missed))} among them"
            )
        self._proven = self._clock()

    def _missed(self, listed: Mapping[Key, tuple[str, int]]) -> dict[Key, tuple[str, int]]:
        return {
            key: (uid, version)
            for key, (uid, version) in listed.items()
            if not self._jobs.knows(key, uid, version)
        }

    async def _list(self) -> tuple[dict[Key, tuple[str, int]], int]:
        """All trainings, and the version that every one of the lists has reached."""
        listed: dict[Key, tuple[str, int]] = {}
        versions = [await self._list_scope(scope, listed) for scope in self._scopes]
        return listed, min(versions)

    async def _list_scope(self, namespace: str | None, listed: dict[Key, tuple[str, int]]) -> int:
        token = ""
        while True:
            page = await self._source.list_page(
                JOBS, {}, token, metadata_only=True, namespace=namespace
            )
            # The API server writes null for an empty list of metadata.
            for raw in page["items"] or ():
                listed[key_of(raw)] = (raw["metadata"]["uid"], version_of(raw))
            token = page["metadata"].get("continue") or ""
            if not token:
                return int(page["metadata"]["resourceVersion"])
