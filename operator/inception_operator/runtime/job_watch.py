"""kopf's part: it watches InceptionTrainings, and every change becomes a key in the work queue.

kopf brings discovery, login and a watch that resumes. It is used for nothing else: its handlers
would be edge-triggered, write annotations and finalizers, and cost ten times the CPU per event of
the reflector, which is why pods are watched there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration
from typing_extensions import override

from inception_operator.contract import names

from .job_cache import JobCache
from .kopf_session import make_session
from .objects import key_of, uid_of
from .workqueue import Key


class NullDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of the spec: kopf would put one into an annotation and diff every event.

    Without both an event takes 0.25 instead of 0.46 ms of CPU, and nothing is written.
    """

    @override
    def build(self, **_: Any) -> Any:
        return {}

    @override
    def fetch(self, **_: Any) -> None:
        return None

    @override
    def store(self, **_: Any) -> None:
        return None


class NullProgress(kopf.ProgressStorage):
    """Keeps no state of handlers on our objects: none of ours is retried by kopf."""

    @override
    def fetch(self, **_: Any) -> None:
        return None

    @override
    def store(self, **_: Any) -> None:
        return None

    @override
    def purge(self, **_: Any) -> None:
        return None

    @override
    def touch(self, **_: Any) -> None:
        return None

    @override
    def clear(self, *, essence: Any) -> Any:
        return essence


def make_settings() -> kopf.OperatorSettings:
    """kopf as a watcher only: it writes nothing and scans nothing."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NullDiffBase()
    settings.persistence.progress_storage = NullProgress()
    # A worker of kopf keeps its slot while idle, so a limit would throttle to limit / idle_timeout
    # objects per second. The short idle time frees the memory of quiet objects.
    settings.queueing.idle_timeout = 0.5
    settings.queueing.worker_limit = None
    settings.queueing.exit_timeout = 0.5
    # Pages: with 10,000 jobs a cold start takes 70 instead of 290 MB (measured with the idle time).
    # Small ones, because a user may fill each object up to the 1.5 MB that etcd takes.
    settings.watching.chunk_size = 100
    settings.watching.server_timeout = 300
    # Scanning watches CRDs and namespaces, which would need rights to both.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    # The default retries for nearly a minute before anything is logged as broken.
    settings.networking.error_backoffs = (0.5, 1, 2, 4)
    settings.networking.enforce_retry_after = True
    # kopf's peering is no lock: equal priorities freeze all peers. The Lease in `leader` is one.
    settings.peering.standalone = True
    return settings


def make_registry(
    configuration: Configuration, jobs: JobCache, notify: Callable[[Key], None]
) -> kopf.OperatorRegistry:
    """Handlers in a registry of our own: the default one logs in with credentials of its own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        info = await connection_info(configuration)
        return kopf.AiohttpSession(server=info.server, aiohttp_session=make_session(info))

    # on.event, the only handler that is level-triggered, needs no finalizer and writes nothing.
    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def on_change(event: Any, **_: Any) -> None:
        resource = event["object"]
        key = key_of(resource)
        if not jobs.owns(key):
            return
        # type is None for what was there when the watch began.
        if event["type"] == "DELETED":
            jobs.forget(key, uid_of(resource))
            notify(key)
        elif jobs.update(resource):
            notify(key)

    return registry


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same server and credentials that our own client uses."""
    authorization = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = authorization.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=(scheme.capitalize() or "Bearer") if token else None,
        token=token.strip() or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
