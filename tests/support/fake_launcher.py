"""Plays the launcher of a pod on a loopback address of this machine."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from inception_operator.contract import names


class FakeLauncher:
    """``GET /status`` on port 8080 and ``GET /metrics`` on port 8081 of ``ip``.

    ``text`` is answered in place of the report, whatever it is.
    """

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.report: dict[str, Any] = {"attempt": 0, "state": "Idle"}
        self.text: str | None = None
        self.metrics = ""
        self.asked: list[float] = []
        self.scraped: list[float] = []
        self._servers = [_server(self, port) for port in (names.LAUNCHER_PORT, names.METRICS_PORT)]
        self._threads = [
            threading.Thread(target=server.serve_forever, name=f"launcher-{ip}")
            for server in self._servers
        ]

    def __enter__(self) -> FakeLauncher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(10)

    def answer(self, path: str) -> str | None:
        """The body for a path."""
        if path == "/status":
            self.asked.append(time.monotonic())
            return json.dumps(self.report) if self.text is None else self.text
        if path == "/metrics":
            self.scraped.append(time.monotonic())
            return self.metrics
        return None


def _server(launcher: FakeLauncher, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = launcher.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer((launcher.ip, port), Handler)
