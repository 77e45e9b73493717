"""A TCP proxy in front of the API server whose connections can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import yaml


class CutProxy:
    """Forwards to the server of a kubeconfig; ``kubeconfig`` is a copy that leads through it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        target = urlsplit(cluster["server"])
        self._target = (str(target.hostname), int(target.port or 443))
        self._listener = socket.create_server(("127.0.0.1", 0))
        cluster["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kubeconfig = folder / "through-proxy.yaml"
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads = [threading.Thread(target=self._accept, name="cut-proxy")]
        self.accepted = 0

    def __enter__(self) -> CutProxy:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """Reset every connection there is; new ones are let through."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for side in pair:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """No connection survives and none comes about."""
        self._open.clear()
        self.cut()
        yield
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                client.close()
                continue
            self.accepted += 1
            pair = (client, socket.create_connection(self._target))
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                thread = threading.Thread(
                    target=self._pump, args=(pair, source, sink), name="cut-proxy-pump"
                )
                self._threads.append(thread)
                thread.start()

    def _pump(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for side in pair:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for side in pair:
            side.close()
