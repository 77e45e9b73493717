"""Leader election: one operator works at a time, the one that holds and renews a Lease.

Shards are operators that each work at a part of the jobs. Each of them holds two Leases: the one
of the whole, together with the other shards of the same number, and the one of its part. Whoever
counts with another number of shards, or with none, stands by at the Lease of the whole (decision
32).

Who cannot renew in time must stop writing before the others may take over, so `Leader.renew` raises
and the process ends; one that was frozen meanwhile is stopped by its `fence`.
(``kubernetes.aio.leaderelection`` compares clocks, and never gives a Lease back.)
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from inception_operator.contract.errors import LeadershipLostError
from inception_operator.contract.shard import OF_SHARD

from .client import Client
from .fence import Fence, clock
from .lease import Lease, Terms
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
        self._settings = settings
        self._fence = fence
        self._clock = clock
        terms = _terms(settings)
        self._leases = [Lease(client, each, clock) for each in terms]
        self.lease_name = terms[-1].name
        """The Lease that this process alone may hold."""
        self.leading = False

    @property
    def problem(self) -> str | None:
        """Why this process could not lead even if nobody else did, for people."""
        return next((lease.problem for lease in self._leases if lease.problem), None)

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
            oldest = min(self._leases, key=lambda lease: lease.renewed)
            silence = self._clock() - oldest.renewed
            # After a freeze others may lead already: nothing more may be sent, not even a renewal.
            if silence >= deadline:
                self._lose(oldest, f"the Lease could not be renewed for {silence:.0f} s")
            # A request that hangs must not outlive the deadline.
            try:
                async with asyncio.timeout(deadline - silence):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if renewed:
                continue
            for lease in self._leases:
                if (holder := lease.taken_by) is not None:
                    self._lose(lease, f"{holder or 'nobody'} holds the Lease")
                if self._clock() - lease.renewed >= deadline:
                    self._lose(lease, f"the Lease could not be renewed for {deadline:.0f} s")

    async def release(self) -> None:
        """Give the Lease back, so that the next operator takes over at once."""
        if not self.leading or not self._fence.remaining:
            return
        self.leading = False
        try:
            for lease in self._leases:
                await lease.give_back()
        finally:
            self._fence.close()

    def _lose(self, lease: Lease, why: str) -> None:
        self.leading = False
        self._fence.close()
        raise LeadershipLostError(f"{lease}: {why}")

    async def _attempt(self) -> bool:
        """Take or renew every Lease once, each only where the one before is held."""
        for lease in self._leases:
            if not await lease.attempt():
                return False
        self.leading = True
        oldest = min(lease.renewed for lease in self._leases)
        self._fence.lead_until(oldest + self._settings.lease_renew_deadline)
        return True


def _terms(settings: Settings) -> list[Terms]:
    """The Leases that a process needs to write, the one of the whole first."""
    namespace, name = settings.lease_namespace, settings.lease_name
    duration, shard = settings.lease_duration, settings.shard
    if shard.alone:
        return [Terms(namespace, name, settings.identity, duration)]
    # No identity of a process has a space.
    whole = f"{shard.count} shards"
    part = f"{name}{OF_SHARD}{shard.index}"
    return [
        Terms(namespace, name, whole, duration, shared=True, wary=True),
        Terms(namespace, part, settings.identity, duration, wary=True),
    ]
