"""A report from the API server: the job's status, its spec, and the events about its attempts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from inception_operator.contract.decoding import decode_answer
from inception_operator.contract.errors import OperatorError
from inception_operator.contract.names import GROUP, KIND, PLURAL, VERSION, Reason
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .content import Report, Restart

ENDS: Final = (Reason.RESTARTING, Reason.RESIZED, Reason.MOVED)
"""Events with which an attempt ends."""
_DEFAULT: Final = Path("~/.kube/config")
# Environment variables of a pod may hold passwords, and a report is passed on.
_LEFT_OUT: Final = ("template",)


class NoJobError(OperatorError):
    """There is no such job, or nobody may read it."""


def read(
    namespace: str, name: str, kubeconfig: str | None, context: str | None, made: datetime
) -> Report:
    """What the API server says of a job; raises NoJobError."""
    api = _api(kubeconfig, context)
    try:
        # The client's own decoder does not get through what is nested a thousand levels deep.
        answer: Any = client.CustomObjectsApi(api).get_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, name, _preload_content=False
        )
    except ApiException as error:
        raise NoJobError(f"{namespace}/{name}: {error.status} {error.reason}") from error
    resource = decode_answer(answer.data)
    notes: list[str] = []
    return of_resource(resource, _events(api, resource, notes), made, notes)


def of_resource(
    resource: Json, events: Iterable[Json], made: datetime, notes: Iterable[str] = ()
) -> Report:
    """The report of a job as the API server has it, with the events about it."""
    metadata, status = resource["metadata"], resource.get("status") or {}
    spec = {key: value for key, value in resource["spec"].items() if key not in _LEFT_OUT}
    return Report(
        title=f"{metadata['namespace']}/{metadata['name']}",
        made=made,
        sources=("from the API server",),
        status=status,
        configuration=yaml.safe_dump(spec, sort_keys=False, allow_unicode=True),
        restarts=tuple(_restarts(status, events)),
        notes=tuple(notes),
    )


def _api(kubeconfig: str | None, context: str | None) -> client.ApiClient:
    found = client.Configuration()
    try:
        if _is_at_home(kubeconfig, context):
            config.load_incluster_config(found)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                kubeconfig, context, found
            )
    except (ConfigException, OSError) as error:
        raise NoJobError(f"no usable credentials for the API server: {error}") from error
    return client.ApiClient(found)


def _is_at_home(kubeconfig: str | None, context: str | None) -> bool:
    """Whether this runs in a pod, and nobody has named another cluster; as of the commands."""
    if kubeconfig or context or os.environ.get("KUBECONFIG"):
        return False
    return "KUBERNETES_SERVICE_HOST" in os.environ and not _DEFAULT.expanduser().exists()


def _events(api: client.ApiClient, resource: Json, notes: list[str]) -> list[Json]:
    metadata = resource["metadata"]
    fields = f"involvedObject.kind={KIND},involvedObject.uid={metadata['uid']}"
    try:
        found = client.CoreV1Api(api).list_namespaced_event(
            metadata["namespace"], field_selector=fields, limit=500
        )
    except ApiException as error:
        notes.append(f"The events cannot be read: {error.status} {error.reason}.")
        return []
    plain: list[Json] = api.sanitize_for_serialization(found.items)  # type: ignore[no-untyped-call]
    return plain


def _restarts(status: Json, events: Iterable[Json]) -> Iterator[Restart]:
    ended = [event for event in events if event.get("reason") in ENDS]
    for event in sorted(ended, key=lambda event: _seconds(_time_of(event)) or 0.0):
        yield Restart(_seconds(_time_of(event)), event["reason"], event.get("message") or "")
    # Events are gone after an hour; the status keeps the last cause.
    cause = status.get("rootCause")
    if isinstance(cause, dict) and cause:
        names = ("attempt", "pod", "node", "rank", "exitCode")
        where = ", ".join(f"{name} {cause[name]}" for name in names if cause.get(name) is not None)
        message = "\n".join(part for part in (where, cause.get("message")) if part)
        yield Restart(_seconds(cause.get("time")), str(cause.get("reason") or ""), message)


def _time_of(event: Json) -> object:
    return event.get("eventTime") or event.get("lastTimestamp") or event.get("firstTimestamp")


def _seconds(text: object) -> float | None:
    time = parse_time(text)
    return time.timestamp() if time else None
