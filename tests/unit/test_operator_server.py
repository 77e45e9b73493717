"""The operator's HTTP server against whoever reaches its port."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from inception_operator.runtime.connections import ANY_ADDRESS, Connections
from inception_operator.runtime.server import CachedPage, Server

PROBE = b"GET /healthz HTTP/1.1\r\nHost: operator\r\n\r\n"
BIG_PAGE = b"x" * (64 << 20)
"""More than the kernel keeps for one who does not read."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1",
    *,
    connections: Connections | None = None,
    metrics: Callable[[], bytes] = lambda: b"one 1\n",
) -> AsyncIterator[int]:
    server = Server(
        host,
        0,
        healthy=lambda: None,
        ready=lambda: None,
        metrics=metrics,
        notify=lambda *_: True,
        connections=connections,
    )
    await server.start()
    try:
        yield server.port
    finally:
        await server.close()


async def connect(port: int, source: str = "127.0.0.1") -> Streams:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def ask(port: int, request: bytes = PROBE, source: str = "127.0.0.1") -> bytes:
    """The whole answer, up to the end of the connection."""
    reader, writer = await connect(port, source)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def is_closed(streams: Streams) -> bool:
    """Whether the other end closes the connection without an answer, now or later."""
    reader, writer = streams
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True
    finally:
        writer.close()


async def wait_until_empty(connections: Connections) -> None:
    for _ in range(1000):
        if not len(connections):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("connections stay")


async def test_a_probe_is_answered_while_strangers_hold_more_connections_than_there_may_be() -> (
    None
):
    connections = Connections(16)
    async with serving(connections=connections) as port:
        held = [await connect(port) for _ in range(50)]
        for _, writer in held:
            writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert b" 200 OK" in await ask(port)
        assert len(connections) <= 16
        # Room was made by closing the oldest.
        assert await is_closed(held[0])
        for _, writer in held:
            writer.close()


async def test_room_is_made_at_the_address_that_holds_most_connections() -> None:
    async with serving(connections=Connections(8)) as port:
        kubelet = await connect(port, "127.0.0.2")
        strangers = [await connect(port) for _ in range(30)]
        assert await is_closed(strangers[0])
        kubelet[1].write(PROBE)
        assert b" 200 OK" in await kubelet[0].read()
        for _, writer in (kubelet, *strangers):
            writer.close()


async def test_a_closed_connection_makes_room() -> None:
    connections = Connections(4)
    async with serving(connections=connections) as port:
        for _ in range(12):
            assert b" 200 OK" in await ask(port)
        assert len(connections) <= 4
        waiting = await connect(port)
        assert b" 200 OK" in await ask(port)
        waiting[1].write(PROBE)
        assert b" 200 OK" in await waiting[0].read()
        waiting[1].close()


@pytest.mark.parametrize("sent", [b"", b"GET /hea", PROBE[:-2], b"POST /ring/a/b/c HTTP/1.1\r\n"])
async def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    connections = Connections(seconds=0.05)
    async with serving(connections=connections) as port:
        streams = await connect(port)
        streams[1].write(sent)
        assert await is_closed(streams)
        await wait_until_empty(connections)


async def test_an_answer_that_nobody_reads_is_dropped() -> None:
    connections = Connections(seconds=0.1)
    async with serving(connections=connections, metrics=lambda: BIG_PAGE) as port:
        reader, writer = await connect(port)
        writer.transport.pause_reading()
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: operator\r\n\r\n")
        await wait_until_empty(connections)
        writer.transport.resume_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(BIG_PAGE))
        writer.close()


async def test_a_page_larger_than_one_piece_arrives_whole() -> None:
    page = bytes(range(256)) * 1000
    async with serving(metrics=lambda: page) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/metrics"
        async with session.get(url) as response:
            assert await response.read() == page
        async with session.head(url) as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_a_connection_is_good_for_one_request() -> None:
    async with serving() as port:
        answer = await ask(port, PROBE * 3)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /ring/ns/job/pod HTTP/1.1\r\nHost: o\r\nContent-Length: 4\r\n\r\nbody", b"413"),
        (b"GET /metrics HTTP/1.1\r\nHost: o\r\nContent-Length: 1000000\r\n\r\n", b"413"),
        (
            b"POST /ring/a/b/c HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody",
            b"413",
        ),
        (b"POST /ring/ns/job/pod HTTP/1.1\r\nHost: o\r\nContent-Length: 0\r\n\r\n", b"202"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: o\r\n\r\n", b"405"),
        (b"GET /ring/ns/job/pod HTTP/1.1\r\nHost: o\r\n\r\n", b"405"),
        (b"GET /none HTTP/1.1\r\nHost: o\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: o\r\nContent-Length: x\r\n\r\n", b"400"),
    ],
)
async def test_a_request_out_of_bounds_is_refused_and_not_logged(
    request_: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "inception_operator"), caplog.at_level(logging.DEBUG):
        async with serving() as port:
            assert (await ask(port, request_)).split()[1] == status
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_a_request_of_many_bytes_is_cut_off() -> None:
    async with serving(connections=Connections(max_bytes=4096)) as port:
        streams = await connect(port)
        streams[1].write(b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 1000)
        assert await is_closed(streams)
        assert b" 200 OK" in await ask(port)


async def test_an_error_of_ours_is_an_answer_and_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> bytes:
        raise RuntimeError("no page")

    async with serving(metrics=broken) as port:
        for _ in range(3):
            answer = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: o\r\n\r\n")
            assert answer.split()[1] == b"500"
    assert [record.getMessage() for record in caplog.records] == ["/metrics was not answered"]


async def test_all_who_ask_at_once_get_one_page() -> None:
    made = 0
    released = threading.Event()

    def make() -> bytes:
        nonlocal made
        made += 1
        # Off the event loop: it stands still for nobody.
        assert released.wait(30)
        return b"page %d" % made

    time = 100.0
    page = CachedPage(make, clock=lambda: time)
    asking = [asyncio.create_task(page.get()) for _ in range(100)]
    await asyncio.sleep(0)
    asking.pop().cancel()
    released.set()
    assert set(await asyncio.gather(*asking)) == {b"page 1"}
    time = 100.9
    assert await page.get() == b"page 1"
    time = 101.0
    assert await page.get() == b"page 2"


async def test_a_page_that_takes_long_to_make_is_kept_for_longer() -> None:
    time = 0.0

    def make() -> bytes:
        nonlocal time
        time += 1.0
        return b"%d" % time

    page = CachedPage(make, clock=lambda: time)
    assert await page.get() == b"1"
    time += 3.9
    assert await page.get() == b"1"
    time += 0.1
    assert await page.get() == b"6"


async def test_after_an_error_the_next_who_asks_tries_again() -> None:
    answers = [RuntimeError("no page"), b"page"]

    def make() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    page = CachedPage(make)
    with pytest.raises(RuntimeError):
        await page.get()
    assert await page.get() == b"page"


async def test_the_server_answers_on_both_families() -> None:
    async with serving(ANY_ADDRESS) as port, aiohttp.ClientSession() as session:
        for host in ("127.0.0.1", "[::1]"):
            async with session.get(f"http://{host}:{port}/healthz") as response:
                assert response.status == 200


async def test_without_ipv6_the_server_answers_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    async with serving(ANY_ADDRESS) as port:
        assert b" 200 OK" in await ask(port)
