"""Keeps a trimmed copy of every pod of ours by list and watch, and says which training each change
belongs to.

The relist replaces the view and reports what vanished meanwhile, which kopf does not do. Answers to
our own writes are merged at once, so a decision never rests on a view older than what this process
has done itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from inception_operator.contract import names
from inception_operator.contract.errors import ApiError, GoneError
from inception_operator.contract.types import Json, VanishedPod
from inception_operator.pod.identity import identity

from .client import PODS, Resource
from .workqueue import Key

SELECTOR = f"{names.LABEL_ROLE}={names.ROLE_WORKER}"
STRAYS = f"{names.LABEL_JOB},{names.LABEL_ROLE}!={names.ROLE_WORKER}"
"""Pods of ours whose role somebody took away while nobody watched."""
IDLE_SECONDS = 90.0
"""The API server sends a bookmark about once a minute; longer silence means a dead connection."""
WATCH_SECONDS = 300
MAX_BACKOFF = 30.0
RECONNECT_PAUSE = 0.05
TOMBSTONES = 20_000

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What the reflector needs of the client."""

    async def list_page(
        self,
        resource: Resource,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
    ) -> Json:
        """One page of a list."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object."""

    def watch(
        self,
        resource: Resource,
        query: Mapping[str, str],
        idle: float,
        namespace: str | None = None,
    ) -> AsyncGenerator[Json, None]:
        """Watch events until the server ends the stream."""


