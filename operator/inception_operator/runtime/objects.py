"""What the metadata of every API object tells, what is kept about each job, and a bounded memory of
objects that are gone.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Generic, TypeVar

from inception_operator.contract.types import Json

from .workqueue import Key

T = TypeVar("T")


def key_of(raw: Json) -> Key:
    """Namespace and name of an object."""
    return str(raw["metadata"]["namespace"]), name_of(raw)


def name_of(raw: Json) -> str:
    """Name of an object."""
    return str(raw["metadata"]["name"])


def uid_of(raw: Json) -> str:
    """The UID, which tells an object from a successor of the same name."""
    return str(raw["metadata"]["uid"])


def version_of(raw: Json) -> int:
    """The resourceVersion as a number.

    It is etcd's revision, which grows with every change of any object: so versions of one kind can
    be compared, between objects too.
    """
    return int(raw["metadata"]["resourceVersion"])


class PerJob(Generic[T]):
    """A value for each job. It belongs to the object with this UID: one that is made anew under the
    same name has none yet.
    """

    def __init__(self) -> None:
        self._values: dict[Key, tuple[str, T]] = {}

    def keys(self) -> Set[Key]:
        """The jobs with a value."""
        return self._values.keys()

    def get(self, key: Key, resource: Json) -> T | None:
        """The value of this very job."""
        uid, value = self._values.get(key, ("", None))
        return value if uid == uid_of(resource) else None

    def put(self, key: Key, resource: Json, value: T) -> None:
        """Keep a value."""
        self._values[key] = uid_of(resource), value

    def drop(self, key: Key) -> None:
        """Forget the value of a job, if it has one."""
        self._values.pop(key, None)


class Tombstones:
    """UIDs of deleted objects, the latest ``limit`` of them.

    Watch events and answers to our own writes arrive in any order: without this the answer to a
    patch would bring back an object whose deletion the watch has reported already.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A dict keeps the order of insertion, so its first key is the oldest.
        self._uids: dict[str, None] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def add(self, uid: str) -> None:
        """Remember that this object is gone."""
        self._uids[uid] = None
        if len(self._uids) > self._limit:
            del self._uids[next(iter(self._uids))]
