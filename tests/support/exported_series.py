"""Names of the series that operator and trainer export, and of those that an expression reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser
from prometheus_client import CollectorRegistry

from inception_operator.runtime.metrics import Metrics
from inception_trainer.sinks.prometheus import OPTIONAL_GAUGES, RANK_COUNTERS, Prometheus

JOB: dict[str, Any] = {
    "metadata": {"namespace": "n", "name": "j"},
    "status": {
        "trainerStatus": {"progressPercentage": 1, "accuracyTop1": "0.5", "samplesPerSecond": "1"}
    },
}


def exported() -> set[str]:
    """Names of all samples that the operator and a trainer export."""
    registries: list[CollectorRegistry] = [Metrics(lambda: [JOB]).registry, _trainer().registry]
    return {name for registry in registries for name in _names(registry)}


@cache
def labels() -> dict[str, frozenset[str]]:
    """The labels that the pages themselves give to each of these samples."""
    operator = {
        name: frozenset(of_family)
        for family, of_family in Metrics().labels.items()
        for name in _variants(family)
    }
    trainer = {
        name: frozenset(getattr(collector, "_labelnames", ()))
        for collector, families in _trainer().registry._collector_to_names.items()
        for family in families
        for name in _variants(family)
    }
    # An Info gets its labels with its values.
    build = {"version", "model", "precision", "device", "profile", "backend", "world_size"}
    trainer["trainer_build_info"] = frozenset(build)
    trainer |= {f"trainer_rank_{name}_total": frozenset({"rank"}) for name in RANK_COUNTERS}
    nothing: frozenset[str] = frozenset()
    return {name: operator.get(name, nothing) | trainer.get(name, nothing) for name in exported()}


def _variants(family: str) -> set[str]:
    return {family + suffix for suffix in ("", "_total", "_bucket", "_sum", "_count", "_info")}


def _trainer() -> Prometheus:
    sink = Prometheus(0, ranks=lambda: ())
    # Made only where there is something to tell.
    for name in OPTIONAL_GAUGES:
        sink._optional_gauge(name)
    return sink


def _names(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        suffixes = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
            "info": ["_info"],
        }
        yield from (family.name + suffix for suffix in suffixes.get(family.type, [""]))


def nodes(node: Any) -> Iterator[Any]:
    """A parsed expression and all its parts."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from nodes(child)
    for child in getattr(node, "args", None) or ():
        yield from nodes(child)


def selectors(node: Any) -> Iterator[Any]:
    """All vector selectors of a parsed expression."""
    return (part for part in nodes(node) if isinstance(part, promql_parser.VectorSelector))
