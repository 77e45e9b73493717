"""A thin face over the transport of the official asyncio client: dicts in and out, typed errors,
bounded concurrency.

Only ``ApiClient`` and ``Configuration`` are imported: one typed API class would add 24 MB of
memory. Retrying is the work queue's business.
"""

from __future__ import annotations

import asyncio
import json
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
from inception_operator.contract.errors import ApiError, SettingsError, UnavailableError, api_error
from inception_operator.contract.types import Json

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
PARTIAL_LIST: Final = (
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)
PAGE: Final = 500
CONCURRENCY: Final = 50
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)

Count = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Resource:
    """A kind as it appears in URLs."""

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


JOBS: Final = Resource(names.GROUP, names.VERSION, names.PLURAL)
PODS: Final = Resource("", "v1", "pods")
NODES: Final = Resource("", "v1", "nodes")
EVENTS: Final = Resource("", "v1", "events")
CLAIM_TEMPLATES: Final = Resource("resource.k8s.io", "v1", "resourceclaimtemplates")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
REVIEWS: Final = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


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
    """Requests to one API server."""

    def __init__(
        self,
        configuration: Configuration,
        count: Count | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        # The package is typed only in part.
        self._api: Any = ApiClient(configuration)
        self._api.user_agent = f"inception-operator/{__version__}"
        self._count: Count = count or (lambda _verb, _resource, _code: None)
        self._slots = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        """One object."""
        return await self._request("get", "GET", resource, resource.path(namespace, name))

    async def list_page(
        self,
        resource: Resource,
        query: Mapping[str, str],
        token: str = "",
        metadata_only: bool = False,
        namespace: str | None = None,
    ) -> Json:
        """One page of a list, over all namespaces without one; ``metadata.continue`` tells the next
        token.
        """
        query = {**query, "limit": str(PAGE), **({"continue": token} if token else {})}
        accept = PARTIAL_LIST if metadata_only else None
        return await self._request(
            "list", "GET", resource, resource.path(namespace), query=query, accept=accept
        )

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create; the answer is the stored object."""
        return await self._request("create", "POST", resource, resource.path(namespace), body=body)

    async def allowed(self, verb: str, resource: Resource) -> bool:
        """Whether the API server lets us do this to a kind in all namespaces, or to one that is in
        none.
        """
        attributes = {"verb": verb, "group": resource.group, "resource": resource.plural}
        body = {
            "apiVersion": REVIEWS.api_version,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._request("create", "POST", REVIEWS, REVIEWS.path(), body=body)
        return bool((answer.get("status") or {}).get("allowed"))

    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Update with the resourceVersion of ``body`` as precondition."""
        return await self._request(
            "update", "PUT", resource, resource.path(namespace, name), body=body
        )

    async def merge(
        self, resource: Resource, namespace: str, name: str, body: Json, *, strategic: bool = False
    ) -> Json:
        """JSON merge patch; ``metadata.uid`` or ``resourceVersion`` in the body are preconditions.

        A strategic one merges lists such as ownerReferences by their keys instead of replacing
        them.
        """
        query = {"fieldManager": names.FIELD_MANAGER}
        path = resource.path(namespace, name)
        kind = STRATEGIC if strategic else MERGE
        return await self._request(
            "patch", "PATCH", resource, path, query=query, body=body, content_type=kind
        )

    async def apply_status(self, resource: Resource, body: Json) -> Json:
        """Server-side apply of the status sub-resource; owns every field that ``body`` names."""
        metadata = body["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"], "status")
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        return await self._request(
            "patch", "PATCH", resource, path, query=query, body=body, content_type=APPLY
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        grace: int | None = None,
        version: str | None = None,
        propagation: str | None = None,
    ) -> Json:
        """Delete this very object, not a successor of the same name, and with ``version`` only as
        it was seen.
        """
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if version is not None:
            body["preconditions"]["resourceVersion"] = version
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if propagation is not None:
            body["propagationPolicy"] = propagation
        return await self._request(
            "delete", "DELETE", resource, resource.path(namespace, name), body=body
        )

    async def watch(
        self,
        resource: Resource,
        query: Mapping[str, str],
        idle: float,
        namespace: str | None = None,
    ) -> AsyncGenerator[Json, None]:
        """Events, over all namespaces without one, until the server ends the stream.

        Silence longer than ``idle`` is an error.
        """
        query = {**query, "watch": "true", "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=idle)
        path = resource.path(namespace)
        response = await self._send("watch", "GET", resource, path, query, timeout=timeout)
        try:
            async for line in response.response.content:
                event = json.loads(line)
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
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Json:
        async with self._slots:
            response = await self._send(verb, method, resource, path, query or {}, **kwargs)
            try:
                answer: Json = json.loads(await response.read())
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise _unavailable(f"{verb} {path}", error) from error
            return answer

    async def _send(
        self,
        verb: str,
        method: str,
        resource: Resource,
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
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(*request, _request_timeout=timeout)
            status: int = response.status
            text = await response.read() if status >= 400 else b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count(verb, resource.plural, "none")
            raise _unavailable(f"{verb} {path}", error) from error
        self._count(verb, resource.plural, str(status))
        if status >= 400:
            raise api_error(status, text, response.headers, f"{verb} {path}")
        return response


def _stream_error(path: str, status: Json) -> ApiError:
    return api_error(
        int(status.get("code") or 500), json.dumps(status).encode(), {}, f"watch {path}"
    )


def _unavailable(request: str, error: BaseException) -> ApiError:
    return UnavailableError(0, f"{request}: {type(error).__name__} {error}".rstrip())
