"""The operator's Kubernetes client: dicts in and out, typed errors, bounded concurrency.

It uses the transport and the credentials of the official asyncio client. Only ``ApiClient`` and
``Configuration`` are imported: one typed API class would add 24 MB of memory, and a typed list of
500 pods costs 180 ms instead of 15. Nothing is retried here: the work queue does that, and the
reflector and the Lease in their own ways.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

from inception_operator import __version__
from inception_operator.contract import names
from inception_operator.contract.decoding import (
    MAX_ITEM_BYTES,
    decode_event,
    decode_list,
    decode_object,
)
from inception_operator.contract.errors import (
    ApiError,
    SettingsError,
    TooLargeError,
    UnavailableError,
    api_error,
)
from inception_operator.contract.types import Json

from .contact import Contact
from .fence import READS, Fence, fenced

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
PARTIAL_LIST: Final = (
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)
PARTIAL: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
PAGE: Final = 500
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
# Requests at once of the whole process: a restart with 10,000 jobs must not flood the API server.
CONCURRENCY: Final = 50
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)

Count = Callable[[str, str, str, float], None]
"""Told verb, plural name and HTTP status of each request, and how many seconds its answer took; the
status is ``none`` without answer.
"""


@dataclass(frozen=True)
class Kind:
    """A kind of API objects as it appears in URLs: Kubernetes' GroupVersionResource."""

    group: str
    version: str
    plural: str

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection, object or sub-resource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])

    @property
    def api_version(self) -> str:
        """Value of ``apiVersion`` in bodies."""
        return f"{self.group}/{self.version}" if self.group else self.version


JOBS: Final = Kind(names.GROUP, names.VERSION, names.PLURAL)
PODS: Final = Kind("", "v1", "pods")
NODES: Final = Kind("", "v1", "nodes")
EVENTS: Final = Kind("", "v1", "events")
CLAIM_TEMPLATES: Final = Kind("resource.k8s.io", "v1", "resourceclaimtemplates")
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases")
REVIEWS: Final = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
ACCESS_REVIEWS: Final = Kind("authorization.k8s.io", "v1", "subjectaccessreviews")
TOKEN_REVIEWS: Final = Kind("authentication.k8s.io", "v1", "tokenreviews")


async def load_configuration(kubeconfig: Path | None = None) -> Configuration:
    """Credentials from a kubeconfig file, else those of the pod's service account."""
    # trust_env would cost a thread hop per request; a proxy belongs into the kubeconfig.
    configuration = Configuration(client_session_kwargs={"trust_env": False})
    try:
        if kubeconfig is None:
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig), client_configuration=configuration, persist_config=False
            )
    except Exception as error:
        raise SettingsError(f"no usable credentials for the API server: {error}") from error
    return configuration


