"""The operator's own metrics, in a registry of their own so that tests and embedding never share
state.

What describes one training is read from its status at scrape time: it appears and vanishes with the
object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from inception_operator import __version__
from inception_operator.contract.names import State
from inception_operator.contract.types import Json
from inception_operator.spec.job import managed_elsewhere

PREFIX = "inception_operator"
STATES = tuple(value for name, value in vars(State).items() if name.isupper())
RESULTS = ("success", "waiting", "rejected", "conflict", "gone", "error")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """All series of the process."""

    def __init__(self, jobs: Callable[[], Iterable[Json]] = tuple) -> None:
        self.registry = CollectorRegistry()
        self.transitions = self._counter(
            "job_transitions", "Trainings that entered a state.", "state"
        )
        self.reconciles = self._counter("reconcile", "Passes over a training by result.", "result")
        self.requests = self._counter(
            "api_requests", "Requests to the API server.", "verb", "resource", "code"
        )
        self.duration = self._histogram(
            "reconcile_duration_seconds", "Time of one pass, its requests included."
        )
        self.wait = self._histogram("queue_wait_seconds", "Time a training waited for a worker.")
        self.depth = self._gauge("queue_depth", "Trainings that wait for a worker.")
        self.oldest = self._gauge(
            "queue_oldest_age_seconds", "Age of the oldest training that waits or is worked on."
        )
        self.watch_age = self._gauge(
            "watch_age_seconds", "Time since a watch last showed a sign of life.", "resource"
        )
        self.leader = self._gauge("leader", "1 while this process may write.")
        self._gauge("build_info", "Version of the operator.", "version").labels(__version__).set(1)
        for state in STATES:
            self.transitions.labels(state)
        for result in RESULTS:
            self.reconciles.labels(result)
        self.registry.register(_JobCollector(jobs))

    def count_request(self, verb: str, resource: str, code: str) -> None:
        """Count one request to the API server; ``code`` is ``none`` when there was no answer."""
        self.requests.labels(verb, resource, code).inc()

    def status_written(self, job: Json, status: Json) -> None:
        """Count the transition that a stored status made."""
        state = status.get("state")
        if state and state != (job.get("status") or {}).get("state"):
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
    """Series of the trainings that exist right now."""

    def __init__(self, jobs: Callable[[], Iterable[Json]]) -> None:
        self._jobs = jobs

    def describe(self) -> Iterable[Metric]:
        """The names, without looking at any training."""
        return _families().values()

    def collect(self) -> Iterator[Metric]:
        """One pass over all trainings."""
        families = _families()
        for job in self._jobs():
            if not managed_elsewhere(job):
                _collect(families, job)
        yield from families.values()


def _families() -> dict[str, Any]:
    one = ["namespace", "name"]
    gauges = {
        "state": ("job_state", "1 for the present state of a training.", [*one, "state"]),
        "restarts": (
            "job_restarts",
            "Restarts so far, by whether they count towards the limit.",
            [*one, "counted"],
        ),
        "progress": ("job_progress_ratio", "Share of the steps that are done.", one),
        "accuracy": ("job_accuracy_ratio", "Latest validation accuracy.", [*one, "k"]),
        "speed": ("job_samples_per_second", "Speed over all ranks.", one),
    }
    families: dict[str, Any] = {
        key: GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
        for key, (name, text, labels) in gauges.items()
    }
    labels = [*one, "accelerator", "model"]
    families["info"] = InfoMetricFamily(f"{PREFIX}_job", "What a training is about.", labels=labels)
    return families


def _collect(families: dict[str, Any], job: Json) -> None:
    metadata, status = job["metadata"], job.get("status") or {}
    one = [metadata["namespace"], metadata["name"]]
    trainer = status.get("trainerStatus") or {}
    families["info"].add_metric(
        [*one, status.get("accelerator") or "", status.get("model") or ""], {}
    )
    families["state"].add_metric([*one, status.get("state") or State.PENDING], 1)
    counted = status.get("restartsCountTowardsMax") or 0
    families["restarts"].add_metric([*one, "true"], counted)
    families["restarts"].add_metric([*one, "false"], (status.get("restarts") or 0) - counted)
    _add(families["progress"], one, trainer.get("progressPercentage"), 0.01)
    _add(families["accuracy"], [*one, "1"], trainer.get("accuracyTop1"))
    _add(families["accuracy"], [*one, "5"], trainer.get("accuracyTop5"))
    _add(families["speed"], one, trainer.get("samplesPerSecond"))


def _add(family: Any, labels: list[str], value: Any, factor: float = 1.0) -> None:
    try:
        family.add_metric(labels, float(value) * factor)
    except (TypeError, ValueError):
        return
