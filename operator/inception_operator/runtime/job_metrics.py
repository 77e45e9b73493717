"""Series of single jobs: made from their statuses when Prometheus asks, gone with the job.

Nothing has to remember to remove them. No job has more than `MOST_SERIES`, and one for each pod.

There are two ways out: families as the library has them, and their text. Written here, the text
takes a quarter of the processor time of the library's writer, which makes and sorts the labels of
each sample anew (docs/benchmarks/operator.md). Of a job that has ended the text is kept: nothing in
it changes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override

from inception_operator.contract import conditions
from inception_operator.contract.names import LABEL_SLOT, ConditionType, State
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json
from inception_operator.decide import goodput, stragglers
from inception_operator.spec.job import managed_elsewhere

from .containment import Containment, Where
from .objects import key_of
from .workqueue import Key

PREFIX: Final = "inception_operator"
MOST_SERIES: Final = 32
MOST_KEPT: Final = 4096
"""Texts of so many ended jobs are kept, each of about 4 KiB; beyond that they are made anew."""
_JOB: Final = ("namespace", "name")
_JOB_LABELS: Final = ("name", "namespace")
Sample = tuple[str, tuple[str, ...], float]
"""Family, values of its labels beside those of the job, and the value; infos have 1."""
Pods = Callable[[Key], Iterable[Json]]
"""The pods of a job as the API server knows them."""
Texts = dict[str, str]
"""The lines of one job by family."""

# Of each family: kind, name, help, labels beside namespace and name of the job.
_FAMILIES: Final[dict[str, tuple[type[Any], str, str, tuple[str, ...]]]] = {
    "info": (InfoMetricFamily, "job", "What a job is about.", ("accelerator", "model")),
    "created": (
        GaugeMetricFamily,
        "job_created_timestamp_seconds",
        "When a job was created: tells it from an earlier one of the same name.",
        (),
    ),
    "state": (GaugeMetricFamily, "job_state", "1 for the present state of a job.", ("state",)),
    "condition": (
        GaugeMetricFamily,
        "job_condition",
        "1 while a condition of a job is True, 0 while it is False; absent while it is Unknown.",
        ("condition",),
    ),
    "pod": (
        InfoMetricFamily,
        "job_pod",
        "Which pods a job has, and on which nodes: for joins with series of pods and devices.",
        ("pod", "node", "slot"),
    ),
    "restarts": (
        GaugeMetricFamily,
        "job_restarts",
        "Restarts so far, by whether they count towards the limit: until the job has got on.",
        ("counted",),
    ),
    "progress": (GaugeMetricFamily, "job_progress_ratio", "Share of the steps that are done.", ()),
    "accuracy": (
        GaugeMetricFamily,
        "job_accuracy_ratio",
        "Latest validation accuracy.",
        ("k",),
    ),
    "speed": (
        GaugeMetricFamily,
        "job_samples_per_second",
        "Speed over all ranks of a job that runs.",
        (),
    ),
    "straggler": (
        GaugeMetricFamily,
        "job_straggler_ratio",
        "How many times as long as the median of the ranks the one takes that the others wait for, "
        "until its gradients are ready; absent while all keep up.",
        ("rank", "pod", "node"),
    ),
    "goodput": (
        CounterMetricFamily,
        "job_goodput_seconds",
        "Where the time of a job has gone since it was admitted, by cause.",
        ("cause",),
    ),
    "ratio": (
        GaugeMetricFamily,
        "job_goodput_ratio",
        "Productive share of the time in which a job was not suspended on request.",
        (),
    ),
    "outcome": (
        GaugeMetricFamily,
        "job_outcome",
        "1 for how a job has ended.",
        ("outcome", "reason"),
    ),
    "loss": (
        GaugeMetricFamily,
        "job_final_loss",
        "Last training loss of a job that has ended.",
        (),
    ),
    "top1": (
        GaugeMetricFamily,
        "job_final_accuracy_ratio",
        "Last validation accuracy of a job that has ended.",
        ("k",),
    ),
    "samples": (
        GaugeMetricFamily,
        "job_final_samples",
        "Training samples that a job which has ended has consumed.",
        (),
    ),
    "duration": (
        GaugeMetricFamily,
        "job_final_duration_seconds",
        "Time from the creation of a job to its end.",
        (),
    ),
    "completed": (
        GaugeMetricFamily,
        "job_completion_timestamp_seconds",
        "When a job has ended.",
        (),
    ),
}


@dataclass(frozen=True)
class _Kept:
    """The text of an ended job, and what it was made from."""

    resource: Json
    pods: tuple[Json, ...]
    texts: Texts

    def is_of(self, resource: Json, pods: tuple[Json, ...]) -> bool:
        """Whether it would be the same now: the caches replace what changes."""
        if self.resource is not resource or len(self.pods) != len(pods):
            return False
        return all(kept is now for kept, now in zip(self.pods, pods, strict=True))


class JobCollector(Collector):
    """Series of the jobs that exist right now."""

    def __init__(
        self,
        resources: Callable[[], Iterable[Json]],
        pods: Pods,
        containment: Containment,
    ) -> None:
        self._resources = resources
        self._pods = pods
        self._containment = containment
        self._ended: dict[Key, _Kept] = {}

    def describe(self) -> Iterable[Metric]:
        """The names alone: else the registry would collect everything once to learn them."""
        return _families().values()

    @override
    def collect(self) -> Iterator[Metric]:
        families = _families()
        for job, resource, pods in self._shown():
            # One job that cannot be shown must not take the page from all others.
            with self._containment.contain(job, Where.METRICS):
                for key, labels, value in list(_all_samples(resource, pods)):
                    if isinstance(families[key], InfoMetricFamily):
                        families[key].add_metric([*job, *labels], {})
                    else:
                        families[key].add_metric([*job, *labels], value)
        yield from families.values()

    def text(self) -> str:
        """The same in Prometheus' text format."""
        page = {key: _header(key) for key in _FAMILIES}
        ended: dict[Key, _Kept] = {}
        for job, resource, pods in self._shown():
            kept = self._ended.get(job)
            if kept is not None and kept.is_of(resource, pods):
                ended[job] = kept
                texts = kept.texts
            else:
                texts = {}
                with self._containment.contain(job, Where.METRICS):
                    texts = _texts(job, _all_samples(resource, pods))
                    if len(ended) < MOST_KEPT and _is_over(resource):
                        ended[job] = _Kept(resource, pods, texts)
            for key, lines in texts.items():
                page[key].append(lines)
        # Without those that are gone.
        self._ended = ended
        return "".join(text for family in page.values() for text in family)

    def _shown(self) -> Iterator[tuple[Key, Json, tuple[Json, ...]]]:
        for resource in self._resources():
            key = key_of(resource)
            with self._containment.contain(key, Where.METRICS):
                if not managed_elsewhere(resource):
                    yield key, resource, tuple(self._pods(key))


