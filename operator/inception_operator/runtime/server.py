"""The operator's HTTP server: /healthz, /readyz, /metrics, and /ring for launchers.

With a `Guard` /metrics has a port of its own, over TLS and for those alone whom the API server lets
read it; the kubelet and launchers, which have no token, find the rest where it was.

Health means that work moves, not that HTTP answers: a watch can be open for hours and deliver
nothing. What is checked is up to the caller.

Whoever reaches the port may ask, so nothing that is asked may cost much: `connections` bounds what
can be held open, a connection is good for one request without a body, and the page of metrics is
made once for all who ask at about the same time.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from aiohttp import web

from .certificate import Certificate
from .connections import BACKLOG, Connections, listening_socket
from .metrics_access import MetricsAccess

Check = Callable[[], "str | None"]
"""Returns None when all is well, else what is wrong, for people."""

Notify = Callable[[str, str, str], bool]
"""Told namespace, job and pod of a launcher; returns whether there is such a pod."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGE_SECONDS = 1.0
"""How old a page of metrics may be; Prometheus asks every 15 s or so."""
PAGE_SHARE = 4
"""A page is kept at least so many times as long as it took to make: scrapes in a row take a fifth
of the time of one core at most.
"""
CHUNK_BYTES = 64 * 1024
CHUNKS_AT_ONCE = 8
"""Pieces of pages that are written within one turn of the event loop. Each write waits for the
interpreter, which the thread that makes the next page holds for up to 5 ms.
"""
ACCEPTED_AT_ONCE = 16
"""Connections that are let in within one turn of the event loop."""
SECURE_CONNECTIONS = 64
"""The event loop keeps 256 KiB for each connection with TLS; few read the page."""
LOG_SECONDS = 60.0

_log = logging.getLogger(__name__)
# aiohttp logs each malformed request with a traceback: whoever reaches the port would fill the log.
_ignored = logging.getLogger(f"{__name__}.requests")
_ignored.disabled = True


@dataclass(frozen=True)
class Guard:
    """What /metrics is guarded by: its own port, its certificate, and who may read it."""

    port: int
    certificate: Certificate
    access: MetricsAccess
    connections: Connections = field(default_factory=lambda: Connections(SECURE_CONNECTIONS))


class Server:
    """HTTP for the kubelet, Prometheus and launchers."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        healthy: Check,
        ready: Check,
        metrics: Callable[[], bytes],
        notify: Notify,
        connections: Connections | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._page = CachedPage(metrics)
        self._turn = asyncio.Semaphore(CHUNKS_AT_ONCE)
        routes = [
            web.get("/healthz", _checked(healthy)),
            web.get("/readyz", _checked(ready)),
            web.post("/ring/{namespace}/{job}/{pod}", _notified(notify)),
        ]
        self._guard = guard
        self._guarded: _Site | None = None
        if guard is None:
            routes.append(web.get("/metrics", self._send_page))
        else:
            page = web.get("/metrics", _guarded(guard.access, self._send_page))
            tls = guard.certificate.context
            self._guarded = _Site(host, guard.port, [page], guard.connections, tls)
        connections = Connections() if connections is None else connections
        self._open = _Site(host, port, routes, connections)
        self._following: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The real one once the server listens, also where 0 was asked for."""
        return self._open.port

    @property
    def metrics_port(self) -> int:
        """Where /metrics is."""
        return self.port if self._guarded is None else self._guarded.port

    async def start(self) -> None:
        """Listen."""
        await self._open.start()
        if self._guard is not None and self._guarded is not None:
            await self._guarded.start()
            self._following = asyncio.create_task(
                self._guard.certificate.follow(), name="certificate"
            )

    async def close(self) -> None:
        """Stop listening."""
        if self._following is not None:
            self._following.cancel()
        for site in filter(None, (self._open, self._guarded)):
            await site.close()

    async def _send_page(self, request: web.Request) -> web.StreamResponse:
        body = await self._page.get()
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        response.content_length = len(body)
        response.force_close()
        # All who waited for the page go on in the same turn.
        await self._take_turn()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        # In pieces, so that one who reads slowly holds a piece and not a page, and that others are
        # answered in between.
        view = memoryview(body)
        for start in range(0, len(body), CHUNK_BYTES):
            await self._take_turn()
            await response.write(view[start : start + CHUNK_BYTES])
        await response.write_eof()
        return response

    async def _take_turn(self) -> None:
        """Wait for the next turn of the event loop that has room for a piece."""
        async with self._turn:
            await asyncio.sleep(0)


class _Site:
    """A port, and what is answered there."""

    def __init__(
        self,
        host: str,
        port: int,
        routes: Sequence[web.RouteDef],
        connections: Connections,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._connections = connections
        self._tls = tls
        self._error_logged: float | None = None
        app = web.Application(middlewares=[self._once])
        app.add_routes(routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_ignored,
            # The rest of a body that nobody reads is not waited for.
            lingering_time=0,
            shutdown_timeout=1.0,
        )
        self._listener: asyncio.Server | None = None
        self.port = port

    async def start(self) -> None:
        await self._runner.setup()
        protocols = self._connections.bound(cast("web.Server", self._runner.server), self._tls)
        listener = listening_socket(self._host, self.port)
        self.port = listener.getsockname()[1]
        # The event loop lets in as many in one turn as it is told to be the backlog.
        self._listener = await asyncio.get_running_loop().create_server(
            protocols, sock=listener, backlog=ACCEPTED_AT_ONCE
        )
        listener.listen(BACKLOG)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        self._connections.abort_all()

    @web.middleware
    async def _once(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One request for each connection, none with a body; errors of ours are logged seldom."""
        response: web.StreamResponse
        try:
            if request.can_read_body:
                response = web.Response(text="no request here has a body", status=413)
            else:
                response = await handler(request)
        except web.HTTPException as refusal:
            refusal.force_close()
            raise
        except ConnectionError:
            # The other end has hung up.
            raise
        except Exception:
            now = time.monotonic()
            if self._error_logged is None or now - self._error_logged >= LOG_SECONDS:
                self._error_logged = now
                _log.exception("%s was not answered", request.path)
            response = web.Response(status=500)
        response.force_close()
        return response


class CachedPage:
    """A page that takes long to make: off the event loop, and once for all who want it now."""

    def __init__(
        self, make: Callable[[], bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._clock = clock
        self._page = b""
        self._good_until: float | None = None
        self._making: asyncio.Task[None] | None = None

    async def get(self) -> bytes:
        """The page, up to about a second old."""
        if self._good_until is None or self._clock() >= self._good_until:
            if self._making is None:
                self._making = asyncio.create_task(self._renew(), name="metrics page")
            # Who hangs up does not take the page from the others.
            await asyncio.shield(self._making)
        return self._page

    async def _renew(self) -> None:
        try:
            began = self._clock()
            self._page = await asyncio.to_thread(self._make)
            took = self._clock() - began
            self._good_until = self._clock() + max(PAGE_SECONDS, PAGE_SHARE * took)
        finally:
            self._making = None


def _checked(check: Check) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        problem = check()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    return answer


def _guarded(access: MetricsAccess, page: Handler) -> Handler:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}

    async def answer(request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        refusal = await access.refusal(authorization, request.remote or "")
        if refusal is None:
            return await page(request)
        return web.Response(
            text=refusal.text, status=refusal.status, headers=headers.get(refusal.status)
        )

    return answer


def _notified(notify: Notify) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.match_info
        exists = notify(path["namespace"], path["job"], path["pod"])
        # 202: the operator will ask the pod. It believes nothing of what a caller says.
        return web.Response(status=202 if exists else 404)

    return answer
