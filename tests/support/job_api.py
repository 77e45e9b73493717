"""A small API server over HTTP that knows InceptionTrainings, their pods and logs: for clients."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from inception_operator.contract import names

Json = dict[str, Any]
NAMESPACE = "team"
# As a pod may write it: with what a terminal would obey.
ROOT_CAUSE = {
    "attempt": 1,
    "pod": "digits-1-1",
    "node": "n1",
    "rank": 3,
    "exitCode": 65,
    "reason": "DataError",
    "message": "no images in /data\x1b[2J",
}
_JOBS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
_CORE = f"/api/v1/namespaces/{NAMESPACE}"


class JobApi:
    """Answers requests from what the test has put into it, and keeps what it was asked.

    A watch begins with the job as it is then, and tells every change of it.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Json] = {}
        self.pods: list[Json] = []
        self.events: list[Json] = []
        self.logs: dict[str, list[str]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        """By the end of a path: how requests for it are answered, instead."""
        self.on_change: Callable[[str], object] = lambda _name: None
        """What happens to a job, by its name, as soon as its spec is changed."""
        self.busy: dict[str, int] = {}
        """By the end of a path: how often it is answered that the API server is too busy."""
        self.cuts: dict[str, int] = {}
        """By the end of a path: how often the answer breaks off in its middle."""
        self.asked: list[tuple[str, str, Json | None]] = []
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.watched = threading.Event()
        """Set once somebody watches."""
        self._version = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._watchers: list[asyncio.Queue[Json | None]] = []

    def __enter__(self) -> JobApi:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig with which kubectl would work in the namespace."""
        context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": context}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "let-me-in"}}],
        }
        file = folder / "config"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        return file

    def put(self, name: str, **status: Any) -> None:
        """Write the status of a job, which is made where it is not there."""
        self._loop.call_soon_threadsafe(self._put, name, status)

    def remove(self, name: str) -> None:
        """Delete a job."""
        self._loop.call_soon_threadsafe(self._remove, name)

    def add_pods(self, job: str, phases: Iterable[str]) -> None:
        """Pods of a job, a slot each."""
        for slot, phase in enumerate(phases):
            name = f"{job}-{slot}-1"
            labels = {
                names.LABEL_JOB: job,
                names.LABEL_SLOT: str(slot),
                names.LABEL_INCARNATION: "1",
            }
            metadata = {"name": name, "uid": f"uid-{name}", "labels": labels}
            self.pods.append({"metadata": metadata, "status": {"phase": phase}})

    def _put(self, name: str, status: Json) -> None:
        job = self.jobs.setdefault(name, _made(name))
        job.setdefault("status", {}).update(status)
        self._tell("MODIFIED", job)

    def _remove(self, name: str) -> None:
        self._tell("DELETED", self.jobs.pop(name))

    def _tell(self, kind: str, job: Json) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)
        for watcher in self._watchers:
            watcher.put_nowait({"type": kind, "object": copy.deepcopy(job)})

    async def _end(self) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(None)
        await self._runner.cleanup()

    async def _serve(self) -> int:
        app = web.Application(middlewares=[self._keep])
        app.router.add_get(_JOBS, self._list)
        app.router.add_post(_JOBS, self._create)
        app.router.add_get(f"{_JOBS}/{{name}}", self._get)
        app.router.add_patch(f"{_JOBS}/{{name}}", self._change)
        app.router.add_patch(f"{_JOBS}/{{name}}/scale", self._change)
        app.router.add_delete(f"{_JOBS}/{{name}}", self._delete)
        app.router.add_get(f"{_CORE}/events", self._list_events)
        app.router.add_get(f"{_CORE}/pods", self._list_pods)
        app.router.add_get(f"{_CORE}/pods/{{name}}", self._pod)
        app.router.add_get(f"{_CORE}/pods/{{name}}/log", self._log)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    @web.middleware
    async def _keep(self, request: web.Request, handler: Any) -> Any:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, body))
        self.queries.append((request.path, dict(request.query)))
        if request.headers.get("Authorization") != "Bearer let-me-in":
            return web.json_response({"message": "Unauthorized"}, status=401)
        for end, (status, message) in self.refusals.items():
            if request.path.endswith(end):
                return web.json_response({"message": message}, status=status)
        if _counts_down(self.busy, request.path):
            refusal = {"message": "too many requests"}
            return web.json_response(refusal, status=429, headers={"Retry-After": "0"})
        answer = await handler(request)
        return await _cut(request, answer) if _counts_down(self.cuts, request.path) else answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        team = request.query.get("labelSelector", "").partition("=")[2]
        found = [
            job
            for job in self.jobs.values()
            if not team or (job["metadata"].get("labels") or {}).get("team") == team
        ]
        return web.json_response({"items": found})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        told: asyncio.Queue[Json | None] = asyncio.Queue()
        # What has changed since the job was asked for, as the API server tells it.
        wanted = request.query["fieldSelector"].partition("=")[2]
        job = self.jobs.get(wanted)
        if job is not None and job["metadata"]["resourceVersion"] != request.query.get(
            "resourceVersion"
        ):
            told.put_nowait({"type": "MODIFIED", "object": copy.deepcopy(job)})
        self._watchers.append(told)
        self.watched.set()
        try:
            while (event := await told.get()) is not None:
                if event["object"]["metadata"]["name"] == wanted:
                    await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._watchers.remove(told)
        return response

    async def _create(self, request: web.Request) -> web.Response:
        job = await request.json()
        name = job["metadata"]["name"]
        if name in self.jobs:
            return web.json_response({"message": f"{name} exists"}, status=409)
        job["metadata"] |= {"uid": f"uid-{name}", "namespace": NAMESPACE}
        if "dryRun" not in request.query:
            self.jobs[name] = job
            self._tell("ADDED", job)
        return web.json_response(job, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        return web.json_response(job) if job is not None else _missing(request)

    async def _change(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        if job is None:
            return _missing(request)
        for key, value in (await request.json())["spec"].items():
            if isinstance(value, dict):
                job["spec"].setdefault(key, {}).update(value)
            else:
                job["spec"]["numNodes"] = value
        self.on_change(request.match_info["name"])
        self._tell("MODIFIED", job)
        return web.json_response(job)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.jobs:
            return _missing(request)
        self._remove(name)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _list_pods(self, request: web.Request) -> web.Response:
        job = request.query["labelSelector"].partition("=")[2]
        return web.json_response({"items": [pod for pod in self.pods if _is_of(pod, job)]})

    async def _list_events(self, request: web.Request) -> web.Response:
        pairs = [pair.split("=") for pair in request.query["fieldSelector"].split(",")]
        wanted = {key.rpartition(".")[2]: value for key, value in pairs}
        found = [
            event
            for event in self.events
            if wanted.items() <= {**event["involvedObject"], "type": event["type"]}.items()
        ]
        return web.json_response({"items": found})

    async def _pod(self, request: web.Request) -> web.Response:
        found = [pod for pod in self.pods if pod["metadata"]["name"] == request.match_info["name"]]
        return web.json_response(found[0]) if found else _missing(request)

    async def _log(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.logs:
            return web.json_response({"message": "waiting to start"}, status=400)
        lines = [line for line in self.logs[name] if line >= request.query.get("sinceTime", "")]
        return web.Response(text="".join(f"{line}\n" for line in lines))


def _counts_down(counts: dict[str, int], path: str) -> bool:
    end = next((end for end, left in counts.items() if path.endswith(end) and left), None)
    if end is not None:
        counts[end] -= 1
    return end is not None


async def _cut(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The first half of an answer, and then no connection any more."""
    body = answer.body
    assert isinstance(body, bytes)
    torn = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await torn.prepare(request)
    await torn.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return torn


def _is_of(pod: Json, job: str) -> bool:
    return bool(pod["metadata"]["labels"][names.LABEL_JOB] == job)


def _made(name: str) -> Json:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": 1}
    return {"metadata": {**metadata, "resourceVersion": "0"}, "spec": {}}


def _missing(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response({"message": f"no {name}", "details": {"name": name}}, status=404)
