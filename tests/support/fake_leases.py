"""An API server that has Leases alone, and one process of an election, in fake time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fake_time import now
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ConflictError,
    LeadershipLostError,
    NotFoundError,
    UnavailableError,
)
from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.contract.types import Json
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.fence import Fence
from inception_operator.runtime.leader import Leader
from inception_operator.runtime.settings import Settings


class LeaseServer:
    """The Leases by name; ``check`` is called after each write."""

    def __init__(self) -> None:
        self.leases: dict[str, Json] = {}
        self.writes = 0
        self.check: Callable[[], None] = lambda: None

    def store(self, name: str, body: Json) -> Json:
        """Write a Lease, whatever its version."""
        self.writes += 1
        metadata = {**body.get("metadata", {}), "name": name, "resourceVersion": str(self.writes)}
        self.leases[name] = {**body, "metadata": metadata}
        self.check()
        return self.leases[name]

    def holder(self, name: str) -> str:
        """Who has it; empty for nobody."""
        spec: dict[str, Any] = self.leases.get(name, {}).get("spec") or {}
        return str(spec.get("holderIdentity") or "")


class Connection(Client):
    """One process's way to the server: requests take ``pause`` seconds, half of it each way; none
    arrives while it is ``down``; those that meet a ``frozen`` process wait until it thaws.
    """

    def __init__(self, server: LeaseServer) -> None:
        self._server = server
        self.pause = 0.02
        self.down = False
        self._thawed = asyncio.Event()
        self._thawed.set()

    def freeze(self) -> None:
        """Stop at the next step of a request."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on."""
        self._thawed.set()

    @contextlib.asynccontextmanager
    async def _request(self) -> AsyncIterator[None]:
        await self._way()
        yield
        await self._way()

    async def _way(self) -> None:
        await self._thawed.wait()
        await asyncio.sleep(self.pause / 2)
        if self.down:
            await asyncio.sleep(5)
            raise UnavailableError(503, "down")
        await self._thawed.wait()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        async with self._request():
            if name not in self._server.leases:
                raise NotFoundError(404, "no lease")
            return self._server.leases[name]

    async def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        async with self._request():
            name = body["metadata"]["name"]
            if name in self._server.leases:
                raise AlreadyExistsError(409, "there is one")
            return self._server.store(name, body)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        async with self._request():
            if name not in self._server.leases:
                raise NotFoundError(404, "no lease")
            present = self._server.leases[name]["metadata"]["resourceVersion"]
            if body["metadata"]["resourceVersion"] != present:
                raise ConflictError(409, "changed")
            return self._server.store(name, body)


class Candidate:
    """A process that stands for election until it is told to end, and again after it has lost."""

    def __init__(self, server: LeaseServer, shard: Shard = ALL_JOBS, name: str = "one") -> None:
        self.shard = shard
        self.name = name
        self.connection = Connection(server)
        self.fence = Fence(now)
        self._lives = 0
        self.leader = self._born()
        self.losses: list[str] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def may_write(self) -> bool:
        """Whether a write of it would be sent now."""
        return self.fence.remaining > 0

    def start(self) -> None:
        """Begin to stand for election."""
        self._task = asyncio.create_task(self._live(), name=self.name)

    def kill(self) -> None:
        """End without a word."""
        if self._task is not None:
            self._task.cancel()
        self.fence.close()

    async def drain(self) -> None:
        """End in good order."""
        if self._task is not None:
            self._task.cancel()
        await self.leader.release()
        self.fence.close()

    def _born(self) -> Leader:
        self._lives += 1
        identity = f"{self.name}_{self._lives}"
        settings = Settings(trainer_image="i", identity=identity, shard=self.shard)
        self.fence = Fence(now)
        return Leader(self.connection, settings, self.fence, clock=now)

    async def _live(self) -> None:
        while True:
            try:
                await self.leader.acquire()
                await self.leader.renew()
            except LeadershipLostError as error:
                self.losses.append(str(error))
                # As the kubelet does with a process that has ended.
                await asyncio.sleep(1)
                self.leader = self._born()
