"""A job on this machine: the operator's own decisions, with processes in the place of pods.

Every pass looks at the processes, asks `reconcile` what to do, and does it: the same restarts,
pauses, limits and root causes as on a cluster, because they are decided by the same code.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from inception_operator.accelerators.resolve import load_profiles
from inception_operator.client.outcome import exit_code
from inception_operator.contract.progress import from_metrics
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Event, Json, Observation, Plan, Progress, VanishedPod
from inception_operator.decide.questions import wants_progress
from inception_operator.decide.reconcile import Context, reconcile

from .local_pod import LocalPod, Sink

_PAUSE_SECONDS: Final = 0.2
_SCRAPE_SECONDS: Final = 2.0
# The launcher's memory copies outlive its processes, as they do in a pod; not the run.
_COPIES: Final = Path("/dev/shm/inception-state")  # noqa: S108


class LocalRun:
    """One job, from its first pod to the end of the last."""

    def __init__(self, resource: Json, sink: Sink | None) -> None:
        self.resource = resource
        self.events: list[Json] = []
        self.pods: dict[str, LocalPod] = {}
        self._sink = sink
        self._context = Context(profiles=load_profiles(), image="local", sees_nodes=False)
        self._folder = Path(tempfile.mkdtemp(prefix="inception-local-"))
        self._gone: dict[int, VanishedPod] = {}
        self._progress: Progress | None = None
        self._scraped = 0.0

    def __enter__(self) -> LocalRun:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods.values():
            pod.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(_COPIES / str(self.resource["metadata"]["uid"]), ignore_errors=True)

    @property
    def done(self) -> bool:
        """Whether the job has ended, or is held, and no process is left."""
        if any(pod.alive for pod in self.pods.values()):
            return False
        return exit_code(self.resource) is not None or self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether it was asked to stop."""
        return bool(self.resource["spec"]["runPolicy"].get("suspend"))

    def stop(self) -> None:
        """Let the ranks save and end, as a job that is suspended; the second time without."""
        if self.is_stopped:
            for pod in self.pods.values():
                pod.kill()
        self.resource["spec"]["runPolicy"]["suspend"] = True
        self.resource["metadata"]["generation"] += 1

    def step(self) -> Plan:
        """One pass; afterwards a pause if there was nothing to do."""
        now = datetime.now(UTC)
        self.look(now)
        for pod in list(self.pods.values()):
            if not pod.alive and "deletionTimestamp" in pod.raw["metadata"]:
                self._forget(pod)
        plan = reconcile(self._observe(now), self._context)
        self._act(plan, now)
        if plan.empty:
            time.sleep(_PAUSE_SECONDS)
        return plan

    def look(self, now: datetime) -> None:
        """See how the processes are."""
        for pod in self.pods.values():
            pod.look(now)

    def _observe(self, now: datetime) -> Observation:
        views = sorted(
            (pod.view for pod in self.pods.values()), key=lambda pod: (pod.slot, pod.incarnation)
        )
        self._scrape(now)
        return Observation(
            self.resource, tuple(views), now, progress=self._progress, gone=dict(self._gone)
        )

    def _scrape(self, now: datetime) -> None:
        """Read the figures of rank 0 now and then, while there are ranks."""
        self._progress = None
        if time.monotonic() - self._scraped < _SCRAPE_SECONDS:
            return
        for pod in self.pods.values():
            if wants_progress(self.resource, pod.view):
                self._scraped = time.monotonic()
                page = pod.metrics()
                self._progress = from_metrics(page, now) if page is not None else None

    def _act(self, plan: Plan, now: datetime) -> None:
        if plan.status is not None:
            self.resource["status"] = plan.status
        for name, grace in plan.delete.items():
            if name in self.pods:
                self.pods[name].delete(grace, now)
        for name, wanted in plan.assign.items():
            if name in self.pods:
                self.pods[name].assign(wanted)
        for body in plan.create:
            if body["metadata"]["name"] not in self.pods:
                pod = LocalPod(body, self._folder, self._sink)
                self.pods[pod.name] = pod
        self.events += [_event(event, now) for event in plan.events]

    def _forget(self, pod: LocalPod) -> None:
        seen = pod.view
        self._gone[seen.slot] = VanishedPod(seen.name, seen.incarnation, seen.node)
        pod.close()
        del self.pods[pod.name]


def _event(event: Event, now: datetime) -> Json:
    return {
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "lastTimestamp": format_time(now),
    }
