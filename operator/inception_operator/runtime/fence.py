"""What keeps a process that is no longer the leader from changing anything.

A process can be frozen for any time between two instructions: a stopped container, a paused or
suspended machine, a starved CPU. When it goes on, another one leads, and what it was about to send
rests on a view of long ago. So the time is looked at once more when a request is handed to its
connection, after all waiting for a slot, a connection or TLS. What the kernel could not deliver by
then, because the network was down, is thrown away with its connection. What has left this machine,
or is frozen within the last microseconds, is up to the preconditions of each request: the version
of a status, the uid of a pod, a name that is taken.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from typing_extensions import override

from inception_operator.contract.errors import LeadershipLostError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.connector import Connection

LEASE_GROUP: Final = "coordination.k8s.io"
# Creating a review asks a question: nothing is stored.
QUESTION_GROUPS: Final = ("authentication.k8s.io", "authorization.k8s.io")
READS: Final = ("GET", "HEAD", "OPTIONS")
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger."""


def clock() -> float:
    """Seconds that never go back, those of a suspended machine included where the kernel counts
    them: Linux stops CLOCK_MONOTONIC meanwhile.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Fence:
    """Until when this process may write. Until it leads for the first time, Leases only."""

    def __init__(self, now: Callable[[], float] = clock) -> None:
        self._now = now
        self._until: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds that are left to write in; none for a process that does not lead."""
        return 0.0 if self._until is None else max(0.0, self._until - self._now())

    def lead_until(self, moment: float) -> None:
        """The Lease was taken or renewed: writes may be sent until then."""
        self._until = moment

    def close(self) -> None:
        """Send nothing more, whatever the time."""
        self._until = -math.inf

    def check(self, method: str, path: str) -> None:
        """Raise LeadershipLostError for a write that must not be sent any more."""
        if method in READS or group_of(path) in QUESTION_GROUPS:
            return
        if self._until is None and group_of(path) == LEASE_GROUP:
            return
        if self.remaining <= 0:
            raise LeadershipLostError(f"{method} {path} is not sent: the time to renew is over")


def fenced(fence: Fence) -> type[aiohttp.ClientRequest]:
    """The class of requests of a session whose writes stop at ``fence``."""

    class FencedRequest(aiohttp.ClientRequest):
        @override
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            fence.check(self.method, self.url.path)
            if self.method not in READS:
                _forget_unsent_on_close(conn)
            return await super().send(conn)

        @override
        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, *arguments: Any
        ) -> None:
            # Before Python 3.12 a task of its own, one round of the event loop after `send`; the
            # head of the request waits for it in a buffer.
            try:
                fence.check(self.method, self.url.path)
            except LeadershipLostError:
                # Whoever waits for the answer learns it by the end of the connection.
                conn.close()
                return
            await super().write_bytes(writer, conn, *arguments)

    return FencedRequest


def _forget_unsent_on_close(conn: Connection) -> None:
    """Have the kernel drop what it still holds when the connection, or the process, ends.

    By default it goes on sending for minutes after both, and a creation, which has no precondition
    but its name, would arrive long after somebody else has taken over.
    """
    transport = conn.transport
    channel = None if transport is None else transport.get_extra_info("socket")
    if channel is not None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def group_of(path: str) -> str:
    """The API group of a request: ``/apis/<group>/…``; the core group has none."""
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "apis" else ""
