"""The pods of all watched namespaces, from one reflector for the cluster or one per namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.contract.types import Json, VanishedPod

from .client import Client
from .containment import Containment
from .reflector import PodReflector
from .workqueue import Key


class PodCache:
    """Hands each question to the reflector of its namespace; no ``namespaces`` means all.

    One watch per namespace, because a Role lets nobody watch across namespaces.
    """

    def __init__(
        self,
        client: Client,
        notify: Callable[[Key], None],
        containment: Containment,
        namespaces: Sequence[str] = (),
        shard: Shard = ALL_JOBS,
    ) -> None:
        self._reflectors: dict[str | None, PodReflector] = {
            namespace: PodReflector(client, notify, containment, namespace=namespace, shard=shard)
            for namespace in (namespaces or (None,))
        }

    def leave_out(self, namespaces: Collection[str]) -> None:
        """Watch all but these; to be said before `run`."""
        for namespace in namespaces:
            del self._reflectors[namespace]

    def pods(self, key: Key) -> tuple[Json, ...]:
        """The trimmed pods of one job."""
        reflector = self._reflectors.get(None) or self._reflectors.get(key[0])
        # Of a namespace that is not watched a stranger may ask, who notifies.
        return () if reflector is None else reflector.pods(key)

    def jobs_on(self, nodes: Collection[str]) -> set[Key]:
        """The jobs with pods on these nodes."""
        return {key for each in self._reflectors.values() for key in each.jobs_on(nodes)}

    def gone(self, key: Key) -> Mapping[int, VanishedPod]:
        """The latest pod of each slot of a job that vanished."""
        return self._reflector_of(key[0]).gone(key)

    def ran_before(self, key: Key, uid: str) -> bool:
        """Whether a pod of a job ran, or had ended, when this process first saw it."""
        return self._reflector_of(key[0]).ran_before(uid)

    def merge(self, raw: Json) -> None:
        """Take over a pod from the answer to our own write."""
        # The answer to a delete may be a Status instead of the Pod.
        if raw.get("kind", "Pod") == "Pod":
            self._reflector_of(raw["metadata"]["namespace"]).merge(raw)

    def remove(self, key: Key, name: str, uid: str) -> None:
        """Forget a pod that the API server says is gone."""
        self._reflector_of(key[0]).remove(key, name, uid)

    @property
    def age(self) -> float:
        """Seconds since the quietest watch showed a sign of life."""
        return max(reflector.age for reflector in self._reflectors.values())

    @property
    def unsynced(self) -> str | None:
        """A namespace, in words, whose pods have not been listed yet; None when all have been."""
        for namespace, reflector in self._reflectors.items():
            if not reflector.synced.is_set():
                return f"namespace {namespace}" if namespace else "all namespaces"
        return None

    async def wait_synced(self) -> None:
        """Wait until every namespace has been listed once."""
        for reflector in self._reflectors.values():
            await reflector.synced.wait()

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace, reflector in self._reflectors.items():
                group.create_task(reflector.run(), name=f"pods-{namespace or 'all'}")

    def _reflector_of(self, namespace: str) -> PodReflector:
        return self._reflectors.get(None) or self._reflectors[namespace]
