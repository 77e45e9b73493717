"""The client: what it sends, which error it raises, what it counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from inception_operator.contract import errors
from inception_operator.runtime.client import JOBS, PODS, Client

Counted = tuple[str, str, str, float]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **options: int) -> AsyncIterator[tuple[Client, list[Counted]]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    counted: list[Counted] = []
    async with TestServer(app) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        configuration.api_key["BearerToken"] = "Bearer secret"
        client = Client(configuration, lambda *request: counted.append(request), **options)
        try:
            yield client, counted
        finally:
            await client.close()


def failure(code: int, reason: str = "") -> web.Response:
    headers = {"Retry-After": "3"} if code == 429 else {}
    body = {"kind": "Status", "code": code, "reason": reason, "message": "because"}
    return web.json_response(body, status=code, headers=headers)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.RejectedError),
        (401, "Unauthorized", errors.ApiError),
        (403, "Forbidden", errors.RejectedError),
        (404, "NotFound", errors.NotFoundError),
        (409, "Conflict", errors.ConflictError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (410, "Expired", errors.GoneError),
        (422, "Invalid", errors.RejectedError),
        (429, "TooManyRequests", errors.ThrottledError),
        (500, "InternalError", errors.UnavailableError),
        (503, "ServiceUnavailable", errors.UnavailableError),
    ],
)
async def test_error_responses_become_typed_errors(
    code: int, reason: str, kind: type[errors.ApiError]
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return failure(code, reason)

    async with serving(handler) as (client, counted):
        with pytest.raises(errors.ApiError) as caught:
            await client.get(PODS, "ns", "name")
    assert type(caught.value) is kind
    assert caught.value.status == code
    assert "because" in str(caught.value)
    assert "/api/v1/namespaces/ns/pods/name" in str(caught.value)
    assert caught.value.retry_after == (3 if code == 429 else None)
    assert [request[:3] for request in counted] == [("get", "pods", str(code))]


async def test_an_answer_that_is_not_json_is_an_error_too() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    async with serving(handler) as (client, _):
        with pytest.raises(errors.UnavailableError, match="bad gateway"):
            await client.get(PODS, "ns", "name")


async def test_a_refused_connection_is_unavailable(unused_tcp_port: int) -> None:
    counted: list[Counted] = []
    configuration = Configuration(host=f"http://127.0.0.1:{unused_tcp_port}")
    client = Client(configuration, lambda *request: counted.append(request))
    with pytest.raises(errors.UnavailableError):
        await client.get(PODS, "ns", "name")
    await client.close()
    ((*request, seconds),) = counted
    assert request == ["get", "pods", "none"]
    assert seconds >= 0


async def test_requests_say_what_the_api_server_needs() -> None:
    seen: list[tuple[str, str, str, object]] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.headers["User-Agent"].startswith("inception-operator/")
        body = json.loads(await request.text() or "null")
        seen.append(
            (request.method, request.path_qs, request.headers.get("Content-Type", ""), body)
        )
        return web.json_response({"kind": "Pod", "metadata": {}})

    status = {"metadata": {"namespace": "ns", "name": "job"}, "status": {"state": None}}
    async with serving(handler) as (client, counted):
        await client.apply_status(JOBS, status)
        await client.merge(PODS, "ns", "pod", {"metadata": {"annotations": {"a": None}}})
        await client.merge(PODS, "ns", "pod", {"metadata": {"labels": {}}}, strategic=True)
        await client.delete(PODS, "ns", "pod", uid="u", grace=0)
        await client.delete(JOBS, "ns", "job", uid="u", version="7", propagation="Background")
        await client.create(PODS, "ns", {"spec": {}})
        await client.list_page(PODS, {"labelSelector": "a=b"}, "token")
        await client.list_page(JOBS, {}, namespace="team")
    path = "/apis/training.inception.dev/v1alpha1/namespaces/ns/inceptiontrainings/job/status"
    manager = "fieldManager=inception-operator"
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
    }
    assert seen == [
        ("PATCH", f"{path}?{manager}&force=true", "application/apply-patch+yaml", status),
        (
            "PATCH",
            f"/api/v1/namespaces/ns/pods/pod?{manager}",
            "application/merge-patch+json",
            {"metadata": {"annotations": {"a": None}}},
        ),
        (
            "PATCH",
            f"/api/v1/namespaces/ns/pods/pod?{manager}",
            "application/strategic-merge-patch+json",
            {"metadata": {"labels": {}}},
        ),
        ("DELETE", "/api/v1/namespaces/ns/pods/pod", "application/json", options),
        (
            "DELETE",
            path.removesuffix("/status"),
            "application/json",
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {"uid": "u", "resourceVersion": "7"},
                "propagationPolicy": "Background",
            },
        ),
        ("POST", "/api/v1/namespaces/ns/pods", "application/json", {"spec": {}}),
        (
            "GET",
            "/api/v1/pods?labelSelector=a%3Db&limit=500&continue=token",
            "application/json",
            None,
        ),
        (
            "GET",
            "/apis/training.inception.dev/v1alpha1/namespaces/team/inceptiontrainings?limit=500",
            "application/json",
            None,
        ),
    ]
    assert [verb for verb, *_ in counted] == [
        *("patch", "patch", "patch", "delete", "delete", "create", "list", "list")
    ]


async def test_no_more_requests_at_once_than_allowed() -> None:
    running, most = 0, 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.json_response({})

    async with serving(handler, concurrency=3) as (client, _):
        await asyncio.gather(*(client.get(PODS, "ns", str(number)) for number in range(12)))
    assert most == 3


def streaming(*lines: object, pause: float = 0.0) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(json.dumps(line).encode() + b"\n")
        await asyncio.sleep(pause)
        return response

    return handler


async def read(client: Client, idle: float = 5.0) -> list[str]:
    async with aclosing(client.watch(PODS, {"resourceVersion": "1"}, idle)) as events:
        return [event["type"] async for event in events]


async def test_a_watch_yields_events_until_the_server_ends_it() -> None:
    added = {"type": "ADDED", "object": {"metadata": {"name": "x" * 300_000}}}
    async with serving(streaming(added, {"type": "BOOKMARK", "object": {}})) as (client, _):
        assert await read(client) == ["ADDED", "BOOKMARK"]


async def test_an_error_inside_the_stream_is_raised() -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    async with serving(streaming(expired)) as (client, _):
        with pytest.raises(errors.GoneError, match="too old"):
            await read(client)


async def test_a_silent_watch_is_given_up() -> None:
    async with serving(streaming({"type": "BOOKMARK", "object": {}}, pause=1.0)) as (client, _):
        with pytest.raises(errors.UnavailableError):
            await read(client, idle=0.05)


async def test_a_torn_line_is_given_up() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADD')
        return response

    async with serving(handler) as (client, _):
        with pytest.raises(errors.UnavailableError):
            await read(client)


@pytest.mark.parametrize(
    ("code", "reached"),
    [(200, True), (403, True), (404, True), (429, True), (401, False), (500, False), (503, False)],
)
async def test_contact_is_an_answer_to_us(code: int, reached: bool) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.json_response({}) if code == 200 else failure(code)

    async with serving(handler) as (client, _):
        with suppress(errors.ApiError):
            await client.get(PODS, "ns", "pod")
        assert (client.contact.problem is None) is reached


async def test_nobody_there_is_no_contact() -> None:
    client = Client(Configuration(host="http://127.0.0.1:1"))
    try:
        with pytest.raises(errors.UnavailableError):
            await client.get(PODS, "ns", "pod")
        problem = client.contact.problem
        assert problem is not None
        assert "http://127.0.0.1:1" in problem
    finally:
        await client.close()
