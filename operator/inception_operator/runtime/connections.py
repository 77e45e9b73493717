"""Bounds on what whoever reaches the operator's port can hold: connections, time and bytes.

No address is reserved for the kubelet, whose probes come from the same address as every pod on the
host network of its node. A new connection is always let in instead; where that is one too many, the
oldest connection of the address that holds most is closed. So a probe, which is answered within
milliseconds, is served however many connections strangers hold open.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
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
"""Connections that the kernel holds until they are let in."""


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

    def bound(
        self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> Callable[[], asyncio.Protocol]:
        """The same protocols, each of them within the bounds; with ``tls`` behind it."""
        return lambda: _BoundedProtocol(factory(), self, tls)

    def abort_all(self) -> None:
        """Close all of them at once."""
        for connections in list(self._by_address.values()):
            for connection in list(connections):
                connection.abort()

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
    """Hands everything to another protocol, for so long and so many bytes.

    TLS begins here and not in the event loop's server, which would tell of a connection only after
    its handshake: those that never end theirs would not be counted.
    """

    def __init__(
        self, inner: asyncio.Protocol, connections: Connections, tls: ssl.SSLContext | None
    ) -> None:
        self._inner = inner
        self._connections = connections
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._is_open = False
        # What comes with the end of a handshake, before `_shake_hands` goes on.
        self._early: list[bytes] = []
        self._received = 0
        self.address = ""

    def abort(self) -> None:
        """Close the connection at once; what was not sent is dropped."""
        self._forget()
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
        if self._tls is None:
            self._open(transport)
        else:
            # Whatever comes is for TLS, which listens from the next turn of the event loop on.
            self._transport.pause_reading()
            self._handshake = loop.create_task(self._shake_hands(self._transport, self._tls))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self._is_open:
            self._inner.connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._connections.max_bytes:
            self.abort()
        elif self._is_open:
            self._inner.data_received(data)
        else:
            self._early.append(data)

    @override
    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._is_open else None

    @override
    def pause_writing(self) -> None:
        self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._inner.resume_writing()

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(transport, self, tls, server_side=True)
        except OSError:
            # Whoever does not speak TLS, or not ours; nothing that the log should be filled with.
            self.abort()
            return
        # None where the connection is lost already.
        if secured is not None and not secured.is_closing():
            self._open(secured)

    def _open(self, transport: asyncio.BaseTransport) -> None:
        self._is_open = True
        self._inner.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self._inner.data_received(data)

    def _forget(self) -> None:
        self._connections.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