def job_labels() -> dict[str, tuple[str, ...]]:
    """The labels of each family."""
    return {f"{PREFIX}_{name}": (*_JOB, *labels) for _, name, _, labels in _FAMILIES.values()}


def _families() -> dict[str, Any]:
    return {
        key: kind(f"{PREFIX}_{name}", text, labels=(*_JOB, *labels))
        for key, (kind, name, text, labels) in _FAMILIES.items()
    }


def _header(key: str) -> list[str]:
    kind, _, text, _ = _FAMILIES[key]
    word = "counter" if kind is CounterMetricFamily else "gauge"
    name = _full_name(key)
    return [f"# HELP {name} {text}\n", f"# TYPE {name} {word}\n"]


def _full_name(key: str) -> str:
    kind, name, _, _ = _FAMILIES[key]
    suffix = {CounterMetricFamily: "_total", InfoMetricFamily: "_info"}.get(kind, "")
    return f"{PREFIX}_{name}{suffix}"


def _texts(job: Key, samples: Iterable[Sample]) -> Texts:
    namespace, name = job
    texts: Texts = {}
    of_job = f'name="{_escaped(name)}",namespace="{_escaped(namespace)}"'
    for key, labels, value in samples:
        before, after = _around(key, labels)
        number = floatToGoString(value)  # type: ignore[no-untyped-call]
        texts[key] = f"{texts.get(key, '')}{before}{of_job}{after}{number}\n"
    return texts


