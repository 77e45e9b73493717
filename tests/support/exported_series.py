"""Names of the series that operator and trainer export, and of those that an expression reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser
from prometheus_client import CollectorRegistry

from inception_operator.runtime.metrics import Metrics
from inception_trainer.sinks.prometheus import Prometheus

JOB: dict[str, Any] = {
    "metadata": {"namespace": "n", "name": "j"},
    "status": {
        "trainerStatus": {"progressPercentage": 1, "accuracyTop1": "0.5", "samplesPerSecond": "1"}
    },
}


def exported() -> set[str]:
    """Names of all samples that the operator and a trainer export."""
    trainer = Prometheus(0, ranks=lambda: ())
    registries: list[CollectorRegistry] = [Metrics(lambda: [JOB]).registry, trainer.registry]
    return {name for registry in registries for name in _names(registry)}


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
