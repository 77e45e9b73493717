"""A kubelet that the API server asks for logs and commands of pods: logs are texts of the test, and
a command runs as a process of this machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, web

from certificates import certificate
from localcluster.cluster import Cluster

Json = dict[str, Any]
_STDOUT, _STDERR, _STATUS = 1, 2, 3


class FakeKubelet:
    """One node whose kubelet this is."""

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.logs: dict[str, list[str]] = {}
        """By pod: lines, each with its time in front."""
        self.environment: dict[str, str] = {}
        """What commands find in their environment beside that of this process."""
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> FakeKubelet:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}
        self.cluster.kubectl("create", "--filename=-", input=json.dumps(node))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "allocatable": {"cpu": "4", "example.com/gpu": "2"},
        }
        self._patch_status(f"node/{self.name}", status)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.kubectl("delete", "node", self.name)
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def run(self, namespace: str, pod: Json, phase: str = "Running") -> None:
        """Make a pod on this node, in this phase."""
        name = pod["metadata"]["name"]
        pod["spec"] = {"nodeName": self.name, "restartPolicy": "Never", **pod["spec"]}
        here = f"--namespace={namespace}"
        self.cluster.kubectl("create", here, "--filename=-", input=json.dumps(pod))
        self._patch_status(f"pod/{name}", {"phase": phase}, here)

    def _patch_status(self, resource: str, status: Json, *options: str) -> None:
        self.cluster.kubectl(
            *("patch", resource, "--subresource=status", "--type=merge", *options),
            f"--patch={json.dumps({'status': status})}",
        )

    async def _serve(self) -> int:
        for name, content in zip(("tls.crt", "tls.key"), certificate(), strict=True):
            (self._folder / name).write_bytes(content)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        app.router.add_route("*", "/exec/{namespace}/{pod}/{container}", self._exec)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _end(self) -> None:
        server = self._runner.server
        transports = [handler.transport for handler in server.connections] if server else []
        await self._runner.cleanup()
        # The API server keeps its connections; a farewell of TLS would wait for it.
        for transport in transports:
            if transport is not None:
                transport.abort()
        # They are gone after the next round of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _log(self, request: web.Request) -> web.Response:
        pod = request.match_info["pod"]
        if pod not in self.logs:
            return web.Response(status=404, text=f"container trainer of {pod} has no log")
        lines = self.logs[pod]
        if (tail := request.query.get("tailLines")) is not None:
            lines = lines[-int(tail) :] if int(tail) else []
        if request.query.get("timestamps") != "true":
            lines = [line.partition(" ")[2] for line in lines]
        return web.Response(text="".join(f"{line}\n" for line in lines))

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        process = await asyncio.create_subprocess_exec(
            *request.query.getall("command"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )

        async def pass_on(channel: int, stream: asyncio.StreamReader | None) -> None:
            while stream is not None and (data := await stream.read(1 << 16)):
                await socket.send_bytes(bytes([channel]) + data)

        await asyncio.gather(pass_on(_STDOUT, process.stdout), pass_on(_STDERR, process.stderr))
        await socket.send_bytes(bytes([_STATUS]) + _ending(await process.wait()))
        await socket.close(code=WSCloseCode.OK)
        return socket


def _ending(code: int) -> bytes:
    """How a command has ended, in the words of the kubelet."""
    status: Json = {"status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        status = {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with non-zero exit code: exit code {code}",
            "details": {"causes": causes},
        }
    return json.dumps(status).encode()
