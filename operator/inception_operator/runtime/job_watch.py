"""The kopf side: it watches InceptionTrainings, and nothing else; every change becomes a key in the
work queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration

from inception_operator.contract import names

from .job_cache import JobCache, key_of
from .workqueue import Key


class NullDiffBase(kopf.DiffBaseStorage):
    """No copy of the spec in an annotation, and no diff on every event."""

    def build(self, **_: Any) -> Any:
        """An empty essence."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing is stored."""


class NullProgress(kopf.ProgressStorage):
    """kopf keeps no state on our objects."""

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing is stored."""

    def purge(self, **_: Any) -> None:
        """Nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing to touch."""

    def clear(self, *, essence: Any) -> Any:
        """Nothing to hide."""
        return essence


def make_settings() -> kopf.OperatorSettings:
    """kopf as a watcher only: it writes nothing, scans nothing, and never waits between batches."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NullDiffBase()
    settings.persistence.progress_storage = NullProgress()
    # A worker keeps its slot while idle, so a limit would throttle; a short idle time frees memory.
    settings.queueing.idle_timeout = 0.5
    settings.queueing.worker_limit = None
    settings.queueing.exit_timeout = 0.5
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0.5, 1, 2, 4)
    settings.networking.enforce_retry_after = True
    settings.peering.standalone = True
    return settings


def make_registry(
    configuration: Configuration, jobs: JobCache, notify: Callable[[Key], None]
) -> kopf.OperatorRegistry:
    """Handlers in a registry of our own: kopf's default one would log in with its own credentials."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(configuration)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def changed(event: Any, **_: Any) -> None:
        raw = event["object"]
        key = key_of(raw)
        if event["type"] == "DELETED":
            jobs.forget(key, raw["metadata"]["uid"])
            notify(key)
        elif jobs.update(raw):
            notify(key)

    return registry


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same server and credentials that our own client uses."""
    scheme, _, token = (
        await configuration.get_api_key_with_prefix("BearerToken") or ""
    ).rpartition(" ")
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
