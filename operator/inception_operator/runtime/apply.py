"""Turns a plan into requests: the status first, then everything else.

Counters must be safe before anything acts on them: a restart that is carried out and not counted
could repeat for ever. Every request is idempotent, so a pass that broke off anywhere is simply
repeated from a fresh view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from inception_operator.contract import names
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ConflictError,
    JobGoneError,
    NotFoundError,
    RejectedError,
    StaleViewError,
    StatusRefusedError,
)
from inception_operator.contract.types import WARNING, Assignment, Event, Json, Plan, PodView
from inception_operator.decide import slots
from inception_operator.pod import identity
from inception_operator.pod.view import view

from .client import CLAIM_TEMPLATES, JOBS, PODS, Client
from .courier import Courier
from .events import EventPoster
from .job_cache import JobCache
from .metrics import Metrics
from .objects import PerJob, key_of, name_of, uid_of
from .pod_cache import PodCache
from .workqueue import Key

_log = logging.getLogger(__name__)


class Applier:
    """Carries out plans, and puts the API server's answers into the caches."""

    def __init__(
        self,
        client: Client,
        jobs: JobCache,
        pods: PodCache,
        events: EventPoster,
        metrics: Metrics,
        courier: Courier,
        creator: str,
    ) -> None:
        """``creator`` is what the pods say made them, the holder of the Lease."""
        self._client = client
        self._jobs = jobs
        self._pods = pods
        self._events = events
        self._metrics = metrics
        self._courier = courier
        self._creator = creator
        self._refusals = PerJob[str]()

    async def apply(self, resource: Json, pods: Iterable[PodView], plan: Plan) -> str | None:
        """Carry out ``plan``; returns the API server's text if it refused to create a pod.

        Raises RejectedError at the end if it refused to change or delete one: somebody's webhook
        that does not like one pod keeps nothing from the others.

        ``resource`` and ``pods`` are those that the plan was made from.
        """
        if plan.status is not None:
            await self._write_status(resource, plan.status)
        refusal = await _all_but_refused(self._changes_of_pods(resource, pods, plan))
        # A pod without its template would wait for a claim that nobody makes.
        refused = await _all([self._create_template(resource, t) for t in plan.claim_templates])
        pods_to_create = () if any(refused) else plan.create
        rejections = refused + await _all([self._create(resource, pod) for pod in pods_to_create])
        if plan.delete_job:
            await self._delete_job(resource)
        # Last, so that an event never tells of something that then failed.
        for event in plan.events:
            self._events.post(resource, event)
        self._tell(resource, refusal)
        rejection = next((text for text in rejections if text is not None), None)
        if rejection is None and refusal is not None:
            # Only now: it stops nothing else, and the work queue tries again.
            raise refusal
        return rejection

    def forget(self, key: Key) -> None:
        """Drop what was kept about a job that is gone."""
        self._refusals.drop(key)

    def _tell(self, resource: Json, refusal: RejectedError | None) -> None:
        """Post an event about a refusal of a change or deletion; the same one only once."""
        key = key_of(resource)
        if refusal is None:
            self._refusals.drop(key)
        elif self._refusals.get(key, resource) != refusal.message:
            self._refusals.put(key, resource, refusal.message)
            text = f"a change of a pod was refused and is tried again: {refusal.message}"
            self._events.post(resource, Event(WARNING, names.Reason.POD_CHANGE_REJECTED, text))

    async def reread(self, key: Key) -> None:
        """Get the latest version of a custom resource, whatever the watch has seen."""
        known = self._jobs.get(key)
        try:
            self._jobs.update(await self._client.get(JOBS, *key))
        except NotFoundError:
            if known is not None:
                self._jobs.drop(key, uid_of(known))

    def _changes_of_pods(
        self, resource: Json, pods: Iterable[PodView], plan: Plan
    ) -> list[Awaitable[None]]:
        by_name = {pod.name: pod for pod in pods}
        changes: list[Awaitable[None]] = []
        for name, assignment in plan.assign.items():
            if name in by_name:
                changes.append(self._assign(resource, by_name[name], assignment))
        for name, metadata in plan.repair.items():
            if name in by_name:
                changes.append(self._repair(resource, by_name[name], metadata))
        for name, grace in plan.delete.items():
            if name in by_name:
                changes.append(self._delete(resource, name, by_name[name].uid, grace))
        return changes

    async def _write_status(self, resource: Json, status: Json) -> None:
        """One server-side apply of the whole status; a field that it leaves out is removed."""
        # The resourceVersion is a precondition: a stale view must not roll counters back.
        metadata = resource["metadata"]
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
        except NotFoundError as error:
            raise self._gone(resource, error) from error
        except ConflictError as error:
            raise StaleViewError(error.message) from error
        except RejectedError as error:
            # For its content, which nobody but the operator has written; a right that is missing
            # is no fault of the job's.
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise StatusRefusedError(error.message) from error
            raise
        self._metrics.status_written(resource, status)

    def _gone(self, resource: Json, error: NotFoundError) -> JobGoneError:
        """The job is not there: only its own requests can tell, those about its pods cannot."""
        self._jobs.drop(key_of(resource), uid_of(resource))
        return JobGoneError(error.message)

    async def _delete_job(self, resource: Json) -> None:
        """Delete the custom resource; the garbage collector then deletes its pods."""
        # The resourceVersion spares a job whose policy has changed since it was seen.
        metadata = resource["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        version = metadata["resourceVersion"]
        try:
            answer = await self._client.delete(
                JOBS, namespace, name, uid=uid, version=version, propagation="Background"
            )
        except NotFoundError as error:
            raise self._gone(resource, error) from error
        except ConflictError as error:
            raise StaleViewError(error.message) from error
        _log.info(
            "deleted: its time to live after the end is over", extra={"key": key_of(resource)}
        )
        if answer.get("kind") == names.KIND:
            # Somebody's finalizer holds it.
            self._jobs.update(answer)
        else:
            self._jobs.forget(key_of(resource), uid)

    async def _create_template(self, resource: Json, template: Json) -> str | None:
        """Create a ResourceClaimTemplate; returns why it was refused."""
        try:
            await self._client.create(CLAIM_TEMPLATES, resource["metadata"]["namespace"], template)
        except AlreadyExistsError:
            # Its name holds a digest of its content: it is the same.
            return None
        except RejectedError as error:
            return error.message
        except NotFoundError as error:
            remedy = (
                "spec.accelerator.claims needs resource.k8s.io/v1, which Kubernetes 1.34 brings"
            )
            return f"{error.message}; {remedy}"
        return None

    async def _create(self, resource: Json, pod: Json) -> str | None:
        namespace, _ = key_of(resource)
        pod = self._courier.invite(namespace, pod)
        metadata = pod["metadata"]
        creator = {names.ANNOTATION_CREATED_BY: self._creator}
        annotations = metadata.get("annotations", {}) | creator
        body = pod | {"metadata": metadata | {"annotations": annotations}}
        try:
            self._pods.merge(await self._client.create(PODS, namespace, body))
        except RejectedError as error:
            if names.NOT_THE_HOLDER in error.message:
                # The API server learns of a new holder a moment after the Lease was written.
                raise ConflictError(error.status, error.message) from error
            return error.message
        except AlreadyExistsError:
            return await self._adopt(resource, name_of(pod))
        return None

    async def _adopt(self, resource: Json, name: str) -> str | None:
        """Look at the pod that has the name of one we want to create.

        It is from our own earlier request, whose answer was lost; or a leftover that still has to
        go (ConflictError, so that the work queue tries again); or somebody else's, which the text
        that is returned says.
        """
        namespace, _ = key_of(resource)
        try:
            existing = await self._client.get(PODS, namespace, name)
        except NotFoundError as error:
            raise ConflictError(409, f"pod {namespace}/{name} has just gone") from error
        pod = view(existing)
        if pod is not None and slots.owned((pod,), uid_of(resource)):
            self._pods.merge(existing)
            return None
        text = identity.name_taken(existing, resource, datetime.now(UTC))
        if text is None:
            raise ConflictError(409, f"pod {namespace}/{name} of another owner is about to go")
        return text

    async def _delete(self, resource: Json, name: str, uid: str, grace: int | None) -> None:
        namespace, _ = key_of(resource)
        try:
            answer = await self._client.delete(PODS, namespace, name, uid=uid, grace=grace)
        except (NotFoundError, ConflictError):
            answer = {}
        # Where somebody else's deletion is quicker than ours, the API server shows a pod without a
        # version: it is gone.
        if answer.get("metadata", {}).get("resourceVersion"):
            self._pods.merge(answer)
        else:
            self._pods.remove(key_of(resource), name, uid)

    async def _assign(self, resource: Json, pod: PodView, assignment: Assignment) -> None:
        namespace, _ = key_of(resource)
        text = self._courier.write(namespace, pod.name, assignment)
        annotations = {names.ANNOTATION_ASSIGNMENT: text}
        there = await self._patch(resource, pod, {"annotations": annotations})
        # A reminder is for the kubelet; its launcher was brought the assignment itself.
        if there and not assignment.reminder:
            self._courier.deliver(namespace, pod, text)

    async def _repair(self, resource: Json, pod: PodView, metadata: Json) -> None:
        fields = " and ".join(metadata)
        _log.warning("pod %s: putting back %s", pod.name, fields, extra={"key": key_of(resource)})
        # Strategic: a merge patch would replace the owner references of others.
        await self._patch(resource, pod, metadata, strategic=True)

    async def _patch(
        self, resource: Json, pod: PodView, metadata: Json, *, strategic: bool = False
    ) -> bool:
        """Change the metadata of a pod; False if it has gone."""
        namespace, _ = key_of(resource)
        body = {"metadata": {"uid": pod.uid, **metadata}}
        try:
            answer = await self._client.merge(PODS, namespace, pod.name, body, strategic=strategic)
        except NotFoundError:
            pass
        except RejectedError:
            # A successor of the same name makes the uid an "immutable field": the API server says
            # 422 and not 409. Any other refusal is real.
            if await self._exists(namespace, pod.name, pod.uid):
                raise
        else:
            self._pods.merge(answer)
            return True
        self._pods.remove(key_of(resource), pod.name, pod.uid)
        return False

    async def _exists(self, namespace: str, name: str, uid: str) -> bool:
        """Whether this very pod is still there."""
        try:
            return uid_of(await self._client.get(PODS, namespace, name)) == uid
        except NotFoundError:
            return False


async def _all_but_refused(requests: Iterable[Awaitable[None]]) -> RejectedError | None:
    """Wait for all, then raise the first failure, but for a refusal, which is the answer."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    refusal: RejectedError | None = None
    for answer in answers:
        # Who is no longer the holder of the Lease is refused everything, and tells nobody.
        if isinstance(answer, RejectedError) and names.NOT_THE_HOLDER not in answer.message:
            refusal = refusal or answer
        elif isinstance(answer, BaseException):
            raise answer
    return refusal


async def _all(requests: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all, so that nothing is left running, then raise the first failure."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers
