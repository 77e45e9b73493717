"""The launcher's HTTP server, and what strangers can do to it."""

import hashlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from inception_trainer.launcher import listener
from inception_trainer.launcher.assignment import Assignment
from inception_trainer.launcher.report import Report, State
from inception_trainer.launcher.server import HEARD_SECONDS, Board, Server

FAILED = Report(
    attempt=3,
    state=State.FAILED,
    time=1767225600.123456,
    exit_code=66,
    rank=1,
    reason="InputMissing",
    message="InputMissingError: no such file\nTraceback …",
    host="job-0-1",
    step=120,
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(0, Board(FAILED))
    server.start()
    yield server
    server.stop()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        return answer.status, answer.read()


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
    connection.sendall(sent)
    return connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other end closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_an_end_that_the_operator_knows_does_not_trouble_the_kubelet_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    board = Board(replace(FAILED, state=State.RUNNING))
    board.heard(proven=True)
    board.publish(FAILED, None)
    assert not board.ready, "it has heard of the ranks, not of their end"
    board.heard(proven=False)
    assert not board.ready, "anybody may have asked"
    board.heard(proven=True)
    assert board.ready
    now += HEARD_SECONDS
    board.heard(proven=True)
    assert not board.ready, "it has done nothing about it"
    board.publish(replace(FAILED, attempt=4), None)
    assert not board.ready
    board.publish(replace(FAILED, leaving=True), None)
    board.heard(proven=True)
    assert not board.ready


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPED])
def test_who_starts_is_not_ready_however_often_it_is_asked(state: State) -> None:
    board = Board(Report(state=state))
    board.heard(proven=True)
    assert board.ready is (state is State.STOPPED)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_answers_on_both_families(server: Server, host: str) -> None:
    status, body = get(server.server_port, "/status", host)
    assert (status, json.loads(body)["state"]) == (200, "Failed")


TOKEN = "d9f3ad6e-3a50-4a2a-8d27-5d6f0f5f1c11"


@pytest.mark.parametrize(
    ("token", "shown", "is_told"),
    [
        (TOKEN, f"Bearer {TOKEN}", True),
        (TOKEN, f"Bearer {TOKEN[:-1]}", False),
        (TOKEN, TOKEN, False),
        (TOKEN, "Bearer ", False),
        (TOKEN, "Bearer \xe9", False),
        (TOKEN, None, False),
        # The pod was made by an operator that shows none.
        ("", None, True),
        ("", f"Bearer {TOKEN}", True),
    ],
)
def test_only_the_operator_is_told_what_ranks_wrote_to_stderr(
    token: str, shown: str | None, is_told: bool
) -> None:
    board = Board(FAILED)
    server = Server(0, board, token)
    server.start()
    url = f"http://127.0.0.1:{server.server_port}/status"
    headers = {} if shown is None else {"Authorization": shown}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        report = json.load(answer)
    server.stop()
    # What decides about restarts is the same for an operator of an older release.
    assert report == FAILED.to_dict() | {"message": FAILED.message if is_told else None}
    assert board.asked is is_told, "a stranger who asks is no operator that listens"


def test_without_ipv6_it_answers_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = Server(0, Board(FAILED))
    server.start()
    assert get(server.server_port, "/healthz") == (200, b"ok\n")
    server.stop()


def test_a_probe_is_answered_while_strangers_hold_connections(server: Server) -> None:
    half_open = b"GET /status HTTP/1.1\r\n"
    held = [connect(server, half_open) for _ in range(listener.MAX_CONNECTIONS + 20)]
    assert get(server.server_port, "/healthz") == (200, b"ok\n")
    # Room was made by closing the oldest.
    assert received(held[0]) == b""
    for connection in held:
        connection.close()


def test_a_request_is_not_read_without_end(server: Server) -> None:
    headers = b"X: " + b"y" * 60_000 + b"\r\n"
    with connect(server, b"GET /healthz HTTP/1.1\r\n" + headers) as connection:
        # What is beyond the bound counts as the end of the request.
        assert received(connection)[:12] in (b"HTTP/1.0 200", b"")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /status HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n", b""),
    ],
)
def test_what_is_not_asked_for_is_refused(server: Server, sent: bytes, status: bytes) -> None:
    with connect(server, sent) as connection:
        assert status in received(connection)
    assert get(server.server_port, "/healthz") == (200, b"ok\n")


KEY = "k" * 64
OPENED_BY_KEY = hashlib.sha256(KEY.encode()).hexdigest()
NEXT = {"attempt": 4, "nnodes": 0, "graceful": False, "contract": 1}


def post(server: Server, body: bytes, path: str = "/assignment", **headers: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}{path}", data=body, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return status


def test_an_assignment_is_taken_from_who_has_the_key_and_once(server: Server) -> None:
    board, header = server.board, {"Inception-Key": KEY}
    text = json.dumps(NEXT).encode()
    assert post(server, text, **header) == 403, "nothing was accepted yet"
    board.accept(Assignment(3, next_key=OPENED_BY_KEY))
    assert post(server, text) == 403
    assert post(server, text, **{"Inception-Key": OPENED_BY_KEY}) == 403
    assert post(server, text, path="/other", **header) == 404
    assert board.take() is None
    assert post(server, text, **header) == 202
    assert post(server, text, **header) == 403, "the one that waits has another key"
    assert board.take() == Assignment(4)
    assert board.take() is None


def test_the_next_but_one_may_be_delivered_before_the_main_loop_turns(server: Server) -> None:
    board, other = server.board, "another key"
    digest = hashlib.sha256(other.encode()).hexdigest()
    board.accept(Assignment(3, next_key=OPENED_BY_KEY))
    standby = json.dumps(NEXT | {"nextKey": digest}).encode()
    assert post(server, standby, **{"Inception-Key": KEY}) == 202
    following = json.dumps(NEXT | {"attempt": 5}).encode()
    assert post(server, following, **{"Inception-Key": other}) == 202
    assert board.take() == Assignment(5)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"attempt": 0}', b"[" * 3000, b'{"attempt": 4} ' + b" " * 9990],
    ids=["nothing", "torn", "no text", "no assignment", "brackets", "too long"],
)
def test_what_is_no_assignment_is_refused_and_the_key_is_still_good(
    server: Server, body: bytes
) -> None:
    server.board.accept(Assignment(3, next_key=OPENED_BY_KEY))
    assert post(server, body, **{"Inception-Key": KEY}) == 400
    assert server.board.take() is None
    assert post(server, json.dumps(NEXT).encode(), **{"Inception-Key": KEY}) == 202
