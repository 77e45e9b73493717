"""The pods of all watched namespaces: one reflector over the whole cluster, or one in each
namespace of a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from inception_operator.contract.types import Json, VanishedPod

from .reflector import PodReflector
from .workqueue import Key


class Pods(Protocol):
    """A view of pods by training, which takes over the answers to our own writes."""

    def pods(self, key: Key) -> tuple[Json, ...]:
        """The trimmed pods of one training."""

    def gone(self, key: Key) -> Mapping[int, VanishedPod]:
        """The latest pod of each slot that vanished."""

    def merge(self, raw: Json) -> None:
        """Take over a pod."""

    def remove(self, key: Key, name: str, uid: str) -> None:
        """Forget a pod."""


class PodCache:
    """Hands each question to the reflector of its namespace. No namespaces means all."""

    def __init__(
        self, reflector: Callable[[str | None], PodReflector], namespaces: Sequence[str] = ()
    ) -> None:
        self._reflectors = {scope: reflector(scope) for scope in (namespaces or (None,))}

    def pods(self, key: Key) -> tuple[Json, ...]:
        """The trimmed pods of one training."""
        return self._of(key[0]).pods(key)

    def gone(self, key: Key) -> Mapping[int, VanishedPod]:
        """The latest pod of each slot that vanished."""
        return self._of(key[0]).gone(key)

    def merge(self, raw: Json) -> None:
        """Take over a pod from the answer to our own write."""
        if raw.get("kind", "Pod") == "Pod":
            self._of(raw["metadata"]["namespace"]).merge(raw)

    def remove(self, key: Key, name: str, uid: str) -> None:
        """Forget a pod that the API server says is gone."""
        self._of(key[0]).remove(key, name, uid)

    @property
    def age(self) -> float:
        """Seconds since the quietest watch showed a sign of life."""
        return max(reflector.age for reflector in self._reflectors.values())

    @property
    def unsynced(self) -> str | None:
        """A scope whose pods have never been listed, for people."""
        missing = [
            scope for scope, reflector in self._reflectors.items() if not reflector.synced.is_set()
        ]
        return (
            None if not missing else f"namespace {missing[0]}" if missing[0] else "all namespaces"
        )

    async def wait_synced(self) -> None:
        """Wait until every scope has been listed once."""
        for reflector in self._reflectors.values():
            await reflector.synced.wait()

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for scope, reflector in self._reflectors.items():
                group.create_task(reflector.run(), name=f"pods-{scope or 'all'}")

    def _of(self, namespace: str) -> PodReflector:
        return self._reflectors.get(None) or self._reflectors[namespace]
