"""What controllers in Go tell of queue, passes and requests, told under their names as well.

Dashboards and alerts made for controller-runtime then know this operator. A series is here only if
it means the same there; docs/operator-metrics.md says where that was read. What the operator's own
series count already is renamed when the page is made, so it costs nothing when it happens, and the
two can never disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from typing_extensions import override

from inception_operator.contract import names

CONTROLLER: Final = names.KIND.lower()
"""controller-runtime calls a controller and its queue after the kind of the objects."""
METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
"""HTTP methods of the verbs of Kubernetes' API."""
NO_ANSWER: Final = "<error>"
"""In the place of the HTTP status."""
_RESULTS: Final = ("success", "error", "requeue", "requeue_after")
_PASSES: Final = "controller_runtime_reconcile"
_ERRORS: Final = "controller_runtime_reconcile_errors"
_TIME: Final = "controller_runtime_reconcile_time_seconds"
_WORKERS: Final = "controller_runtime_max_concurrent_reconciles"
_ACTIVE: Final = "controller_runtime_active_workers"
_DEPTH: Final = "workqueue_depth"
_ADDS: Final = "workqueue_adds"
_WAIT: Final = "workqueue_queue_duration_seconds"
_WORK: Final = "workqueue_work_duration_seconds"
_RETRIES: Final = "workqueue_retries"
_UNFINISHED: Final = "workqueue_unfinished_work_seconds"
_LONGEST: Final = "workqueue_longest_running_processor_seconds"
_REQUESTS: Final = "rest_client_requests"
_LEADS: Final = "leader_election_master_status"
_OF_CONTROLLER: Final = ("controller",)
_OF_QUEUE: Final = ("name", "controller")

# Of each family: help and labels.
FAMILIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    _PASSES: (
        "Passes over a job: after requeue another follows after a back-off, after requeue_after "
        "at a date or with the answer of a pod.",
        ("controller", "result"),
    ),
    _ERRORS: ("Passes that failed.", _OF_CONTROLLER),
    _TIME: ("Time of one pass, its requests included.", _OF_CONTROLLER),
    _WORKERS: ("Workers, so as many passes at the same time at most.", _OF_CONTROLLER),
    _ACTIVE: ("Workers that have a job now.", _OF_CONTROLLER),
    _DEPTH: ("Jobs that wait for a worker, or for the one that has them to be done.", _OF_QUEUE),
    _ADDS: ("Jobs put into the queue; one that waits there already is not counted.", _OF_QUEUE),
    _WAIT: ("Time a job was in the queue until a worker had it.", _OF_QUEUE),
    _WORK: ("Time that a worker had a job.", _OF_QUEUE),
    _RETRIES: ("Jobs put back with a delay, for whatever reason.", _OF_QUEUE),
    _UNFINISHED: ("Time that workers have had the jobs they have now, summed up.", _OF_QUEUE),
    _LONGEST: ("Time that a worker has had its job, of the one that has for longest.", _OF_QUEUE),
    _REQUESTS: ("Requests to the API server.", ("code", "method", "host")),
    _LEADS: (
        "1 while this process holds the Lease of this name, 0 while it waits for it; absent where "
        "there is none to hold.",
        ("name",),
    ),
}


@dataclass(frozen=True)
class Counted:
    """Our own series that tell the same: times of passes and of waiting, and the requests."""

    passes: Histogram
    waits: Histogram
    requests: Counter


class StandardMetrics(Collector):
    """All of `FAMILIES`, with the same labels for as long as the process lives.

    ``server`` is the URL of the API server.
    """

    def __init__(self, ours: Counted, server: str, buckets: Collection[float]) -> None:
        self._ours = ours
        # A URL may bear a password, which is nobody's who reads metrics.
        self._host = urlsplit(server).netloc.rpartition("@")[2] or "none"
        self._registry = CollectorRegistry()
        passes = self._family(Counter, _PASSES)
        self._passes = {result: passes.labels(CONTROLLER, result) for result in _RESULTS}
        self._errors = self._family(Counter, _ERRORS).labels(CONTROLLER)
        self.workers = self._family(Gauge, _WORKERS).labels(CONTROLLER)
        self._active = self._family(Gauge, _ACTIVE).labels(CONTROLLER)
        self._depth = self._family(Gauge, _DEPTH).labels(CONTROLLER, CONTROLLER)
        self.adds = self._family(Counter, _ADDS).labels(CONTROLLER, CONTROLLER)
        work = self._family(Histogram, _WORK, buckets=tuple(buckets))
        self.work = work.labels(CONTROLLER, CONTROLLER)
        self.retries = self._family(Counter, _RETRIES).labels(CONTROLLER, CONTROLLER)
        self._unfinished = self._family(Gauge, _UNFINISHED).labels(CONTROLLER, CONTROLLER)
        self._longest = self._family(Gauge, _LONGEST).labels(CONTROLLER, CONTROLLER)
        self._leads = self._family(Gauge, _LEADS)

    def count_pass(self, result: str) -> None:
        """Count one pass as success, error, requeue or requeue_after."""
        self._passes[result].inc()
        if result == "error":
            self._errors.inc()

    def show_queue(self, depth: int, working: Collection[float]) -> None:
        """The queue as it is now; ``working`` are the seconds that each worker has had its job."""
        self._depth.set(depth)
        self._active.set(len(working))
        self._unfinished.set(sum(working))
        self._longest.set(max(working, default=0.0))

    def show_lease(self, name: str, is_held: bool) -> None:
        """Whether this process holds the Lease of this name now."""
        self._leads.labels(name).set(int(is_held))

    def describe(self) -> Iterable[Metric]:
        """The names alone."""
        return [Metric(name, text, "unknown") for name, (text, _) in FAMILIES.items()]

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield _renamed(self._ours.passes, _TIME, (CONTROLLER,))
        yield _renamed(self._ours.waits, _WAIT, (CONTROLLER, CONTROLLER))
        yield self._requests()

    def _family(self, kind: Callable[..., Any], name: str, **kwargs: Any) -> Any:
        text, labels = FAMILIES[name]
        return kind(name, text, labels, registry=self._registry, **kwargs)

    def _requests(self) -> Metric:
        counts: dict[tuple[str, str], float] = defaultdict(float)
        for sample in _samples(self._ours.requests):
            code, method = sample.labels["code"], METHODS[sample.labels["verb"]]
            counts[NO_ANSWER if code == "none" else code, method] += sample.value
        text, labels = FAMILIES[_REQUESTS]
        family = CounterMetricFamily(_REQUESTS, text, labels=labels)
        for (code, method), count in counts.items():
            family.add_metric((code, method, self._host), count)
        return family


def _renamed(ours: Histogram, name: str, values: tuple[str, ...]) -> Metric:
    """A histogram of ours under another name, with these labels."""
    text, labels = FAMILIES[name]
    family = HistogramMetricFamily(name, text)
    own = dict(zip(labels, values, strict=True))
    for sample in _samples(ours):
        suffix = sample.name[sample.name.rindex("_") :]
        family.add_sample(f"{name}{suffix}", own | sample.labels, sample.value)
    return family


def _samples(ours: Counter | Histogram) -> Iterator[Sample]:
    for family in ours.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                yield sample
