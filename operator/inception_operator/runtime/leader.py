"""Leader election: one operator works at a time, the one that holds and renews a Lease.

Who cannot renew in time must stop writing before the others may take over, so `Leader.renew` raises
and the process ends; one that was frozen meanwhile is stopped by its `fence`. Clocks of different
machines are never compared: a Lease counts as expired when this process has seen it unchanged for
its duration. (``kubernetes.aio.leaderelection`` compares clocks, and never gives a Lease back.)
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
from collections.abc import Callable

from inception_operator.contract.errors import (
    ApiError,
    ConflictError,
    LeadershipLostError,
    NotFoundError,
    RejectedError,
)
from inception_operator.contract.types import Json

from .client import LEASES, Client
from .fence import Fence, clock
from .settings import Settings

_log = logging.getLogger(__name__)


class Leader:
    """The election from the view of one process; moves the ``fence`` that the client stops at."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        fence: Fence,
        *,
        clock: Callable[[], float] = clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._fence = fence
        self._clock = clock
        self._lease: Json | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed = 0.0
        self.leading = False
        self._said: str | None = None
        self.problem: str | None = None
        """Why this process could not lead even if nobody else did, for people."""

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._attempt():
            # Jitter, so that several who wait do not write at the same moment each time.
            jitter = 0.8 + 0.4 * random.random()  # noqa: S311
            await asyncio.sleep(self._settings.lease_retry_period * jitter)
        _log.info("leading as %s", self._settings.identity)

    async def renew(self) -> None:
        """Renew until cancelled.

        Raises LeadershipLostError when somebody else leads, or when no renewal has succeeded for
        the deadline. That is shorter than the Lease's duration: the difference is the time to end.
        """
        deadline = self._settings.lease_renew_deadline
        while True:
            await asyncio.sleep(self._settings.lease_retry_period)
            silence = self._clock() - self._renewed
            # After a freeze others may lead already: nothing more may be sent, not even a renewal.
            if silence >= deadline:
                self._lose(f"the Lease could not be renewed for {silence:.0f} s")
            # A request that hangs must not outlive the deadline.
            try:
                async with asyncio.timeout(deadline - silence):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if renewed:
                continue
            if self._lease is not None and self._holder() != self._settings.identity:
                self._lose(f"{self._holder() or 'nobody'} holds the Lease")
            if self._clock() - self._renewed >= deadline:
                self._lose(f"the Lease could not be renewed for {deadline:.0f} s")

    async def release(self) -> None:
        """Give the Lease back, so that the next operator takes over at once."""
        if not self.leading or self._lease is None or not self._fence.remaining:
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
        except (ApiError, LeadershipLostError) as error:
            _log.info("the Lease was not released: %s", error)
        finally:
            self._fence.close()

    def _lose(self, why: str) -> None:
        self.leading = False
        self._fence.close()
        raise LeadershipLostError(
            f"{self._settings.lease_namespace}/{self._settings.lease_name}: {why}"
        )

    async def _attempt(self) -> bool:
        """Take or renew the Lease once.

        False if it is somebody else's or the API server did not answer.
        """
        # The time before the request: when the answer is late, others count from the write.
        started = self._clock()
        try:
            self._lease = await self._write()
        except ConflictError:
            # Somebody wrote it: read it again before the next try.
            self._lease = None
        except NotFoundError as error:
            # Somebody deleted it, or its namespace does not exist.
            self._lease = None
            self._note(error)
        except ApiError as error:
            self._note(error)
        else:
            self._note(None)
            if self._holder() == self._settings.identity:
                self._renewed = started
                self.leading = True
                self._fence.lead_until(started + self._settings.lease_renew_deadline)
                return True
        return False

    def _note(self, error: ApiError | None) -> None:
        """Remember and log what stands in the way of the election; the same thing only once."""
        if error is None:
            self.problem = self._said = None
            return
        lease = f"{self._settings.lease_namespace}/{self._settings.lease_name}"
        text = f"leader election with the Lease {lease}: {error}"
        # An API server that does not answer is `Contact`'s matter.
        if isinstance(error, NotFoundError):
            self.problem = text = f"{text}; is --lease-namespace right?"
        elif isinstance(error, RejectedError):
            self.problem = text = f"{text}; give the operator its Role there"
        if text != self._said:
            self._said = text
            _log.warning("%s", text)

    async def _write(self) -> Json:
        """Write ourselves into the Lease where that is allowed; returns the Lease as it is then."""
        namespace = self._settings.lease_namespace
        name = self._settings.lease_name
        # A leader knows its Lease from its last write: one request for a renewal instead of two.
        lease = self._lease if self.leading and self._lease else await self._read()
        if lease is None:
            return await self._make(namespace, name)
        if self._holder() not in ("", self._settings.identity) and not self._expired(lease):
            return lease
        return await self._client.replace(LEASES, namespace, name, self._body(lease))

    async def _make(self, namespace: str, name: str) -> Json:
        # Chart and manifests bring the Lease, so that the operator needs no right to create one.
        try:
            return await self._client.create(LEASES, namespace, self._body(None))
        except RejectedError as error:
            message = (
                f"there is no Lease {namespace}/{name}, and the operator may not make it: "
                f"helm upgrade or kubectl apply of the manifests brings it back ({error})"
            )
            raise RejectedError(error.status, message) from error

    async def _read(self) -> Json | None:
        try:
            self._lease = await self._client.get(
                LEASES, self._settings.lease_namespace, self._settings.lease_name
            )
        except NotFoundError:
            self._lease = None
        return self._lease

    def _expired(self, lease: Json) -> bool:
        # The version and not renewTime: the holder's clock may be wrong.
        version = str(lease["metadata"]["resourceVersion"])
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        seconds = (lease.get("spec") or {}).get("leaseDurationSeconds")
        duration = float(seconds or self._settings.lease_duration)
        return self._clock() - self._seen[1] >= duration

    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    def _body(self, lease: Json | None) -> Json:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec") or {}
        is_new = old.get("holderIdentity") != self._settings.identity
        transitions = int(old.get("leaseTransitions") or 0)
        metadata = {"namespace": self._settings.lease_namespace, "name": self._settings.lease_name}
        return {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else metadata,
            "spec": {
                "holderIdentity": self._settings.identity,
                "leaseDurationSeconds": int(self._settings.lease_duration),
                "acquireTime": now if is_new else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": transitions + int(is_new and lease is not None),
            },
        }
