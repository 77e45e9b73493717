"""One pass over one job: look, ask the pods that have something to tell, decide, act."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from inception_operator.contract.errors import (
    JobGoneError,
    OperatorError,
    StaleViewError,
    StatusRefusedError,
)
from inception_operator.contract.types import Json, Observation, Plan
from inception_operator.decide.lifecycle import break_off
from inception_operator.decide.reconcile import Context, reconcile

from .apply import Applier
from .containment import Containment, Where
from .job_cache import JobCache
from .metrics import Metrics
from .objects import PerJob
from .observer import Observer
from .workqueue import ERROR_BASE, Key, WorkQueue

AGAIN_BASE = 0.005
"""Seconds after which a pass that changed something is followed by another one, until one finds
nothing to do. Watch events would wake the job too, but later.
"""

_log = logging.getLogger(__name__)


class Controller:
    """Handles keys of the work queue; ``context`` is what is the same for all jobs."""

    def __init__(
        self,
        jobs: JobCache,
        observer: Observer,
        applier: Applier,
        queue: WorkQueue,
        metrics: Metrics,
        containment: Containment,
        context: Context,
    ) -> None:
        self._jobs = jobs
        self._observer = observer
        self._applier = applier
        self._queue = queue
        self._metrics = metrics
        self._containment = containment
        self.context = context
        self._rejections = PerJob[str]()

    def decide(self, observation: Observation) -> Plan:
        """What is to be done; without I/O."""
        return reconcile(observation, self.context)

    def notify(self, namespace: str, name: str, pod: str) -> bool:
        """A launcher says that it has something to tell; False when there is no such pod."""
        key = (namespace, name)
        accepted = self._observer.notify(key, pod)
        if accepted:
            self._queue.add(key)
        return accepted is not None

    async def handle(self, key: Key) -> float | None:
        """One pass; returns the base of the back-off when the key must come again."""
        started = time.monotonic()
        result, base = "error", None
        try:
            result, base = await self._pass(key)
        except StaleViewError as error:
            # Somebody wrote in between, for instance the user. Nothing was acted on.
            result, base = "conflict", AGAIN_BASE
            _log.debug("%s", error, extra={"key": key})
            await self._applier.reread(key)
        except JobGoneError:
            # It was deleted and the watch has yet to say so; or has, and told of a successor too.
            result = "gone"
            if self._jobs.get(key) is None:
                self._forget(key)
        except OperatorError:
            raise
        except Exception as error:
            self._containment.note(key, Where.DECISION, error)
            base = ERROR_BASE
        finally:
            seconds = time.monotonic() - started
            self._metrics.count_pass(result, seconds, comes_again=base is not None)
        return base

    async def _pass(self, key: Key) -> tuple[str, float | None]:
        resource = self._jobs.get(key)
        if resource is None:
            self._forget(key)
            return "gone", None
        # The garbage collector deletes its pods; a new one would only be in the way.
        if "deletionTimestamp" in resource["metadata"]:
            return "gone", None
        try:
            if not await self._observer.ask(key, resource):
                return "waiting", None
            # Asking took time: decide on the view of now.
            resource = self._jobs.get(key) or resource
            rejection = self._rejections.get(key, resource)
            observation = self._observer.observe(key, resource, rejection)
            plan = self.decide(observation)
        except OperatorError:
            raise
        except Exception as error:
            return await self._break_off(key, resource, error)
        try:
            return await self._act(key, observation, plan)
        except StatusRefusedError as error:
            return await self._break_off(key, resource, error)

    async def _break_off(
        self, key: Key, resource: Json, error: Exception
    ) -> tuple[str, float | None]:
        """Tell the author of a job that the operator has failed at it, and try again later."""
        self._containment.note(key, Where.DECISION, error)
        plan = break_off(resource, error, datetime.now(UTC))
        if not plan.empty:
            await self._applier.apply(resource, (), plan)
        return "error", ERROR_BASE

    async def _act(
        self, key: Key, observation: Observation, plan: Plan
    ) -> tuple[str, float | None]:
        # Before anything can fail: an error's own back-off may be longer than this date.
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)
        if plan.empty:
            self._rejections.drop(key)
            return ("success" if plan.requeue_after is None else "waiting"), None
        _log.debug("%s", _summary(plan), extra={"key": key})
        rejection = await self._applier.apply(observation.resource, observation.pods, plan)
        if rejection is not None:
            is_new = self._rejections.get(key, observation.resource) != rejection
            self._rejections.put(key, observation.resource, rejection)
            _log.warning("a pod was refused: %s", rejection, extra={"key": key})
            # A new one has yet to be written into the status; an old one waits for an admin.
            return "rejected", AGAIN_BASE if is_new else ERROR_BASE
        if plan.create:
            self._rejections.drop(key)
        return "success", AGAIN_BASE

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        self._observer.forget(key)
        self._applier.forget(key)
        self._rejections.drop(key)


def _summary(plan: Plan) -> str:
    state = (plan.status or {}).get("state")
    return (
        f"status {state or 'unchanged'}, create {len(plan.create)}, delete {len(plan.delete)}, "
        f"assign {len(plan.assign)}, events {len(plan.events)}"
    )
