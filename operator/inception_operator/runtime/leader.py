"""One operator at a time: a Lease that is renewed while this process leads and given back when it
ends.

Whoever cannot renew in time must stop writing before the others may take over, so ``renew`` raises
and the process ends. Clocks of different machines are never compared: a Lease is old when this
process saw it unchanged for its duration.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from inception_operator.contract.errors import (
    ApiError,
    ConflictError,
    LeadershipLostError,
    NotFoundError,
)
from inception_operator.contract.types import Json

from .client import LEASES, Resource
from .settings import Settings

_log = logging.getLogger(__name__)


class Leases(Protocol):
    """What the election needs of the client."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Read the Lease."""

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create the Lease."""

    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Update the Lease if it has not changed."""


class Leader:
    """The election from the view of one process."""

    def __init__(
        self,
        client: Leases,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._lease: Json | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._attempt():
            await self._sleep(self._settings.lease_retry_period * (0.8 + 0.4 * random.random()))  # noqa: S311
        _log.info("leading as %s", self._settings.identity)

    async def renew(self) -> None:
        """Renew until cancelled; raises LeadershipLostError when that fails for too long or someone
        else leads.
        """
        while True:
            await self._sleep(self._settings.lease_retry_period)
            remaining = self._settings.lease_renew_deadline - (self._clock() - self._renewed)
            try:
                async with asyncio.timeout(max(0.0, remaining)):
                    held = await self._attempt()
            except TimeoutError:
                held = False
            if held:
                continue
            if self._lease is not None and self._holder() != self._settings.identity:
                self._lose(f"{self._holder() or 'nobody'} holds the Lease")
            if self._clock() - self._renewed >= self._settings.lease_renew_deadline:
                self._lose(
                    f"the Lease could not be renewed for {self._settings.lease_renew_deadline:.0f} s"
                )

    async def release(self) -> None:
        """Let the next operator take over at once."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        body = {
            **self._lease,
            "spec": {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1},
        }
        try:
            await self._client.replace(
                LEASES, self._settings.lease_namespace, self._settings.lease_name, body
            )
        except ApiError as error:
            _log.info("the Lease was not released: %s", error)

    def _lose(self, why: str) -> None:
        self.leading = False
        raise LeadershipLostError(
            f"{self._settings.lease_namespace}/{self._settings.lease_name}: {why}"
        )

    async def _attempt(self) -> bool:
        """Take or renew the Lease once; False if it is someone else's or the API server did not
        answer.
        """
        started = self._clock()
        try:
            self._lease = await self._write()
        except (ConflictError, NotFoundError):
            self._lease = None
        except ApiError as error:
            _log.warning("leader election: %s", error)
        else:
            if self._holder() == self._settings.identity:
                self._renewed, self.leading = started, True
                return True
        return False

    async def _write(self) -> Json:
        """Write ourselves into the Lease where that is allowed; answers the Lease as it is then."""
        namespace, name = self._settings.lease_namespace, self._settings.lease_name
        lease = self._lease if self.leading and self._lease else await self._read()
        if lease is None:
            return await self._client.create(LEASES, namespace, self._body(None))
        if self._holder() not in ("", self._settings.identity) and not self._expired(lease):
            return lease
        return await self._client.replace(LEASES, namespace, name, self._body(lease))

    async def _read(self) -> Json | None:
        try:
            self._lease = await self._client.get(
                LEASES, self._settings.lease_namespace, self._settings.lease_name
            )
        except NotFoundError:
            self._lease = None
        return self._lease

    def _expired(self, lease: Json) -> bool:
        version = str(lease["metadata"]["resourceVersion"])
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        duration = float(
            (lease.get("spec") or {}).get("leaseDurationSeconds") or self._settings.lease_duration
        )
        return self._clock() - self._seen[1] >= duration

    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    def _body(self, lease: Json | None) -> Json:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec") or {}
        taken = old.get("holderIdentity") != self._settings.identity
        metadata = {"namespace": self._settings.lease_namespace, "name": self._settings.lease_name}
        return {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else metadata,
            "spec": {
                "holderIdentity": self._settings.identity,
                "leaseDurationSeconds": int(self._settings.lease_duration),
                "acquireTime": now if taken else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0)
                + int(taken and lease is not None),
            },
        }
