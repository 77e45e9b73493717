"""The latest known version of every training: from kopf's watch, our own list and the answers to
our own writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from inception_operator.contract.types import Json

from .workqueue import Key

TOMBSTONES = 5_000


class JobCache:
    """Trainings by key. An older version never replaces a newer one, and a deleted object never
    comes back.
    """

    def __init__(self) -> None:
        self._jobs: dict[Key, Json] = {}
        self._dead: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._jobs))

    def get(self, key: Key) -> Json | None:
        """The training, without its managedFields."""
        return self._jobs.get(key)

    def values(self) -> tuple[Json, ...]:
        """All trainings, as of now."""
        return tuple(self._jobs.values())

    def knows(self, key: Key, uid: str, version: int) -> bool:
        """Whether this version, or a later one, or the end of this very object has been seen."""
        known = self._jobs.get(key)
        return uid in self._dead or (known is not None and version_of(known) >= version)

    def update(self, raw: Json) -> bool:
        """Take over ``raw`` if it is news; True if it was."""
        metadata = raw["metadata"]
        if metadata["uid"] in self._dead:
            return False
        key = key_of(raw)
        known = self._jobs.get(key)
        if known is not None and version_of(known) >= version_of(raw):
            return False
        self._jobs[key] = {
            **raw,
            "metadata": {
                name: value for name, value in metadata.items() if name != "managedFields"
            },
        }
        return True

    def forget(self, key: Key, uid: str | None = None) -> bool:
        """Drop a training; with ``uid`` only if it is still that very object. True if it was known."""
        known = self._jobs.get(key)
        if uid is not None:
            self._bury(uid)
        if known is None or (uid is not None and known["metadata"]["uid"] != uid):
            return False
        del self._jobs[key]
        return True

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            del self._dead[next(iter(self._dead))]


def key_of(raw: Json) -> Key:
    """Namespace and name of an object."""
    return str(raw["metadata"]["namespace"]), str(raw["metadata"]["name"])


def version_of(raw: Json) -> int:
    """The resourceVersion as a number: it grows with every change of any object of the kind."""
    return int(raw["metadata"]["resourceVersion"])
