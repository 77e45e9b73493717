"""Keeps a trimmed copy of every pod of ours by list and watch (`list_watch`).

A relist replaces the view and reports what vanished meanwhile, which kopf does not do. Answers to
our own writes are merged at once, so a decision never rests on a view older than what this process
has done itself. Every change becomes the key of the pod's job (`workqueue`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing

from typing_extensions import override

from inception_operator.contract import names
from inception_operator.contract.errors import ApiError
from inception_operator.contract.names import Phase
from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.contract.types import Json, VanishedPod
from inception_operator.pod.identity import identity
from inception_operator.pod.view import trim_pod

from .client import PODS, Client
from .containment import Containment, Where
from .list_watch import ListWatch
from .objects import Tombstones, key_of, name_of, uid_of, version_of
from .workqueue import Key

SELECTOR = f"{names.LABEL_ROLE}={names.ROLE_WORKER}"
STRAYS = f"{names.LABEL_JOB},{names.LABEL_ROLE}!={names.ROLE_WORKER}"
"""Selector of pods with our job label but without the role label, which somebody removed by hand.
The watch cannot see them; a relist finds them.
"""
TOMBSTONES = 20_000


class PodReflector(ListWatch):
    """The pods of all jobs of one namespace, or of all namespaces, by job.

    Those of other shards' jobs are dropped when they arrive.
    """

    def __init__(
        self,
        client: Client,
        notify: Callable[[Key], None],
        containment: Containment,
        *,
        namespace: str | None = None,
        shard: Shard = ALL_JOBS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        query = {"labelSelector": SELECTOR}
        super().__init__(client, PODS, query, namespace=namespace, clock=clock)
        self._notify = notify
        self._containment = containment
        self._shard = shard
        self._pods: dict[Key, dict[str, Json]] = {}
        self._deleted = Tombstones(TOMBSTONES)
        self._gone: dict[Key, dict[int, VanishedPod]] = {}
        self._ran_before: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self.synced = asyncio.Event()

    def pods(self, key: Key) -> tuple[Json, ...]:
        """The trimmed pods of one job."""
        return tuple(self._pods.get(key, {}).values())

    def jobs_on(self, nodes: Collection[str]) -> set[Key]:
        """The jobs with pods on these nodes."""
        return {
            key
            for key, pods in self._pods.items()
            if any(pod["spec"].get("nodeName") in nodes for pod in pods.values())
        }

    def gone(self, key: Key) -> Mapping[int, VanishedPod]:
        """The latest pod of each slot that vanished while this process watched."""
        return self._gone.get(key, {})

    def ran_before(self, uid: str) -> bool:
        """Whether the pod ran, or had ended, when this process first saw it."""
        return uid in self._ran_before

    def merge(self, raw: Json) -> None:
        """Take over a pod from the answer to our own write.

        The watch's event about that write is then no news, so it costs no decision.
        """
        if raw.get("kind", "Pod") == "Pod" and uid_of(raw) not in self._deleted:
            self._store(raw)

    def remove(self, key: Key, name: str, uid: str) -> None:
        """Forget a pod that the API server says is gone."""
        self._deleted.add(uid)
        cached = self._pods.get(key, {}).get(name)
        if cached is not None and uid_of(cached) == uid:
            self._drop(key, name)

    async def run(self) -> None:
        """List and watch until cancelled; errors are retried with a growing pause."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._list_and_watch()

    @override
    async def _relist(self) -> str:
        listed: dict[Key, dict[str, Json]] = {}
        # Strays first: a pod that gets its role back between the two lists is then in both.
        await self._list(STRAYS, listed)
        version = await self._list(SELECTOR, listed)
        self._replace(listed, int(version))
        self.synced.set()
        return version

    async def _list(self, selector: str, listed: dict[Key, dict[str, Json]]) -> str:
        version = ""
        query = {"labelSelector": selector}
        pages = self._client.list_pages(PODS, query, namespace=self._namespace)
        async with aclosing(pages):
            async for page in pages:
                for raw in page["items"]:
                    with self._containment.contain(key_of(raw), Where.POD):
                        key = self._job_key_of(raw)
                        if key is not None:
                            pod = trim_pod(raw)
                            listed.setdefault(key, {})[name_of(pod)] = pod
                version = str(page["metadata"]["resourceVersion"])
        return version

    def _replace(self, listed: dict[Key, dict[str, Json]], version: int) -> None:
        changed: set[Key] = set()
        for key, pods in list(self._pods.items()):
            for name, pod in list(pods.items()):
                # What we wrote after the list was taken is not in it; the watch from there on
                # confirms it.
                if version_of(pod) > version:
                    continue
                fresh = listed.get(key, {}).get(name)
                if fresh is None or uid_of(fresh) != uid_of(pod):
                    self._deleted.add(uid_of(pod))
                    self._drop(key, name)
                    changed.add(key)
        for key, pods in listed.items():
            for pod in pods.values():
                if self._store_trimmed(key, pod):
                    changed.add(key)
        # Only now: a decision in between would rest on half of the new view.
        for key in changed:
            self._notify(key)

    @override
    def _take(self, event_type: str, raw: Json) -> None:
        with self._containment.contain(key_of(raw), Where.POD):
            self._take_pod(event_type, raw)

    def _take_pod(self, event_type: str, raw: Json) -> None:
        if event_type == "DELETED":
            # A watch with a selector says DELETED also when an object no longer matches it: the
            # pod has vanished, or somebody took its role label away.
            ordered = "deletionTimestamp" in raw["metadata"]
            if ordered or self._group is None:
                self._forget(raw)
            elif self._job_key_of(raw) is not None:
                self._group.create_task(self._look_again(raw), name=f"look-for-{name_of(raw)}")
        else:
            key = self._store(raw)
            if key is not None:
                self._notify(key)

    def _store(self, raw: Json) -> Key | None:
        """Keep a pod if it is news; returns the key of its job if it was."""
        key = self._job_key_of(raw)
        if key is None:
            return None
        return key if self._store_trimmed(key, trim_pod(raw)) else None

    def _store_trimmed(self, key: Key, pod: Json) -> bool:
        """Keep ``pod`` if it is newer than what is cached; True if a decision may differ by it."""
        pods = self._pods.setdefault(key, {})
        cached = pods.get(name_of(pod))
        if cached is not None and version_of(cached) >= version_of(pod):
            return False
        is_first = cached is None or uid_of(cached) != uid_of(pod)
        if is_first and (pod["status"].get("phase") or Phase.PENDING) != Phase.PENDING:
            self._ran_before.add(uid_of(pod))
        if is_first and cached is not None:
            self._ran_before.discard(uid_of(cached))
        pods[name_of(pod)] = pod
        # Network plug-ins and others write into pods what no decision reads.
        return cached is None or not _is_same(cached, pod)

    async def _look_again(self, raw: Json) -> None:
        with self._containment.contain(key_of(raw), Where.POD):
            await self._look_for(raw)

    async def _look_for(self, raw: Json) -> None:
        """Forget a pod that left the watch, unless it still exists."""
        try:
            current = await self._client.get(PODS, raw["metadata"]["namespace"], name_of(raw))
        except ApiError:
            # Gone, or nobody knows: a pod that does exist comes back with the next list.
            self._forget(raw)
            return
        if uid_of(current) != uid_of(raw):
            self._forget(raw)
        elif (key := self._store(current)) is not None:
            self._notify(key)

    def _forget(self, raw: Json) -> None:
        key = self._job_key_of(raw)
        if key is None:
            return
        uid = uid_of(raw)
        self._deleted.add(uid)
        cached = self._pods.get(key, {}).get(name_of(raw))
        if cached is not None and uid_of(cached) == uid:
            self._drop(key, name_of(raw))
        self._notify(key)

    def _drop(self, key: Key, name: str) -> None:
        pod = self._pods[key].pop(name)
        self._ran_before.discard(uid_of(pod))
        self._remember(key, pod)
        if not self._pods[key]:
            del self._pods[key]

    def _remember(self, key: Key, pod: Json) -> None:
        """Keep name and node of the latest pod of a slot: the root cause of its attempt names them.

        Deleted pods take their status with them, so nothing else is left to name.
        """
        parts = identity(name_of(pod))
        if parts is None:
            return
        _, slot, incarnation = parts
        owners = pod["metadata"].get("ownerReferences") or [{}]
        seen = VanishedPod(
            name_of(pod), incarnation, pod["spec"].get("nodeName"), owners[0].get("uid")
        )
        slots = self._gone.setdefault(key, {})
        last = slots.get(slot)
        # A job made anew under the name of another one begins with the first incarnation again.
        if last is None or last.owner != seen.owner or last.incarnation <= incarnation:
            slots[slot] = seen
        if len(self._gone) > TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    def _job_key_of(self, pod: Json) -> Key | None:
        """The job that a pod's name says it is of, if that is one of this shard's.

        Labels can be changed by anybody, names cannot.
        """
        parts = identity(name_of(pod))
        if parts is None:
            return None
        key = (str(pod["metadata"]["namespace"]), parts[0])
        return key if self._shard.owns(key) else None


def _is_same(cached: Json, pod: Json) -> bool:
    """Whether two versions of a pod differ in nothing that is kept of them."""
    version = {"resourceVersion": ""}
    return {**cached, "metadata": cached["metadata"] | version} == {
        **pod,
        "metadata": pod["metadata"] | version,
    }
