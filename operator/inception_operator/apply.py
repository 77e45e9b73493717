"""Carries out a plan: the status first, because counters must be safe before anything acts on them, then the rest.

Every request is idempotent, so a pass that broke off anywhere is simply repeated from a fresh view.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from inception_operator import api
from inception_operator.assignment import to_json
from inception_operator.client import EVENTS, JOBS, PODS, Client
from inception_operator.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    NotFoundError,
    RejectedError,
    StaleViewError,
)
from inception_operator.jobs import JobStore, key_of
from inception_operator.model import Assignment, Event, Json, Plan, PodView

MAX_NOTE = 1024

_log = logging.getLogger(__name__)


class PodCache(Protocol):
    """Where the answers to our own writes go."""

    def merge(self, raw: Json) -> None:
        """Take over a pod."""

    def remove(self, key: tuple[str, str], name: str, uid: str) -> None:
        """Forget a pod."""


class Applier:
    """Turns plans into requests.

    ``instance`` names this process in events; ``written`` hears of every status that is safely stored, and of the job
    as it was before.
    """

    def __init__(
        self, client: Client, jobs: JobStore, pods: PodCache, instance: str, written: Callable[[Json, Json], None]
    ) -> None:
        self._written = written
        self._client = client
        self._jobs = jobs
        self._pods = pods
        self._instance = instance

    async def apply(self, job: Json, pods: Iterable[PodView], plan: Plan) -> str | None:
        """Carry out ``plan``; answers the API server's text if it refused to create a pod."""
        if plan.status is not None:
            await self._write_status(job, plan.status)
        uids = {pod.name: pod.uid for pod in pods}
        urgent = [self._assign(job, name, uids[name], order) for name, order in plan.assign.items() if name in uids]
        urgent += [self._delete(job, name, uids[name], grace) for name, grace in plan.delete.items() if name in uids]
        await _all(urgent)
        rejections = await _all([self._create(job, pod) for pod in plan.create])
        for event in plan.events:
            await self._post(job, event)
        return next((text for text in rejections if text is not None), None)

    async def _write_status(self, job: Json, status: Json) -> None:
        """One server-side apply of all of it; the resourceVersion keeps a stale view from rolling counters back."""
        metadata = job["metadata"]
        body = {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "metadata": {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")},
            "status": status,
        }
        try:
            self._jobs.update(await self._client.apply_status(JOBS, body))
        except ConflictError as error:
            raise StaleViewError(error.message) from error
        self._written(job, status)

    async def _create(self, job: Json, pod: Json) -> str | None:
        namespace, name = job["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            self._pods.merge(await self._client.create(PODS, namespace, pod))
        except RejectedError as error:
            return error.message
        except AlreadyExistsError:
            await self._adopt(job, namespace, name)
        return None

    async def _adopt(self, job: Json, namespace: str, name: str) -> None:
        """The name is taken: by our own earlier request, or by a leftover that still has to go."""
        found = await self._client.get(PODS, namespace, name)
        owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or []}
        if job["metadata"]["uid"] not in owners:
            raise ConflictError(409, f"pod {namespace}/{name} exists and belongs to something else")
        self._pods.merge(found)

    async def _delete(self, job: Json, name: str, uid: str, grace: int | None) -> None:
        namespace = job["metadata"]["namespace"]
        try:
            self._pods.merge(await self._client.delete(PODS, namespace, name, uid=uid, grace=grace))
        except (NotFoundError, ConflictError):
            self._pods.remove(key_of(job), name, uid)

    async def _assign(self, job: Json, name: str, uid: str, order: Assignment) -> None:
        body = {"metadata": {"uid": uid, "annotations": {api.ANNOTATION_ASSIGNMENT: to_json(order)}}}
        try:
            self._pods.merge(await self._client.merge(PODS, job["metadata"]["namespace"], name, body))
        except (NotFoundError, ConflictError):
            self._pods.remove(key_of(job), name, uid)

    async def _post(self, job: Json, event: Event) -> None:
        """Events tell people; losing one changes nothing."""
        try:
            await self._client.create(EVENTS, job["metadata"]["namespace"], _event(job, event, self._instance))
        except ApiError as error:
            _log.info("an event was not stored: %s", error, extra={"key": key_of(job)})


def _event(job: Json, event: Event, instance: str) -> Json:
    metadata = job["metadata"]
    now = datetime.datetime.now(datetime.UTC)
    seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MAX_NOTE],
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
        "source": {"component": api.FIELD_MANAGER},
        "reportingComponent": api.FIELD_MANAGER,
        "reportingInstance": instance,
    }


async def _all(requests: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all, so that nothing is left running, then raise the first failure."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
