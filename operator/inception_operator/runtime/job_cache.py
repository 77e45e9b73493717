"""The latest version of every InceptionTraining that this process has seen.

It is fed by kopf's watch (`job_watch`), by a list of our own (`resync`) and by the answers to our
own status writes (`apply`), so a decision never rests on a view older than our last write.
"""

from __future__ import annotations

from collections.abc import Iterator

from inception_operator.contract import conditions
from inception_operator.contract.bounds import bounded
from inception_operator.contract.names import ConditionType
from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.contract.types import Json

from .objects import Tombstones, key_of, uid_of, version_of
from .workqueue import Key

TOMBSTONES = 5_000


class JobCache:
    """Custom resources by key; versions only move forward, and what was deleted stays deleted.

    Jobs of other shards are no news, whatever is told of them, and none of them is kept.
    """

    def __init__(self, shard: Shard = ALL_JOBS) -> None:
        self._shard = shard
        self._resources: dict[Key, Json] = {}
        # A dict, which keeps its order: whoever goes through it takes the jobs one after the other.
        self._running: dict[Key, None] = {}
        self._deleted = Tombstones(TOMBSTONES)

    def __len__(self) -> int:
        return len(self._resources)

    def __iter__(self) -> Iterator[Key]:
        # A copy, because those who iterate wait in between and others write meanwhile.
        return iter(list(self._resources))

    def owns(self, key: Key) -> bool:
        """Whether a job is this process's to run, known or not."""
        return self._shard.owns(key)

    def running(self) -> list[Key]:
        """The jobs that run by their status: what is done to these costs nothing for all others."""
        return list(self._running)

    def get(self, key: Key) -> Json | None:
        """The resource, without its managedFields."""
        return self._resources.get(key)

    def values(self) -> tuple[Json, ...]:
        """All resources, as of now."""
        return tuple(self._resources.values())

    def has_seen(self, key: Key, uid: str, version: int) -> bool:
        """Whether this version of the object, a later one, or its deletion has arrived."""
        if uid in self._deleted:
            return True
        cached = self._resources.get(key)
        return cached is not None and version_of(cached) >= version

    def update(self, resource: Json) -> bool:
        """Keep ``resource`` if it is newer than what is here; True if it was."""
        key = key_of(resource)
        if not self.owns(key) or uid_of(resource) in self._deleted:
            return False
        cached = self._resources.get(key)
        if cached is not None and version_of(cached) >= version_of(resource):
            return False
        # managedFields can be as large as the rest of the object, and nobody here reads them.
        metadata = dict(resource["metadata"])
        metadata.pop("managedFields", None)
        kept = bounded({**resource, "metadata": metadata})
        self._resources[key] = kept
        if _runs(kept):
            self._running[key] = None
        else:
            self._running.pop(key, None)
        return True

    def forget(self, key: Key, uid: str) -> bool:
        """Drop an object for good: its deletion was seen. True if it was here."""
        self._deleted.add(uid)
        return self.drop(key, uid)

    def drop(self, key: Key, uid: str) -> bool:
        """Drop an object that a request of ours did not find; True if it was here.

        Only the watch and lists know for certain, so it may come back from there. A successor of
        the same name stays: it may have arrived while the request was under way.
        """
        cached = self._resources.get(key)
        if cached is None or uid_of(cached) != uid:
            return False
        del self._resources[key]
        self._running.pop(key, None)
        return True


def _runs(resource: Json) -> bool:
    return conditions.is_true(conditions.of(resource), ConditionType.RUNNING)
