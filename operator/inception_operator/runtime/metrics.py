"""The operator's own Prometheus metrics.

They live in a registry of their own, so that two operators in one test share no state. Series of
one job are made from its status when Prometheus asks: they appear and vanish with the object, and
nothing has to remember to remove them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from inception_operator import __version__
from inception_operator.contract.names import State
from inception_operator.contract.types import Json
from inception_operator.spec.job import managed_elsewhere

from .containment import Containment, Where
from .objects import key_of

PREFIX = "inception_operator"
STATES = tuple(value for name, value in vars(State).items() if name.isupper())
RESULTS = ("success", "waiting", "rejected", "conflict", "gone", "error")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """All series of the process; ``resources`` returns the custom resources that exist now."""

    def __init__(self, resources: Callable[[], Iterable[Json]] = tuple) -> None:
        self.registry = CollectorRegistry()
        self.transitions = self._counter(
            "job_transitions",
            "Jobs that entered a state.",
            "state",
        )
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
        self.watch_age = self._gauge(
            "watch_age_seconds",
            "Time since a watch last showed a sign of life.",
            "resource",
        )
        self.leader = self._gauge("leader", "1 while this process may write.")
        self.planned_moves = self._gauge(
            "planned_moves",
            "1 while nodes are watched, so that jobs leave those that are about to go.",
        )
        self.leaving_nodes = self._gauge(
            "leaving_nodes",
            "Nodes that are about to go.",
        )
        build_info = self._gauge("build_info", "Version of the operator.", "version")
        build_info.labels(__version__).set(1)
        # rate() and alerts see nothing of a counter whose first value is 1: all begin at 0.
        for state in STATES:
            self.transitions.labels(state)
        for result in RESULTS:
            self.reconciles.labels(result)
        for where in Where:
            self.internal_errors.labels(where)
        self.containment = Containment(self.count_error)
        self.registry.register(_JobCollector(resources, self.containment))

    def count_request(self, verb: str, resource: str, code: str) -> None:
        """Count one request to the API server; ``code`` is ``none`` when there was no answer."""
        self.requests.labels(verb, resource, code).inc()

    def count_error(self, where: str) -> None:
        """Count one error that concerns one job or pod."""
        self.internal_errors.labels(where).inc()

    def status_written(self, resource: Json, status: Json) -> None:
        """Count the transition from the status in ``resource`` to the one just stored."""
        state = status.get("state")
        if state and state != (resource.get("status") or {}).get("state"):
            self.transitions.labels(state).inc()

    def page(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, buckets=_SECONDS, registry=self.registry)


class _JobCollector(Collector):
    """Series of the jobs that exist right now."""

    def __init__(self, resources: Callable[[], Iterable[Json]], containment: Containment) -> None:
        self._resources = resources
        self._containment = containment

    def describe(self) -> Iterable[Metric]:
        """The names alone: else the registry would collect everything once to learn them."""
        return _families().values()

    @override
    def collect(self) -> Iterator[Metric]:
        families = _families()
        for resource in self._resources():
            # One job that cannot be shown must not take the page from all others.
            with self._containment.contain(key_of(resource), Where.METRICS):
                if not managed_elsewhere(resource):
                    _collect(families, resource)
        yield from families.values()


_JOB = ("namespace", "name")
_GAUGES = {
    "state": (
        "job_state",
        "1 for the present state of a job.",
        (*_JOB, "state"),
    ),
    "restarts": (
        "job_restarts",
        "Restarts so far, by whether they count towards the limit: until the job has got on.",
        (*_JOB, "counted"),
    ),
    "progress": (
        "job_progress_ratio",
        "Share of the steps that are done.",
        _JOB,
    ),
    "accuracy": (
        "job_accuracy_ratio",
        "Latest validation accuracy.",
        (*_JOB, "k"),
    ),
    "speed": (
        "job_samples_per_second",
        "Speed over all ranks.",
        _JOB,
    ),
}


def _families() -> dict[str, Any]:
    families: dict[str, Any] = {}
    for key, (name, text, labels) in _GAUGES.items():
        families[key] = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    labels = (*_JOB, "accelerator", "model")
    families["info"] = InfoMetricFamily(f"{PREFIX}_job", "What a job is about.", labels=labels)
    return families


def _collect(families: dict[str, Any], resource: Json) -> None:
    metadata = resource["metadata"]
    status = resource.get("status") or {}
    figures = status.get("trainerStatus") or {}
    job = [metadata["namespace"], metadata["name"]]

    info = [*job, status.get("accelerator") or "", status.get("model") or ""]
    families["info"].add_metric(info, {})
    families["state"].add_metric([*job, status.get("state") or State.PENDING], 1)

    counted = status.get("restartsCountTowardsMax") or 0
    not_counted = (status.get("restarts") or 0) - counted
    families["restarts"].add_metric([*job, "true"], counted)
    families["restarts"].add_metric([*job, "false"], not_counted)

    _add(families["progress"], job, figures.get("progressPercentage"), 0.01)
    _add(families["accuracy"], [*job, "1"], figures.get("accuracyTop1"))
    _add(families["accuracy"], [*job, "5"], figures.get("accuracyTop5"))
    _add(families["speed"], job, figures.get("samplesPerSecond"))


def _add(family: Any, labels: list[str], value: Any, factor: float = 1.0) -> None:
    # Absent until a figure is known. Decimals of a status are strings, "nan" among them.
    try:
        family.add_metric(labels, float(value) * factor)
    except (TypeError, ValueError):
        return
