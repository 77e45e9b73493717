"""/healthz, /readyz, /metrics and /ring: health means that work moves, not that HTTP answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Check = Callable[[], "str | None"]
"""Answers None when all is well, else what is wrong."""

Ring = Callable[[str, str, str], bool]
"""Told namespace, training and pod; answers whether it knows them."""

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
        ring: Ring,
    ) -> None:
        self._host = host
        self._requested_port = port
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", _checked(healthy))
        app.router.add_get("/readyz", _checked(ready))
        app.router.add_get("/metrics", self._page)
        app.router.add_post("/ring/{namespace}/{training}/{pod}", _rung(ring))
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
        # Thousands of trainings take long to format; the event loop goes on meanwhile.
        body = await asyncio.to_thread(self._metrics)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _checked(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    return answer


def _rung(ring: Ring) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        known = ring(*(request.match_info[name] for name in ("namespace", "training", "pod")))
        return web.Response(status=202 if known else 404)

    return answer
