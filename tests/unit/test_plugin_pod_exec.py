"""Commands in pods: what they write, how they end, and what is said when they cannot be run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import FORBIDDEN, UNAVAILABLE, ClientError
from inception_operator.plugin import pod_exec

POD: dict[str, Any] = {"metadata": {"name": "digits-0-1"}}
SUCCESS = b'\x03{"status": "Success"}'
RIGHT = 'User "jane" cannot create resource "pods/exec" in API group ""'
FORBIDDEN_ANSWER = {"message": f'pods "digits-0-1" is forbidden: {RIGHT}', "reason": "Forbidden"}


class ApiServer:
    """Answers commands by the frames of the test, and says which ones were asked for."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.stays = False
        self.refusal = (403, FORBIDDEN_ANSWER)
        self.asked: list[web.Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._over = asyncio.Event()

    def __enter__(self) -> ApiServer:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> int:
        app = web.Application()
        path = "/api/v1/namespaces/team/pods/digits-0-1/exec"
        app.router.add_get(path, self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if not self.frames:
            status, answer = self.refusal
            return web.json_response(answer, status=status)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for frame in self.frames:
            await socket.send_bytes(frame)
        if self.stays:
            await self._over.wait()
        await socket.close()
        return socket


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as found:
        yield found


@pytest.fixture
def cluster(server: ApiServer, tmp_path: Path) -> Iterator[Cluster]:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.port}"}},
        ],
        "users": [{"name": "u", "user": {"token": "let-me-in"}}],
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with Cluster(str(file), None, "team") as found:
        yield found


def test_output_comes_as_it_is_and_the_end_is_the_code_of_the_command(
    server: ApiServer, cluster: Cluster
) -> None:
    failure = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
    ending = b"\x03" + json.dumps(failure).encode()
    server.frames = [b"\x01a\xff", b"\x02oh", b"\x01\x00b", b"\x02 no", ending]
    output = bytearray()
    found = pod_exec.run(cluster, POD, ["python3", "-c", "a b&c=d"], output.extend, 30)
    assert (found.code, found.errors, bytes(output)) == (7, "oh no", b"a\xff\x00b")
    (request,) = server.asked
    assert request.query.getall("command") == ["python3", "-c", "a b&c=d"]
    assert request.query["container"] == "trainer"
    assert request.headers["Authorization"] == "Bearer let-me-in"
    server.frames = [SUCCESS]
    assert pod_exec.run(cluster, POD, ["true"], output.extend, 30).code == 0


@pytest.mark.parametrize(
    ("frames", "stays", "code", "said"),
    [
        ([], False, FORBIDDEN, f"is forbidden: {RIGHT}"),
        ([b"\x01half"], False, UNAVAILABLE, "the connection broke"),
        ([b"\x01half"], True, UNAVAILABLE, "has said nothing for 0 s"),
    ],
    ids=["refused", "broken", "silent"],
)
def test_a_command_without_an_end_is_an_error(
    server: ApiServer, cluster: Cluster, frames: list[bytes], stays: bool, code: int, said: str
) -> None:
    server.frames, server.stays = frames, stays
    with pytest.raises(ClientError, match=said) as caught:
        pod_exec.run(cluster, POD, ["true"], lambda _: None, 0.01 if stays else 30)
    assert caught.value.code == code


def test_a_container_that_has_just_ended_is_told_from_one_that_cannot_be_reached(
    server: ApiServer, cluster: Cluster
) -> None:
    said = 'unable to upgrade connection: container not found ("trainer")'
    server.refusal = (500, {"kind": "Status", "message": said})
    with pytest.raises(pod_exec.ContainerEndedError, match="digits-0-1 has just ended"):
        pod_exec.run(cluster, POD, ["true"], lambda _: None, 30)
