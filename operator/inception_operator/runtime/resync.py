"""Compares every minute what kopf's watch has told us with what the API server says.

It finds jobs that vanished while the watch was broken: kopf lists again after such a gap, but
reports no deletion from it. It also finds a watch that is open but delivers nothing, which ends the
process: a new one starts from a fresh list.

The API server is asked for what has changed since the last comparison, by a short watch of our own,
so jobs that nobody changes cost nothing. Now and then all are listed. Only metadata is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing

from inception_operator.contract.errors import ApiError, StalledWatchError
from inception_operator.contract.types import Json

from .client import JOBS, Client
from .job_cache import JobCache
from .objects import key_of, uid_of, version_of
from .workqueue import Key

GRACE_SECONDS = 15.0
"""How long an event may take from the API server to the cache; later the watch has stalled."""

LIST_EVERY = 10
"""Of so many comparisons one is with a list, whatever the watches say."""
LOOK_SECONDS = 2
"""How long the API server may take to tell what has changed."""

_log = logging.getLogger(__name__)

Listed = Mapping[Key, tuple[str, int]]
"""UID and resourceVersion of each job in a list."""
Versions = dict[str | None, str]
"""How far each namespace has been compared; the key None is for all namespaces together."""


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
        self._versions: Versions = {}
        self._comparisons = 0

    def leave_out(self, namespaces: Collection[str]) -> None:
        """Compare all but these; to be said before `run`."""
        self._namespaces = tuple(name for name in self._namespaces if name not in namespaces)

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
        found = None
        if self._comparisons % LIST_EVERY:
            found = await self._changes()
        if found is None:
            found = await self._list()
        told, versions = found
        missed = self._missed(told)
        if missed:
            # Most likely the events are on their way: we may have asked a faster server.
            await asyncio.sleep(GRACE_SECONDS)
            missed = self._missed(missed)
        if missed:
            # Nor does kopf tell of a job that has gone since, if its watch was broken just then.
            told, versions = await self._list()
            missed = {key: job for key, job in missed.items() if _is_among(told, key, job)}
        if missed:
            example = "/".join(min(missed))
            raise StalledWatchError(
                f"the watch misses changes of {len(missed)} jobs, {example} among them"
            )
        # Only now: what an error has cut short is asked for once more.
        self._versions = versions
        self._comparisons += 1
        self._proven = self._clock()

    async def _changes(self) -> tuple[Listed, Versions] | None:
        """What has changed since the last comparison; None when only a list can tell."""
        changed: dict[Key, tuple[str, int]] = {}
        versions: Versions = {}
        try:
            for namespace in self._namespaces:
                versions[namespace] = await self._follow(namespace, changed)
        except ApiError as error:
            # The API server may have forgotten what was before, and a list needs no memory.
            _log.debug("all jobs are listed: %s", error)
            self._comparisons = 0
            return None
        return changed, versions

    async def _follow(self, namespace: str | None, changed: dict[Key, tuple[str, int]]) -> str:
        """Fill in what has changed in a namespace; returns how far that goes."""
        version = self._versions[namespace]
        query = {"resourceVersion": version, "timeoutSeconds": str(LOOK_SECONDS)}
        events = self._client.watch(
            JOBS, query, GRACE_SECONDS, namespace=namespace, metadata_only=True
        )
        async with aclosing(events):
            async for event in events:
                raw = event["object"]
                version = str(raw["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK" or not self._jobs.owns(key_of(raw)):
                    continue
                if event["type"] == "DELETED":
                    changed.pop(key_of(raw), None)
                    self._forget(raw)
                else:
                    changed[key_of(raw)] = (uid_of(raw), version_of(raw))
        return version

    def _forget(self, raw: Json) -> None:
        """Drop a job that is gone, if its deletion has not been heard of."""
        if self._jobs.forget(key_of(raw), uid_of(raw)):
            _log.info("vanished without an event", extra={"key": key_of(raw)})
            self._notify(key_of(raw))

    def _missed(self, listed: Listed) -> Listed:
        return {
            key: (uid, version)
            for key, (uid, version) in listed.items()
            if not self._jobs.has_seen(key, uid, version)
        }

    async def _list(self) -> tuple[Listed, Versions]:
        """All jobs; those that are not among them are dropped."""
        listed: dict[Key, tuple[str, int]] = {}
        versions: Versions = {}
        for namespace in self._namespaces:
            versions[namespace] = await self._list_namespace(namespace, listed)
        # Lists of several namespaces are taken one after the other: the oldest one counts.
        oldest = min(int(version) for version in versions.values())
        for key in self._jobs:
            resource = self._jobs.get(key)
            # One that is newer than the list was made after it was taken.
            if resource is not None and key not in listed and version_of(resource) <= oldest:
                self._forget(resource)
        return listed, versions

    async def _list_namespace(
        self, namespace: str | None, listed: dict[Key, tuple[str, int]]
    ) -> str:
        version = ""
        pages = self._client.list_pages(JOBS, {}, metadata_only=True, namespace=namespace)
        async with aclosing(pages):
            async for page in pages:
                # The API server writes null for an empty list of metadata.
                for raw in page["items"] or ():
                    if self._jobs.owns(key_of(raw)):
                        listed[key_of(raw)] = (uid_of(raw), version_of(raw))
                version = str(page["metadata"]["resourceVersion"])
        return version


def _is_among(listed: Listed, key: Key, job: tuple[str, int]) -> bool:
    """Whether this very job is in the list, in whatever version."""
    uid, _ = job
    return key in listed and listed[key][0] == uid
