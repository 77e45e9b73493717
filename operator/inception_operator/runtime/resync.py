"""Compares every minute what kopf's watch has told us with a list of our own.

It finds jobs that vanished while the watch was broken: kopf lists again after such a gap, but
reports no deletion from it. It also finds a watch that is open but delivers nothing, which ends the
process: a new one starts from a fresh list. Only metadata is listed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from inception_operator.contract.errors import ApiError, StalledWatchError

from .client import JOBS, Client
from .job_cache import JobCache
from .objects import key_of, uid_of, version_of
from .workqueue import Key

GRACE_SECONDS = 15.0
"""How long an event may take from the API server to the cache; later the watch has stalled."""

_log = logging.getLogger(__name__)

Listed = Mapping[Key, tuple[str, int]]
"""UID and resourceVersion of each job in a list."""


class Resync:
    """The periodic comparison; ``interval`` is in seconds, no ``namespaces`` means all."""

    def __init__(
        self,
        client: Client,
        jobs: JobCache,
        notify: Callable[[Key], None],
        *,
        interval: float,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._notify = notify
        self._interval = interval
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._clock = clock
        self._proven = clock()

    @property
    def age(self) -> float:
        """Seconds since the watch was last known to be complete."""
        return self._clock() - self._proven

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.compare()
            except ApiError as error:
                # The age goes on growing, and the liveness probe looks at it.
                _log.warning("the comparison with a list failed: %s", error)

    async def compare(self) -> None:
        """One comparison; raises StalledWatchError when the watch has missed changes."""
        listed, version = await self._list()
        for key in self._jobs:
            resource = self._jobs.get(key)
            # One that is newer than the list was made after it was taken.
            if resource is not None and key not in listed and version_of(resource) <= version:
                _log.info("vanished without an event", extra={"key": key})
                self._jobs.forget(key, uid_of(resource))
                self._notify(key)
        missed = self._missed(listed)
        if missed:
            # Most likely the events are on their way: the list may be newer than the watch.
            await asyncio.sleep(GRACE_SECONDS)
            missed = self._missed(missed)
        if missed:
            example = "/".join(min(missed))
            raise StalledWatchError(
                f"the watch misses changes of {len(missed)} jobs, {example} among them"
            )
        self._proven = self._clock()

    def _missed(self, listed: Listed) -> Listed:
        return {
            key: (uid, version)
            for key, (uid, version) in listed.items()
            if not self._jobs.has_seen(key, uid, version)
        }

    async def _list(self) -> tuple[Listed, int]:
        """All jobs, and the resourceVersion that every one of the lists has reached."""
        listed: dict[Key, tuple[str, int]] = {}
        versions = [await self._list_namespace(name, listed) for name in self._namespaces]
        # Lists of several namespaces are taken one after the other: the oldest one counts.
        return listed, min(versions)

    async def _list_namespace(
        self, namespace: str | None, listed: dict[Key, tuple[str, int]]
    ) -> int:
        version = 0
        pages = self._client.list_pages(JOBS, {}, metadata_only=True, namespace=namespace)
        async with aclosing(pages):
            async for page in pages:
                # The API server writes null for an empty list of metadata.
                for raw in page["items"] or ():
                    listed[key_of(raw)] = (uid_of(raw), version_of(raw))
                version = int(page["metadata"]["resourceVersion"])
        return version
