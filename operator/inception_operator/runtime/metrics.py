"""The operator's own Prometheus metrics.

They live in a registry of their own, so that two operators in one test share no state. Series of
single jobs are in `job_metrics`; here are those of the process, and the counters and histograms
over all jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from inception_operator import __version__
from inception_operator.contract.names import State
from inception_operator.contract.types import Json
from inception_operator.decide import milestones

from .containment import Containment, Where
from .job_metrics import PREFIX, JobCollector, Pods, job_labels
from .standard_metrics import FAMILIES, METHODS, Counted, StandardMetrics
from .workqueue import Counts

STATES = tuple(value for name, value in vars(State).items() if name.isupper())
RESULTS = ("success", "waiting", "rejected", "conflict", "gone", "error")
VERBS = tuple(METHODS)
OTHER_PROFILE = "other"
DEFAULT_PROFILE = "cpu"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Waits of jobs: from a second to a day.
_WAITS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)


def _no_pods(_key: tuple[str, str]) -> tuple[Json, ...]:
    return ()


class Metrics:
    """All series of the process; ``resources`` returns the custom resources that exist now,
    ``pods`` those of one job. ``profiles`` are the accelerator profiles that there are. ``labels``
    are those of each family. ``server`` is the URL of the API server.
    """

    def __init__(
        self,
        resources: Callable[[], Iterable[Json]] = tuple,
        pods: Pods = _no_pods,
        profiles: Collection[str] = (),
        server: str = "",
    ) -> None:
        self.registry = CollectorRegistry()
        self._process = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = job_labels()
        self._profiles = frozenset(profiles)
        self._define_process()
        self._define_jobs()
        ours = Counted(self.duration, self.wait, self.requests)
        self.standard = StandardMetrics(ours, server, _SECONDS)
        self._process.register(self.standard)
        self.labels |= {name: labels for name, (_, labels) in FAMILIES.items()}
        self.containment = Containment(self.count_error)
        self._jobs = JobCollector(resources, pods, self.containment)
        # A registry is a collector as well: this one has all series.
        self.registry.register(self._process)
        self.registry.register(self._jobs)

    def _define_process(self) -> None:
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        self.reconciles = self._counter(
            "reconcile",
            "Passes over a job by result.",
            "result",
        )
        self.internal_errors = self._counter(
            "internal_errors",
            "Errors of the operator's own that concern one job or pod, by what it was doing.",
            "where",
        )
        self.requests = self._counter(
            "api_requests",
            "Requests to the API server.",
            "verb",
            "resource",
            "code",
        )
        self.request_seconds = self._histogram(
            "api_request_duration_seconds",
            "Time until the API server answers a request, or begins to answer a watch, by verb.",
            "verb",
        )
        self.retries = self._counter(
            "retries",
            "Passes that are repeated after a pause, because one failed or was refused.",
        )
        self._define_passes()
        self._define_watches()
        build_info = self._gauge("build_info", "Version of the operator.", "version")
        build_info.labels(__version__).set(1)
        # rate() and alerts see nothing of a counter whose first value is 1: all begin at 0.
        for verb in VERBS:
            self.request_seconds.labels(verb)
        for result in RESULTS:
            self.reconciles.labels(result)
        for where in Where:
            self.internal_errors.labels(where)

    def _define_passes(self) -> None:
        self.duration = self._histogram(
            "reconcile_duration_seconds",
            "Time of one pass, its requests included.",
        )
        self.wait = self._histogram(
            "queue_wait_seconds",
            "Time a job waited for a worker.",
        )
        self.depth = self._gauge(
            "queue_depth",
            "Jobs that wait for a worker.",
        )
        self.oldest = self._gauge(
            "queue_oldest_age_seconds",
            "Age of the oldest job that waits or is worked on.",
        )

    def _define_watches(self) -> None:
        self.watch_age = self._gauge(
            "watch_age_seconds",
            "Time since a watch last showed a sign of life.",
            "resource",
        )
        self.leader = self._gauge("leader", "1 while this process may write.")
        self.shards = self._gauge(
            "shards",
            "Among how many operators the jobs are divided; the label says which of them this is.",
            "shard",
        )
        self.planned_moves = self._gauge(
            "planned_moves",
            "1 while nodes are watched, so that jobs leave those that are about to go.",
        )
        self.leaving_nodes = self._gauge(
            "leaving_nodes",
            "Nodes that are about to go.",
        )

    def _define_jobs(self) -> None:
        self.transitions = self._counter(
            "job_transitions",
            "Jobs that entered a state.",
            "state",
        )
        for state in STATES:
            self.transitions.labels(state)
        self.outcomes = self._counter(
            "job_outcomes",
            "Jobs that have ended.",
            "namespace",
            "profile",
            "outcome",
            "reason",
        )
        self.restarts = self._counter(
            "restarts",
            "Restarts of jobs by their root cause.",
            "namespace",
            "profile",
            "reason",
        )
        new_step = self._histogram(
            "job_time_to_new_step_seconds",
            "Time from the start, or from a failure, to the first step not done before.",
            "after",
            buckets=_WAITS,
        )
        self._durations = {
            milestones.QUEUED: self._wait_histogram(
                "job_queued_seconds",
                "Time that jobs waited in a queue, of those that did.",
            ),
            milestones.STARTED: self._wait_histogram(
                "job_time_to_running_seconds",
                "Time from when pods are wanted until the ranks run, at a start or a resume.",
            ),
            milestones.DETECTED: self._wait_histogram(
                "job_failure_detection_seconds",
                "Time from a failure until it is acted on.",
            ),
            milestones.RECOVERED: self._wait_histogram(
                "job_recovery_seconds",
                "Time from the end of an attempt to the first step of the next one, without pauses "
                "of jobs that fail again and again.",
            ),
            milestones.NEW_STEP_AFTER_START: new_step.labels("start"),
            milestones.NEW_STEP_AFTER_FAILURE: new_step.labels("failure"),
        }

    def count_request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """Count one request to the API server; ``code`` is ``none`` when there was no answer."""
        self.requests.labels(verb, resource, code).inc()
        self.request_seconds.labels(verb).observe(seconds)

    def count_pass(self, result: str, seconds: float, *, comes_again: bool) -> None:
        """Count one pass over a job, after which it may come again with a back-off."""
        self.reconciles.labels(result).inc()
        self.duration.observe(seconds)
        if result == "error":
            self.standard.count_pass("error")
        elif comes_again:
            self.standard.count_pass("requeue")
        else:
            self.standard.count_pass("requeue_after" if result == "waiting" else "success")

    @property
    def queue_counts(self) -> Counts:
        """Who counts what happens in the work queue."""
        return Counts(
            added=self.standard.adds.inc,
            waited=self.wait.observe,
            worked=self.standard.work.observe,
            delayed=self.standard.retries.inc,
            retried=self.retries.inc,
        )

    def count_error(self, where: str) -> None:
        """Count one error that concerns one job or pod."""
        self.internal_errors.labels(where).inc()

    def status_written(self, resource: Json, status: Json) -> None:
        """Count what has changed from the status in ``resource`` to the one just stored."""
        old = resource.get("status") or {}
        state = status.get("state")
        if state and state != old.get("state"):
            self.transitions.labels(state).inc()
        place = (resource["metadata"]["namespace"], self._profile(resource))
        ended = milestones.outcome(old, status)
        if ended is not None:
            self.outcomes.labels(*place, *ended).inc()
        cause = milestones.restart_cause(old, status)
        if cause is not None:
            self.restarts.labels(*place, cause).inc()
        for what, seconds in milestones.durations(old, status):
            self._durations[what].observe(seconds)

    def _profile(self, resource: Json) -> str:
        spec = resource.get("spec") or {}
        name = (spec.get("accelerator") or {}).get("profile", DEFAULT_PROFILE)
        # Users may write any name, and each would be a series for ever.
        return name if name in self._profiles else OTHER_PROFILE

    def page(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self._process) + self._jobs.text().encode()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        name = self._note(name, labels)
        return Counter(f"{name}_total", text, labels, registry=self._process)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._note(name, labels), text, labels, registry=self._process)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Collection[float] = _SECONDS
    ) -> Histogram:
        name = self._note(name, labels)
        return Histogram(name, text, labels, buckets=tuple(buckets), registry=self._process)

    def _note(self, name: str, labels: tuple[str, ...]) -> str:
        name = f"{PREFIX}_{name}"
        self.labels[name] = labels
        return name

    def _wait_histogram(self, name: str, text: str) -> Histogram:
        return self._histogram(name, text, buckets=_WAITS)