# Most labels are one of a few words; the cache is for these, and bounded for all others.
@lru_cache(maxsize=4096)
def _around(key: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """What stands before and after the labels of the job in a line; as the library does, sorted."""
    pairs = list(zip(_FAMILIES[key][3], labels, strict=True))
    before = [f'{name}="{_escaped(value)}",' for name, value in pairs if name < _JOB_LABELS[0]]
    after = [f',{name}="{_escaped(value)}"' for name, value in pairs if name > _JOB_LABELS[-1]]
    return f"{_full_name(key)}{{{''.join(sorted(before))}", f"{''.join(sorted(after))}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _is_over(resource: Json) -> bool:
    return conditions.terminal(conditions.of(resource))


def _all_samples(resource: Json, pods: Iterable[Json]) -> Iterator[Sample]:
    yield from _samples(resource, datetime.now(UTC))
    yield from _pods(pods)


def _samples(resource: Json, now: datetime) -> Iterator[Sample]:
    status = resource.get("status") or {}
    present = status.get("conditions") or []
    state = status.get("state") or State.PENDING

    yield "info", (status.get("accelerator") or "", status.get("model") or ""), 1
    yield "state", (state,), 1
    created = _created(resource)
    if created is not None:
        yield "created", (), created.timestamp()
    for condition in present:
        if condition["type"] in conditions.OWN and condition["status"] != conditions.UNKNOWN:
            value = float(condition["status"] == conditions.TRUE)
            yield "condition", (condition["type"],), value

    counted = status.get("restartsCountTowardsMax") or 0
    yield "restarts", ("true",), counted
    yield "restarts", ("false",), (status.get("restarts") or 0) - counted

    yield from _figures(status)
    if conditions.terminal(present):
        yield from _final_figures(resource, status)
    if goodput.KEY in status:
        seconds = goodput.live_seconds(status[goodput.KEY], now)
        for cause, value in seconds.items():
            yield "goodput", (cause,), value
        yield "ratio", (), goodput.ratio(seconds)


def _figures(status: Json) -> Iterator[Sample]:
    """What the trainer told last: absent until it is known."""
    figures = status.get("trainerStatus") or {}
    yield from _known("progress", (), figures.get("progressPercentage"), 0.01)
    yield from _known("accuracy", ("1",), figures.get("accuracyTop1"))
    yield from _known("accuracy", ("5",), figures.get("accuracyTop5"))
    if status.get("state") == State.RUNNING:
        yield from _known("speed", (), figures.get("samplesPerSecond"))
        named = status.get(stragglers.KEY) or {}
        who = (str(named.get("rank", "")), named.get("pod", ""), named.get("node", ""))
        yield from _known("straggler", who, named.get("ratio"))


def _final_figures(resource: Json, status: Json) -> Iterator[Sample]:
    """What is left of a job that has ended, for as long as it exists."""
    present = status["conditions"]
    failed = conditions.is_true(present, ConditionType.FAILED)
    kind = ConditionType.FAILED if failed else ConditionType.SUCCEEDED
    yield "outcome", (kind, conditions.reason(present, kind)), 1

    figures = status.get("trainerStatus") or {}
    yield from _known("loss", (), figures.get("loss"))
    yield from _known("top1", ("1",), figures.get("accuracyTop1"))
    yield from _known("samples", (), figures.get("samplesSeen"))
    begin, end = _created(resource), parse_time(status.get("completionTime"))
    if end is not None:
        yield "completed", (), end.timestamp()
    if begin is not None and end is not None:
        yield "duration", (), max(0.0, (end - begin).total_seconds())


def _created(resource: Json) -> datetime | None:
    return parse_time(resource["metadata"].get("creationTimestamp"))


def _known(
    family: str, labels: tuple[str, ...], value: Any, factor: float = 1.0
) -> Iterator[Sample]:
    # Decimals of a status are strings, "nan" among them.
    try:
        yield family, labels, float(value) * factor
    except (TypeError, ValueError):
        return


def _pods(pods: Iterable[Json]) -> Iterator[Sample]:
    for pod in pods:
        metadata = pod["metadata"]
        slot = (metadata.get("labels") or {}).get(LABEL_SLOT, "")
        yield "pod", (metadata["name"], pod["spec"].get("nodeName") or "", slot), 1