class Client:
    """Requests to one API server; with a ``fence``, writes only while that lets them pass."""

    def __init__(
        self,
        configuration: Configuration,
        count: Count | None = None,
        concurrency: int = CONCURRENCY,
        fence: Fence | None = None,
    ) -> None:
        self._fence = fence
        if fence is not None:
            configuration = copy.copy(configuration)
            extra = configuration.client_session_kwargs or {}
            configuration.client_session_kwargs = {**extra, "request_class": fenced(fence)}
        # The package is typed only in part.
        self._api: Any = ApiClient(configuration)
        self.contact = Contact(str(configuration.host))
        self._api.user_agent = f"inception-operator/{__version__}"
        self._count: Count = count or (lambda _verb, _kind, _code, _seconds: None)
        self._slots = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        """One object."""
        return await self._request("get", "GET", kind, kind.path(namespace, name))

    async def list_page(
        self,
        kind: Kind,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
        limit: int = PAGE,
    ) -> Json:
        """One page of a list, over all namespaces when ``namespace`` is None.

        ``metadata.continue`` of the answer is the token of the next page, if there is one. Raises
        TooLargeError for one with more than `MAX_BODY_BYTES`.
        """
        query = {**query, "limit": str(limit), **({"continue": token} if token else {})}
        accept = PARTIAL_LIST if metadata_only else None
        return await self._request(
            "list",
            "GET",
            kind,
            kind.path(namespace),
            query=query,
            accept=accept,
            decode=decode_list,
        )

    async def list_pages(
        self,
        kind: Kind,
        query: Mapping[str, str],
        *,
        metadata_only: bool = False,
        namespace: str | None = None,
        limit: int = PAGE,
    ) -> AsyncGenerator[Json, None]:
        """All pages of a list; their ``metadata.resourceVersion`` is the same on each."""
        token = ""
        while True:
            # Pages and not objects: who keeps a part of each must not hold 10,000 whole ones.
            try:
                page = await self.list_page(
                    kind,
                    query,
                    token,
                    metadata_only=metadata_only,
                    namespace=namespace,
                    limit=limit,
                )
            except TooLargeError:
                # Somebody fills his objects up to what etcd takes, 1.5 MB: fewer of them at a time.
                if limit == 1:
                    raise
                limit = max(1, limit // 10)
                continue
            yield page
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        """Create an object; the answer is what is stored."""
        return await self._request("create", "POST", kind, kind.path(namespace), body=body)

    async def allowed(self, verb: str, kind: Kind, namespace: str = "") -> bool:
        """Whether RBAC lets the operator do this to a kind, in all namespaces if none is named."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        if namespace:
            attributes["namespace"] = namespace
        spec = {"resourceAttributes": attributes}
        answer = await self.review(REVIEWS, "SelfSubjectAccessReview", spec)
        return bool(answer.get("allowed"))

    async def review(self, kind: Kind, name: str, spec: Json) -> Json:
        """Ask the API server a question of this kind; the status of the answer."""
        body = {"apiVersion": kind.api_version, "kind": name, "spec": spec}
        answer = await self._request("create", "POST", kind, kind.path(), body=body)
        return answer.get("status") or {}

    async def replace(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        """Update with the resourceVersion of ``body`` as precondition."""
        return await self._request("update", "PUT", kind, kind.path(namespace, name), body=body)

    async def merge(
        self, kind: Kind, namespace: str, name: str, body: Json, *, strategic: bool = False
    ) -> Json:
        """JSON merge patch; ``metadata.uid`` or ``resourceVersion`` in the body are preconditions.

        A strategic one merges lists by their keys (ownerReferences by uid) instead of replacing
        them; custom resources do not take it.
        """
        query = {"fieldManager": names.FIELD_MANAGER}
        path = kind.path(namespace, name)
        content_type = STRATEGIC if strategic else MERGE
        return await self._request(
            "patch", "PATCH", kind, path, query=query, body=body, content_type=content_type
        )

    async def apply_status(self, kind: Kind, body: Json) -> Json:
        """Server-side apply of the status sub-resource; owns every field that ``body`` names."""
        metadata = body["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        return await self._request(
            "patch", "PATCH", kind, path, query=query, body=body, content_type=APPLY
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        grace: int | None = None,
        version: str | None = None,
        propagation: str | None = None,
    ) -> Json:
        """Delete the object with this ``uid``, not a successor of the same name.

        With ``version``, a resourceVersion, only as it was seen. ``grace`` is in seconds, None
        means the object's own; ``propagation`` says what happens to its children.
        """
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if version is not None:
            body["preconditions"]["resourceVersion"] = version
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if propagation is not None:
            body["propagationPolicy"] = propagation
        return await self._request("delete", "DELETE", kind, kind.path(namespace, name), body=body)

    async def watch(
        self,
        kind: Kind,
        query: Mapping[str, str],
        idle: float,
        namespace: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Json, None]:
        """Watch events, over all namespaces when ``namespace`` is None, until the server ends.

        Silence longer than ``idle`` seconds raises UnavailableError: a connection through a dead
        node or a forgetful firewall never ends by itself. Bookmarks keep a live one from it.
        """
        query = {**query, "watch": "true", "allowWatchBookmarks": "true"}
        # The transport's default of 300 s in total would end every watch, busy or not.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=idle)
        path = kind.path(namespace)
        accept = PARTIAL if metadata_only else None
        response = await self._send(
            "watch", "GET", kind, path, query, accept=accept, timeout=timeout
        )
        try:
            # Line by line, because the package's own Watch builds a model of each object.
            async for line in response.response.content:
                event = decode_event(line)
                # The stream began with 200, so an expired version (410) comes as an event.
                if event["type"] == "ERROR":
                    raise _stream_error(path, event["object"])
                yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _unavailable(f"watch {path}", error) from error
        finally:
            response.response.close()

    async def _request(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        decode: Callable[[bytes], Json] = decode_object,
        **kwargs: Any,
    ) -> Json:
        async with self._slots:
            response = await self._send(verb, method, kind, path, query or {}, **kwargs)
            try:
                return await decoded(decode, await _read(response.response, f"{verb} {path}"))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise _unavailable(f"{verb} {path}", error) from error

    async def _send(
        self,
        verb: str,
        method: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str],
        *,
        body: Json | None = None,
        content_type: str | None = None,
        accept: str | None = None,
        timeout: aiohttp.ClientTimeout = TIMEOUT,  # noqa: ASYNC109 - handed to aiohttp as it is
    ) -> Any:
        headers = {
            "Accept": accept or "application/json",
            "Content-Type": content_type or "application/json",
        }
        # auth_settings must be named, else the transport sends no token. Of a body that is handed
        # over here each value would be looked at, in case it is a model.
        method, url, headers, _, _ = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        began = time.monotonic()
        try:
            response = await self._api.call_api(
                method, url, headers, body, _request_timeout=self._bounded(method, path, timeout)
            )
            # call_api does not raise on 4xx and 5xx; the body then says why.
            status: int = response.status
            text = await response.read() if status >= 400 else b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count(verb, kind.plural, "none", time.monotonic() - began)
            unavailable = _unavailable(f"{verb} {path}", error)
            self.contact.failed(unavailable.message)
            raise unavailable from error
        self._count(verb, kind.plural, str(status), time.monotonic() - began)
        refusal = None
        if status >= 400:
            refusal = api_error(status, text, response.headers, f"{verb} {path}")
        # Whoever is not known to the API server, or hears only of its trouble, has not reached it.
        if refusal is not None and (status == 401 or status >= 500):
            self.contact.failed(refusal.message)
        else:
            self.contact.answered()
        if refusal is not None:
            raise refusal
        return response

    def _bounded(
        self, method: str, path: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientTimeout:
        """No write of a leader outlives its leadership: the API server drops a request whose
        connection ends before it is carried out.
        """
        if self._fence is None or method in READS:
            return timeout
        self._fence.check(method, path)
        remaining = self._fence.remaining or math.inf
        total = min(timeout.total or math.inf, remaining)
        return aiohttp.ClientTimeout(total=total, sock_connect=timeout.sock_connect)


async def _read(response: aiohttp.ClientResponse, request: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            response.close()
            raise TooLargeError(0, f"{request}: more than {MAX_BODY_BYTES // 2**20} MiB")
    return bytes(body)


async def decoded(decode: Callable[[bytes], Json], body: bytes) -> Json:
    """The decoded body; a large one in a thread, so that the event loop does not stand."""
    if len(body) <= MAX_ITEM_BYTES:
        return decode(body)
    return await asyncio.to_thread(decode, body)


def _stream_error(path: str, status: Json) -> ApiError:
    return api_error(
        int(status.get("code") or 500), json.dumps(status).encode(), {}, f"watch {path}"
    )


def _unavailable(request: str, error: BaseException) -> ApiError:
    return UnavailableError(0, f"{request}: {type(error).__name__} {error}".rstrip())
