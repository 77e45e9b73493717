"""A leader whose Lease is over sends nothing more, wherever it stood when it was frozen."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

import busy_leader
from inception_operator.contract.errors import LeadershipLostError, UnavailableError
from inception_operator.runtime.client import JOBS, LEASES, NODES, PODS, Client
from inception_operator.runtime.containment import Containment, Where
from inception_operator.runtime.fence import LEASE_GROUP, Fence, group_of
from inception_operator.runtime.workqueue import WorkQueue, work


class Clock:
    """Shows the times it was given, one at each look; then the last one for ever."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)

    def __call__(self) -> float:
        return self.times.pop(0) if len(self.times) > 1 else self.times[0]


class ApiServer:
    """Keeps what it was sent; answers after ``pause`` seconds."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.pause = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(f"{request.method} {request.path.rsplit('/', 1)[-1]}")
        await asyncio.sleep(self.pause)
        return web.json_response({"status": {"allowed": True}})


@asynccontextmanager
async def serving(fence: Fence, **options: int) -> AsyncIterator[tuple[Client, ApiServer]]:
    api = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    async with TestServer(app) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        configuration.client_session_kwargs = {"trust_env": False}
        client = Client(configuration, fence=fence, **options)
        try:
            yield client, api
        finally:
            await client.close()


async def test_writes_pass_until_the_deadline_and_none_after_it() -> None:
    clock = Clock(0.0)
    fence = Fence(clock)
    fence.lead_until(1000.0)
    async with serving(fence) as (client, api):
        clock.times = [960.0]
        await client.create(PODS, "ns", {})
        clock.times = [1000.0]
        body = {"metadata": {"namespace": "ns", "name": "x"}}
        for write in (
            client.create(PODS, "ns", {}),
            client.replace(LEASES, "ns", "lease", {}),
            client.merge(PODS, "ns", "pod", {}),
            client.apply_status(JOBS, body),
            client.delete(PODS, "ns", "pod", uid="u"),
        ):
            with pytest.raises(LeadershipLostError, match="is not sent"):
                await write
        assert api.requests == ["POST pods"]


async def test_reads_and_questions_need_no_lease() -> None:
    fence = Fence(Clock(0.0))
    async with serving(fence) as (client, api):
        await client.get(PODS, "ns", "pod")
        assert await client.allowed("get", NODES)
        fence.close()
        await client.get(PODS, "ns", "pod")
        assert await client.allowed("get", NODES)
        assert len(api.requests) == 4


async def test_who_waits_for_leadership_writes_the_lease_and_nothing_else() -> None:
    async with serving(Fence(Clock(0.0))) as (client, api):
        await client.create(LEASES, "ns", {})
        with pytest.raises(LeadershipLostError):
            await client.create(PODS, "ns", {})
        assert api.requests == ["POST leases"]


@pytest.mark.parametrize("looks", [1, 2])
async def test_a_process_that_is_frozen_on_the_way_to_the_socket_sends_nothing(looks: int) -> None:
    clock = Clock(0.0)
    fence = Fence(clock)
    fence.lead_until(10.0)
    async with serving(fence) as (client, api):
        # Begun in time, and frozen after so many looks at the clock.
        clock.times = [*[0.0] * looks, 20.0]
        with pytest.raises(LeadershipLostError):
            await client.create(PODS, "ns", {"spec": {}})
        assert api.requests == []


async def test_a_process_that_is_frozen_before_the_body_is_written_sends_not_even_the_head() -> (
    None
):
    clock = Clock(0.0)
    fence = Fence(clock)
    fence.lead_until(10.0)
    async with serving(fence) as (client, api):
        clock.times = [0.0, 0.0, 0.0, 20.0]
        with pytest.raises(UnavailableError):
            await client.create(PODS, "ns", {"spec": {}})
        clock.times = [0.0]
        await client.get(PODS, "ns", "pod")
        assert api.requests == ["GET pod"]


async def test_a_write_that_waited_for_its_turn_too_long_is_not_sent() -> None:
    clock = Clock(0.0)
    fence = Fence(clock)
    fence.lead_until(10.0)
    async with serving(fence, concurrency=1) as (client, api):
        api.pause = 0.1
        first = asyncio.create_task(client.get(PODS, "ns", "slow"))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(client.create(PODS, "ns", {}))
        await asyncio.sleep(0.01)
        clock.times = [10.0]
        await first
        with pytest.raises(LeadershipLostError):
            await second
        assert api.requests == ["GET slow"]


async def test_a_write_without_an_answer_is_given_up_when_the_time_to_renew_is_over() -> None:
    clock = Clock(9.95)
    fence = Fence(clock)
    fence.lead_until(10.0)
    async with serving(fence) as (client, api):
        api.pause = 20.0
        with pytest.raises(UnavailableError):
            await client.create(PODS, "ns", {})


async def test_nobody_in_the_process_goes_on_after_the_loss() -> None:
    async def handler(_key: tuple[str, str]) -> None:
        raise LeadershipLostError("over")

    queue = WorkQueue()
    queue.add(("ns", "job"))
    with pytest.raises(LeadershipLostError):
        await work(queue, handler)
    queue.close()

    def count(where: str) -> None:
        raise AssertionError(f"counted as an error of one object: {where}")

    containment = Containment(count)
    with pytest.raises(LeadershipLostError), containment.contain(("ns", "job"), Where.EVENT):
        raise LeadershipLostError("over")


async def test_what_could_not_be_sent_is_forgotten_with_the_process() -> None:
    # An API server that takes the connection and reads nothing: most of the body stays in the
    # kernel of the client, as all of it does when the network drops packets.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        script = Path(busy_leader.__file__)
        process = await asyncio.create_subprocess_exec(sys.executable, str(script), url, str(LARGE))
        try:
            connection, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
            with connection:
                # The head and some of the body: the rest follows as far as the buffers go.
                assert connection.recv(1000)
                await asyncio.sleep(0.5)
                process.kill()
                await process.wait()
                with pytest.raises(ConnectionResetError):
                    _read_to_the_end(connection)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(2**20):
        pass


LARGE = 64 * 2**20
BUSY = 50
"""After so many writes it is right in the middle of them."""


class LeaseServer(ApiServer):
    """An API server that stores a Lease, whoever writes it, and notes when each write came."""

    def __init__(self) -> None:
        super().__init__()
        self.lease: dict[str, Any] | None = None
        self.times: list[float] = []
        self.busy = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        if request.method != "GET":
            self.times.append(time.monotonic())
            if len(self.times) >= BUSY:
                self.busy.set()
        if group_of(request.path) != LEASE_GROUP:
            return web.json_response(body)
        if request.method != "GET":
            self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        if self.lease is None:
            return web.json_response({"message": "no Lease yet"}, status=404)
        return web.json_response(self.lease)


async def test_a_process_that_is_frozen_among_its_writes_sends_none_when_it_goes_on() -> None:
    api = LeaseServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        script = Path(busy_leader.__file__)
        process = await asyncio.create_subprocess_exec(sys.executable, str(script), url)
        try:
            async with asyncio.timeout(60):
                await api.busy.wait()
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(busy_leader.RENEW_DEADLINE + 0.1)
            before = len(api.times)
            assert before >= BUSY
            process.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(process.wait(), 60) == busy_leader.LOST
            await asyncio.sleep(0.1)
            assert len(api.times) == before, "not one write since it went on"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
