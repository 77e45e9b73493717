"""One pass over one training: look, ask the pods that have something to tell, decide, act."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from inception_operator.contract.errors import NotFoundError, StaleViewError
from inception_operator.contract.types import Json, Observation, Plan, PodView, Progress
from inception_operator.pod import view

from .apply import Applier
from .client import JOBS, Client
from .events import EventPoster
from .job_cache import JobCache
from .metrics import Metrics
from .nodes import Nodes
from .notifications import Bell
from .pod_cache import Pods
from .probe import Probe
from .workqueue import ERROR_BASE, Key, WorkQueue

AGAIN_BASE = 0.005
"""A pass that changed something is followed by another one almost at once, until one finds nothing
to do.
"""

_log = logging.getLogger(__name__)


class ProgressSource(Protocol):
    """Where the latest figures of a training come from."""

    def progress(self, key: Key) -> Progress | None:
        """The figures to be written now, if any."""

    def forget(self, key: Key) -> None:
        """The training is gone."""


@dataclass(frozen=True)
class Decider:
    """The pure half."""

    reconcile: Callable[[Observation], Plan]
    wants_report: Callable[[Json, PodView], bool]
    wants_node: Callable[[Json, PodView, datetime], bool]


class Controller:
    """Handles keys of the work queue."""

    def __init__(
        self,
        client: Client,
        jobs: JobCache,
        pods: Pods,
        probe: Probe,
        progress: ProgressSource,
        decider: Decider,
        queue: WorkQueue,
        metrics: Metrics,
        events: EventPoster,
        nodes: Nodes,
    ) -> None:
        self._nodes = nodes
        self._client = client
        self._jobs = jobs
        self._pods = pods
        self._probe = probe
        self._progress = progress
        self._decider = decider
        self._queue = queue
        self._metrics = metrics
        self._applier = Applier(client, jobs, pods, events, metrics.status_written)
        self._rejections: dict[Key, str] = {}
        self._bell = Bell(time.monotonic)

    def ring(self, namespace: str, name: str, pod: str) -> bool:
        """A launcher says that it has something to tell; False when there is no such pod."""
        key = (namespace, name)
        uid = next(
            (p["metadata"]["uid"] for p in self._pods.pods(key) if p["metadata"]["name"] == pod),
            None,
        )
        if uid is not None and self._bell.ring(key, uid):
            self._queue.add(key)
        return uid is not None

    async def handle(self, key: Key) -> float | None:
        """One pass; answers the base of the back-off when the key must come again."""
        started = time.monotonic()
        result = "error"
        try:
            result, again = await self._pass(key)
            return again
        except StaleViewError as error:
            result = "conflict"
            _log.debug("%s", error, extra={"key": key})
            await self._reread(key)
            return AGAIN_BASE
        except NotFoundError:
            # The status had nowhere to go: the training was deleted and the watch has yet to say
            # so.
            result = "gone"
            self._jobs.forget(key)
            self._forget(key)
            return None
        finally:
            self._metrics.reconciles.labels(result).inc()
            self._metrics.duration.observe(time.monotonic() - started)

    async def _pass(self, key: Key) -> tuple[str, float | None]:
        job = self._jobs.get(key)
        if job is None:
            self._forget(key)
            return "gone", None
        if "deletionTimestamp" in job["metadata"]:
            return "gone", None
        if not await self._ask(key, job):
            return "waiting", None
        # Asking took time: decide on the view of now.
        job = self._jobs.get(key) or job
        pods = self._views(key)
        observation = Observation(
            job=job,
            pods=pods,
            now=datetime.now(UTC),
            progress=self._progress.progress(key),
            rejection=self._rejections.get(key),
            gone=self._pods.gone(key),
        )
        plan = self._decider.reconcile(observation)
        return await self._act(key, job, pods, plan)

    async def _act(
        self, key: Key, job: Json, pods: tuple[PodView, ...], plan: Plan
    ) -> tuple[str, float | None]:
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)
        if plan.empty:
            self._rejections.pop(key, None)
            return ("success" if plan.requeue_after is None else "waiting"), None
        _log.debug("%s", _summary(plan), extra={"key": key})
        rejection = await self._applier.apply(job, pods, plan)
        if rejection is not None:
            news = self._rejections.get(key) != rejection
            self._rejections[key] = rejection
            _log.warning("a pod was refused: %s", rejection, extra={"key": key})
            # The first time the status has yet to say so.
            return "rejected", AGAIN_BASE if news else ERROR_BASE
        if plan.create:
            self._rejections.pop(key, None)
        return "success", AGAIN_BASE

    async def _ask(self, key: Key, job: Json) -> bool:
        pods = self._views(key)
        uids = {pod.uid for pod in pods}
        self._probe.retain(key, uids)
        self._bell.retain(key, uids)
        rung = self._bell.rung(key)
        wanted = [pod for pod in pods if pod.uid in rung or self._decider.wants_report(job, pod)]
        if wanted and not await self._probe.refresh(key, wanted):
            return False
        self._bell.answered(key, rung)
        now = datetime.now(UTC)
        unsure = [pod for pod in self._views(key) if self._decider.wants_node(job, pod, now)]
        await self._nodes.refresh({pod.node for pod in unsure if pod.node})
        return True

    def _views(self, key: Key) -> tuple[PodView, ...]:
        views = (
            view.view(pod, *self._probe.answer(key, pod["metadata"]["uid"]))
            for pod in self._pods.pods(key)
        )
        known = (self._with_node(pod) for pod in views if pod is not None)
        return tuple(sorted(known, key=lambda pod: (pod.slot, pod.incarnation)))

    def _with_node(self, pod: PodView) -> PodView:
        lost = self._nodes.lost_since(pod.node)
        return pod if lost is None else replace(pod, node_lost_since=lost)

    async def _reread(self, key: Key) -> None:
        try:
            self._jobs.update(await self._client.get(JOBS, *key))
        except NotFoundError:
            self._jobs.forget(key)

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        self._progress.forget(key)
        self._rejections.pop(key, None)
        self._probe.retain(key, ())
        self._bell.retain(key, ())


def _summary(plan: Plan) -> str:
    state = (plan.status or {}).get("state")
    return (
        f"status {state or 'unchanged'}, create {len(plan.create)}, delete {len(plan.delete)}, "
        f"assign {len(plan.assign)}, events {len(plan.events)}"
    )