class PodReflector:
    """The pods of all trainings of one namespace, or of all namespaces, by training."""

    def __init__(
        self,
        source: Source,
        trim: Callable[[Json], Json],
        notify: Callable[[Key], None],
        *,
        namespace: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._trim = trim
        self._notify = notify
        self._namespace = namespace
        self._clock = clock
        self._sleep = sleep
        self._pods: dict[Key, dict[str, Json]] = {}
        self._dead: dict[str, None] = {}
        self._gone: dict[Key, dict[int, VanishedPod]] = {}
        self._moved = clock()
        self._version: str | None = None
        self._failures = 0
        self._group: asyncio.TaskGroup | None = None
        self.synced = asyncio.Event()

    def pods(self, key: Key) -> tuple[Json, ...]:
        """The trimmed pods of one training."""
        return tuple(self._pods.get(key, {}).values())

    def gone(self, key: Key) -> Mapping[int, VanishedPod]:
        """The latest pod of each slot that vanished while this process watched."""
        return self._gone.get(key, {})

    @property
    def age(self) -> float:
        """Seconds since the watch showed a sign of life."""
        return self._clock() - self._moved

    def merge(self, raw: Json) -> None:
        """Take over a pod from the answer to our own write; the watch will not report it as a
        change again.
        """
        if raw.get("kind", "Pod") == "Pod" and raw["metadata"]["uid"] not in self._dead:
            self._store(raw)

    def remove(self, key: Key, name: str, uid: str) -> None:
        """Forget a pod that the API server says is gone."""
        self._bury(uid)
        known = self._pods.get(key, {}).get(name)
        if known is not None and _uid(known) == uid:
            self._drop(key, name)

    async def run(self) -> None:
        """List and watch until cancelled; errors are retried with a growing pause."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._list_and_watch()

    async def _list_and_watch(self) -> None:
        while True:
            try:
                if self._version is None:
                    self._version = await self._relist()
                await self._follow(self._version)
                await self._sleep(RECONNECT_PAUSE)
            except GoneError as error:
                _log.info("the pod watch starts anew: %s", error)
                self._version = None
            except ApiError as error:
                pause = max(self._pause(), error.retry_after or 0.0)
                _log.warning("the pod watch is broken, again in %.1f s: %s", pause, error)
                await self._sleep(pause)

    def _pause(self) -> float:
        pause = min(MAX_BACKOFF, 0.2 * 2.0 ** min(self._failures, 20))
        self._failures += 1
        return pause * (0.75 + 0.25 * random.random())  # noqa: S311

    async def _relist(self) -> str:
        """Replace the view by a list and report every difference; returns the version to watch
        from.
        """
        listed: dict[Key, dict[str, Json]] = {}
        # Strays first: what gets its role back in between is in both.
        await self._list(STRAYS, listed)
        version = await self._list(SELECTOR, listed)
        self._replace(listed, version)
        self._moved = self._clock()
        self.synced.set()
        return version

    async def _list(self, selector: str, listed: dict[Key, dict[str, Json]]) -> str:
        token = ""
        while True:
            page = await self._source.list_page(
                PODS, {"labelSelector": selector}, token, namespace=self._namespace
            )
            for raw in page["items"]:
                pod = self._trim(raw)
                if (key := _key(pod)) is not None:
                    listed.setdefault(key, {})[_name(pod)] = pod
            token = page["metadata"].get("continue") or ""
            if not token:
                return str(page["metadata"]["resourceVersion"])

    def _replace(self, listed: dict[Key, dict[str, Json]], version: str) -> None:
        changed = set()
        for key, pods in list(self._pods.items()):
            for name, pod in list(pods.items()):
                fresh = listed.get(key, {}).get(name)
                # What we wrote after the list was taken is not in it; the watch from there on
                # confirms it.
                if _version(pod) > int(version):
                    continue
                if fresh is None or _uid(fresh) != _uid(pod):
                    self._bury(_uid(pod))
                    self._drop(key, name)
                    changed.add(key)
        for key, pods in listed.items():
            for pod in pods.values():
                if self._store_trimmed(key, pod):
                    changed.add(key)
        for key in changed:
            self._notify(key)

    async def _follow(self, version: str) -> None:
        """Apply watch events until the server ends the stream."""
        seconds = int(WATCH_SECONDS * (0.9 + 0.2 * random.random()))  # noqa: S311
        query = {
            "labelSelector": SELECTOR,
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        async with aclosing(
            self._source.watch(PODS, query, IDLE_SECONDS, self._namespace)
        ) as events:
            async for event in events:
                self._take(event["type"], event["object"])
                self._version = event["object"]["metadata"]["resourceVersion"]
                self._moved = self._clock()
                self._failures = 0
        self._moved = self._clock()

    def _take(self, kind: str, raw: Json) -> None:
        if (
            kind == "DELETED"
            and "deletionTimestamp" not in raw["metadata"]
            and self._group is not None
        ):
            # VanishedPod, or only out of sight because somebody took its role away.
            self._group.create_task(self._look_for(raw), name=f"look-for-{_name(raw)}")
        elif kind == "DELETED":
            self._deleted(raw)
        elif kind != "BOOKMARK":
            key = self._store(raw)
            if key is not None:
                self._notify(key)

    def _store(self, raw: Json) -> Key | None:
        pod = self._trim(raw)
        key = _key(pod)
        return key if key is not None and self._store_trimmed(key, pod) else None

    def _store_trimmed(self, key: Key, pod: Json) -> bool:
        """Keep ``pod`` if it is newer than what is known; True if it was."""
        known = self._pods.setdefault(key, {})
        old = known.get(_name(pod))
        if old is not None and _version(old) >= _version(pod):
            return False
        known[_name(pod)] = pod
        return True

    async def _look_for(self, raw: Json) -> None:
        """Forget a pod that vanished, unless it is still there."""
        metadata = raw["metadata"]
        try:
            found = await self._source.get(PODS, metadata["namespace"], metadata["name"])
        except ApiError:
            found = raw
        if found is raw or _uid(found) != _uid(raw):
            self._deleted(raw)
        elif (key := self._store(found)) is not None:
            self._notify(key)

    def _deleted(self, raw: Json) -> None:
        uid = raw["metadata"]["uid"]
        self._bury(uid)
        pod = self._trim(raw)
        key = _key(pod)
        if key is None:
            return
        known = self._pods.get(key, {}).get(_name(pod))
        if known is not None and _uid(known) == uid:
            self._drop(key, _name(pod))
        self._notify(key)

    def _drop(self, key: Key, name: str) -> None:
        self._remember(key, self._pods[key].pop(name))
        if not self._pods[key]:
            del self._pods[key]

    def _remember(self, key: Key, pod: Json) -> None:
        """Keep name and node of the latest pod of a slot, for the root cause of the attempt that it
        leaves behind.
        """
        named = identity(_name(pod))
        if named is None:
            return
        slots = self._gone.setdefault(key, {})
        known = slots.get(named[1])
        if known is None or known.incarnation <= named[2]:
            slots[named[1]] = VanishedPod(_name(pod), named[2], pod["spec"].get("nodeName"))
        if len(self._gone) > TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    def _bury(self, uid: str) -> None:
        """Remember a dead pod for a while: the answer to our own delete may arrive after the watch
        reported its end.
        """
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            del self._dead[next(iter(self._dead))]


def _key(pod: Json) -> Key | None:
    metadata = pod["metadata"]
    named = identity(metadata["name"])
    return (metadata["namespace"], named[0]) if named else None


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def _uid(pod: Json) -> str:
    return str(pod["metadata"]["uid"])


def _version(pod: Json) -> int:
    return int(pod["metadata"]["resourceVersion"])
