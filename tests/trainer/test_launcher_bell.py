"""The launcher's end of the bell."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from threading import Thread

import pytest

from inception_trainer.launcher import bell


class Operator(HTTPServer):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.heard: Queue[str] = Queue()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Operator

    def do_POST(self) -> None:
        self.send_response(202)
        self.end_headers()
        self.server.heard.put(self.path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def operator() -> Iterator[Operator]:
    server = Operator()
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_ring_names_the_pod(operator: Operator) -> None:
    bell.ring(operator.address, "team-a/job", "job-0-1")
    assert operator.heard.get(timeout=10) == "/ring/team-a/job/job-0-1"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense:port", "["])
def test_nobody_at_the_other_end_is_no_failure(address: str) -> None:
    bell.ring_and_wait(address, "team-a/job", "job-0-1")
