"""Bounds on what whoever reaches the operator's port can hold: connections, time and bytes.

No address is reserved for the kubelet, whose probes come from the same address as every pod on the
host network of its node. A new connection is always let in instead; where that is one too many, the
oldest connection of the address that holds most is closed. So a probe, which is answered within
milliseconds, is served however many connections strangers hold open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from typing_extensions import override

ANY_ADDRESS = "::"
"""All addresses of this host, of both families."""
MAX_CONNECTIONS = 512
"""Twice as many launchers as can end within one turn of the event loop; 10 MiB at most."""
CONNECTION_SECONDS = 10.0
"""From the start of a connection to the end of its answer; a scrape of Prometheus takes no longer.
"""
MAX_REQUEST_BYTES = 16 * 1024
"""A token and the headers of proxies fit several times."""
BACKLOG = 128


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host``; `ANY_ADDRESS` is 0.0.0.0 on a host without IPv6."""
    if host == ANY_ADDRESS:
        if socket.has_dualstack_ipv6():
            # Whatever /proc/sys/net/ipv6/bindv6only says, IPv4 comes in too.
            return socket.create_server(
                (host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
        host = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from other hosts
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class Connections:
    """The connections that are open, oldest first, by the address of the other end."""

    def __init__(
        self,
        limit: int = MAX_CONNECTIONS,
        *,
        seconds: float = CONNECTION_SECONDS,
        max_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self._limit = limit
        self._by_address: dict[str, dict[_BoundedProtocol, None]] = {}
        self._count = 0
        self.seconds = seconds
        self.max_bytes = max_bytes

    def __len__(self) -> int:
        return self._count

    def bound(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """The same protocols, each of them within the bounds."""
        return lambda: _BoundedProtocol(factory(), self)

    def add(self, connection: _BoundedProtocol) -> None:
        """Let a new connection in, in place of another one if there are too many."""
        if self._count >= self._limit:
            largest = max(self._by_address.values(), key=len)
            next(iter(largest)).abort()
        self._by_address.setdefault(connection.address, {})[connection] = None
        self._count += 1

    def remove(self, connection: _BoundedProtocol) -> None:
        """Forget a connection that is closed; once is enough."""
        others = self._by_address.get(connection.address, {})
        if connection not in others:
            return
        del others[connection]
        self._count -= 1
        if not others:
            del self._by_address[connection.address]


class _BoundedProtocol(asyncio.Protocol):
    """Hands everything to another protocol, for so long and so many bytes."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0
        self.address = ""

    def abort(self) -> None:
        """Close the connection at once; what was not sent is dropped."""
        self._connections.remove(self)
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Absent where the other end has hung up already.
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._connections.add(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._connections.seconds, self.abort)
        self._inner.connection_made(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
        self._inner.connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._connections.max_bytes:
            self.abort()
            return
        self._inner.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    @override
    def pause_writing(self) -> None:
        self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._inner.resume_writing()
