"""The operator's HTTP server: /healthz, /readyz, /metrics, and /ring for launchers.

Health means that work moves, not that HTTP answers: a watch can be open for hours and deliver
nothing. What is checked is up to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Check = Callable[[], "str | None"]
"""Returns None when all is well, else what is wrong, for people."""

Notify = Callable[[str, str, str], bool]
"""Told namespace, job and pod of a launcher; returns whether there is such a pod."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
    ) -> None:
        self._host = host
        self._requested_port = port
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", _checked(healthy))
        app.router.add_get("/readyz", _checked(ready))
        app.router.add_get("/metrics", self._page)
        app.router.add_post("/ring/{namespace}/{job}/{pod}", _notified(notify))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.port = port

    async def start(self) -> None:
        """Listen; ``port`` is then the real one, also where 0 was asked for."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._requested_port).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _page(self, _request: web.Request) -> web.Response:
        # Thousands of jobs take long to format; the event loop goes on meanwhile.
        body = await asyncio.to_thread(self._metrics)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _checked(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    return answer


def _notified(notify: Notify) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        path = request.match_info
        exists = notify(path["namespace"], path["job"], path["pod"])
        # 202: the operator will ask the pod. It believes nothing of what a caller says.
        return web.Response(status=202 if exists else 404)

    return answer
