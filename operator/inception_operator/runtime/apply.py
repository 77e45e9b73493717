"""Carries out a plan: the status first, because counters must be safe before anything acts on them,
then the rest.

Every request is idempotent, so a pass that broke off anywhere is simply repeated from a fresh view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from inception_operator.contract import names
from inception_operator.contract.assignment import to_json
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RejectedError,
    StaleViewError,
)
from inception_operator.contract.types import Assignment, Json, Plan, PodView
from inception_operator.decide import slots
from inception_operator.pod import identity
from inception_operator.pod import view as podview

from .client import CLAIM_TEMPLATES, JOBS, PODS, Client
from .events import EventPoster
from .job_cache import JobCache, key_of

_log = logging.getLogger(__name__)


class WriteCache(Protocol):
    """Where the answers to our own writes go."""

    def merge(self, raw: Json) -> None:
        """Take over a pod."""

    def remove(self, key: tuple[str, str], name: str, uid: str) -> None:
        """Forget a pod."""


class Applier:
    """Turns plans into requests; ``written`` hears of every status that is stored, and of the job
    as it was before.
    """

    def __init__(
        self,
        client: Client,
        jobs: JobCache,
        pods: WriteCache,
        events: EventPoster,
        written: Callable[[Json, Json], None],
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._pods = pods
        self._events = events
        self._written = written

    async def apply(self, job: Json, pods: Iterable[PodView], plan: Plan) -> str | None:
        """Carry out ``plan``; answers the API server's text if it refused to create a pod."""
        if plan.status is not None:
            await self._write_status(job, plan.status)
        uids = {pod.name: pod.uid for pod in pods}
        urgent = [
            self._assign(job, name, uids[name], order)
            for name, order in plan.assign.items()
            if name in uids
        ]
        urgent += [
            self._repair(job, name, uids[name], data)
            for name, data in plan.repair.items()
            if name in uids
        ]
        urgent += [
            self._delete(job, name, uids[name], grace)
            for name, grace in plan.delete.items()
            if name in uids
        ]
        await _all(urgent)
        # A pod without its template would wait for a claim that nobody makes.
        refused = await _all([self._prepare(job, template) for template in plan.claim_templates])
        pods_to_make = () if any(refused) else plan.create
        rejections = refused + await _all([self._create(job, pod) for pod in pods_to_make])
        if plan.delete_job:
            await self._delete_job(job)
        for event in plan.events:
            self._events.post(job, event)
        return next((text for text in rejections if text is not None), None)

    async def _write_status(self, job: Json, status: Json) -> None:
        """One server-side apply of all of it; the resourceVersion keeps a stale view from rolling
        counters back.
        """
        metadata = job["metadata"]
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")
            },
            "status": status,
        }
        try:
            self._jobs.update(await self._client.apply_status(JOBS, body))
        except ConflictError as error:
            raise StaleViewError(error.message) from error
        self._written(job, status)

    async def _delete_job(self, job: Json) -> None:
        """Its pods go with it. The resourceVersion spares a job whose policy has changed since it
        was seen.
        """
        metadata = job["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        version = metadata["resourceVersion"]
        try:
            answer = await self._client.delete(
                JOBS, namespace, name, uid=uid, version=version, propagation="Background"
            )
        except ConflictError as error:
            raise StaleViewError(error.message) from error
        _log.info("deleted: its time to live after the end is over", extra={"key": key_of(job)})
        if answer.get("kind") == names.KIND:
            # Somebody's finalizer holds it.
            self._jobs.update(answer)
        else:
            self._jobs.forget(key_of(job), uid)

    async def _prepare(self, job: Json, template: Json) -> str | None:
        """Make a ResourceClaimTemplate; the name of one that is there already says that it is the
        same.
        """
        try:
            await self._client.create(CLAIM_TEMPLATES, job["metadata"]["namespace"], template)
        except AlreadyExistsError:
            return None
        except RejectedError as error:
            return error.message
        except NotFoundError as error:
            return f"{error.message}; spec.accelerator.claims needs resource.k8s.io/v1, which Kubernetes 1.34 brings"
        return None

    async def _create(self, job: Json, pod: Json) -> str | None:
        namespace, name = job["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            self._pods.merge(await self._client.create(PODS, namespace, pod))
        except RejectedError as error:
            return error.message
        except AlreadyExistsError:
            return await self._adopt(job, namespace, name)
        return None

    async def _adopt(self, job: Json, namespace: str, name: str) -> str | None:
        """The name is taken: by our own earlier request, by a leftover that still has to go, or by
        somebody else.
        """
        found = await self._client.get(PODS, namespace, name)
        view = podview.view(found)
        if view is not None and slots.owned((view,), job["metadata"]["uid"]):
            self._pods.merge(found)
            return None
        text = identity.name_taken(found, job, datetime.now(UTC))
        if text is None:
            raise ConflictError(409, f"pod {namespace}/{name} of another owner is about to go")
        return text

    async def _delete(self, job: Json, name: str, uid: str, grace: int | None) -> None:
        namespace = job["metadata"]["namespace"]
        try:
            answer = await self._client.delete(PODS, namespace, name, uid=uid, grace=grace)
        except (NotFoundError, ConflictError):
            answer = {}
        # Where somebody else's deletion is quicker than ours, the API server shows a pod without a
        # version: it is gone.
        if answer.get("metadata", {}).get("resourceVersion"):
            self._pods.merge(answer)
        else:
            self._pods.remove(key_of(job), name, uid)

    async def _assign(self, job: Json, name: str, uid: str, order: Assignment) -> None:
        await self._patch(
            job, name, uid, {"annotations": {names.ANNOTATION_ASSIGNMENT: to_json(order)}}
        )

    async def _repair(self, job: Json, name: str, uid: str, metadata: Json) -> None:
        _log.warning(
            "pod %s: putting back %s", name, " and ".join(metadata), extra={"key": key_of(job)}
        )
        await self._patch(job, name, uid, metadata, strategic=True)

    async def _patch(
        self, job: Json, name: str, uid: str, metadata: Json, *, strategic: bool = False
    ) -> None:
        namespace, body = job["metadata"]["namespace"], {"metadata": {"uid": uid, **metadata}}
        try:
            self._pods.merge(
                await self._client.merge(PODS, namespace, name, body, strategic=strategic)
            )
        except NotFoundError:
            self._pods.remove(key_of(job), name, uid)
        except RejectedError:
            # A successor of the same name makes the uid an "immutable field"; any other refusal is
            # real.
            found = await self._client.get(PODS, namespace, name)
            if found["metadata"]["uid"] == uid:
                raise
            self._pods.remove(key_of(job), name, uid)


async def _all(requests: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all, so that nothing is left running, then raise the first failure."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
