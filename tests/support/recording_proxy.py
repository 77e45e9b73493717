"""A proxy in front of the API server that knows every request of one client, and can cut it off
without a word, as a network does that drops all packets or a proxy that keeps them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from inception_operator.runtime.client import load_configuration
from inception_operator.runtime.fence import LEASE_GROUP, QUESTION_GROUPS, READS, group_of
from inception_operator.runtime.job_watch import connection_info

TCP_CLOSE = 7
"""The state of a connection that was reset, of the kernel's `tcp_states.h`."""
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass
class Write:
    """A request that changes something; times are those of ``time.monotonic``."""

    method: str
    path: str
    arrived: float
    lease: bool
    forwarded: float | None = None
    status: int | None = None

    @property
    def held(self) -> bool:
        """Whether it was sent on after a cut only."""
        return self.forwarded is not None and self.forwarded - self.arrived > 1.0


class RecordingProxy:
    """Plain HTTP to the client of ``kubeconfig``, TLS and credentials towards the API server."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._upstream = kubeconfig
        self.kubeconfig = folder / "recorded.yaml"
        self.writes: list[Write] = []
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="recording-proxy")
        self._end = asyncio.Event()
        self._keeps = False
        self._open = asyncio.Event()
        self._open.set()
        self._refusal: int | None = None
        self._clients: set[asyncio.Transport] = set()

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        assert self._started.wait(20), "the proxy did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._open.set)
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    @contextmanager
    def cut(self, *, keeps: bool = False) -> Iterator[None]:
        """Nothing gets through in either direction; at the end what was sent meanwhile does.

        That is, of connections that are still there: what a kernel tries again and again to deliver
        ends with the connection. A proxy on the way that has taken it ``keeps`` it all the same.
        """
        self._keeps = keeps
        self._loop.call_soon_threadsafe(self._open.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._open.set)

    @contextmanager
    def refusing(self, status: int) -> Iterator[None]:
        """Every request gets this answer, as from a load balancer whose API server is away; what
        is under way ends.
        """
        self._refusal = status
        self._loop.call_soon_threadsafe(self._end_all)
        try:
            yield
        finally:
            self._refusal = None

    def _end_all(self) -> None:
        for transport in self._clients:
            transport.close()

    def after(self, moment: float) -> list[Write]:
        """Writes, the Lease's among them, that the client sent after that moment."""
        return [write for write in self.writes if write.arrived > moment]

    def changes(self, since: float) -> list[Write]:
        """Writes to anything but a Lease that the API server has carried out since then."""
        return [
            write
            for write in list(self.writes)
            if not write.lease and write.arrived > since and (write.status or 500) < 300
        ]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self._loop.close()

    async def _run(self) -> None:
        info = await connection_info(await load_configuration(self._upstream))
        connector = aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context())
        session = aiohttp.ClientSession(
            connector=connector,
            headers=info.as_http_headers(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )

        async def handle(request: web.Request) -> web.StreamResponse:
            if self._refusal is not None:
                return web.Response(status=self._refusal, text="<html>no healthy upstream</html>")
            transport = request.transport
            if transport is None:
                return web.Response()
            self._clients.add(transport)
            try:
                return await self._pass_on(session, str(info.server), request)
            finally:
                self._clients.discard(transport)

        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        document = yaml.safe_load(self._upstream.read_text())
        document["clusters"][0]["cluster"] = {
            "server": f"http://127.0.0.1:{runner.addresses[0][1]}"
        }
        document["users"][0]["user"] = {}
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self._started.set()
        await self._end.wait()
        await runner.cleanup()
        await session.close()

    async def _pass_on(
        self, session: aiohttp.ClientSession, server: str, request: web.Request
    ) -> web.StreamResponse:
        body = await request.read()
        write = self._record(request)
        if not self._open.is_set() and await self._reset_meanwhile(request) and not self._keeps:
            return web.Response()
        if write is not None:
            write.forwarded = time.monotonic()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        url = URL(server.rstrip("/") + request.raw_path, encoded=True)
        # An empty body would get a type, for which the API server refuses a GET.
        async with session.request(
            request.method, url, data=body or None, headers=headers
        ) as answer:
            if write is not None:
                write.status = answer.status
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=headers)
            # The client may have gone: a write has then been carried out all the same.
            with suppress(ConnectionError):
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await self._open.wait()
                    await response.write(chunk)
                await response.write_eof()
        return response

    async def _reset_meanwhile(self, request: web.Request) -> bool:
        """Wait for the end of the cut; whether the client's kernel has given the connection up."""
        if request.transport is None:
            return True
        # A descriptor of its own, which is still there when the server has closed its one.
        with request.transport.get_extra_info("socket").dup() as connection:
            await self._open.wait()
            # A connection that was closed in peace still waits for our own close.
            state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == TCP_CLOSE

    def _record(self, request: web.Request) -> Write | None:
        group = group_of(request.path)
        if request.method in READS or group in QUESTION_GROUPS:
            return None
        write = Write(request.method, request.path, time.monotonic(), group == LEASE_GROUP)
        self.writes.append(write)
        return write
