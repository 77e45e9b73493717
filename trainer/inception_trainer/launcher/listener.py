"""HTTP in a pod, for whoever can reach it: the launcher's /status and the trainer's /metrics.

It listens on all addresses of both families. Strangers cost it a bounded number of threads and
bytes: a new connection is always let in, and where that is one too many, the oldest one is closed,
so that probes, which are answered at once, always are.
"""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

MAX_CONNECTIONS = 64
MAX_REQUEST_BYTES = 16 * 1024
"""The standard library would take 100 headers of 64 KiB."""
IDLE_SECONDS = 10


class Listener(ThreadingHTTPServer):
    """A server with a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, port: int, handler: "type[Handler]") -> None:
        self._lock = threading.Lock()
        self._connections: dict[Any, None] = {}
        """Sockets of open connections, oldest first."""
        both = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both else socket.AF_INET
        super().__init__(("", port), handler)

    def server_bind(self) -> None:
        """Bind to all addresses, and leave out HTTPServer's look-up of this host's name."""
        # The look-up is a DNS query that may take seconds. Without IPV6_V6ONLY the socket takes
        # IPv4 too, whatever /proc/sys/net/ipv6/bindv6only says.
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name = "pod"
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread of its own, in place of another if there are too many."""
        with self._lock:
            self._connections[request] = None
            oldest = next(iter(self._connections))
            too_many = len(self._connections) > MAX_CONNECTIONS
            if too_many:
                del self._connections[oldest]
        if too_many:
            # Its thread, which reads or writes, ends by this. It may have ended just now.
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is not worth a traceback."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    # Seconds of silence; the thread would else wait for ever.
    timeout = IDLE_SECONDS

    def setup(self) -> None:
        """Bound what is read."""
        super().setup()
        self.rfile = _Bounded(self.rfile)  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answer a GET."""
        self.get(self.path.partition("?")[0])

    def do_POST(self) -> None:
        """Answer a POST."""
        self.post(self.path)

    def post(self, _path: str) -> None:
        """Answer a POST to this path; subclasses that take any do it."""
        self.answer(501, b"nothing is taken here\n", "text/plain")

    def get(self, path: str) -> None:
        """Answer a GET of this path; subclasses do it."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes, kind: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape every few seconds is no news."""


class _Bounded:
    """A file that ends after so many bytes."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = MAX_REQUEST_BYTES
        self.close = file.close

    def readline(self, size: int) -> bytes:
        return self._count(self._file.readline(min(size, self._left)))

    def read(self, size: int) -> bytes:
        return self._count(self._file.read(min(size, self._left)))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data
