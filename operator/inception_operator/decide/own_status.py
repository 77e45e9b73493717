"""Which part of a job's status is this operator's: what it writes, and leaves to others."""

from __future__ import annotations

from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.types import Json

from . import avoided_nodes, backoff, budget, departure, goodput, stragglers

# What this operator writes; server-side apply leaves other fields to whoever put them there.
_KEYS: Final = frozenset(
    (
        "observedGeneration",
        "conditions",
        "state",
        "startTime",
        "completionTime",
        "attempt",
        *budget.KEYS,
        *backoff.KEYS,
        avoided_nodes.KEY,
        departure.KEY,
        departure.REPLACED,
        goodput.KEY,
        stragglers.KEY,
        "nodes",
        "selector",
        "accelerator",
        "model",
        "checkpointPath",
        "trainerStatus",
        "rootCause",
    )
)


def own_part(resource: Json) -> Json:
    """What this operator has written into the status of a job; without conditions at first."""
    current = resource.get("status") or {}
    own = [
        condition
        for condition in conditions.of(resource)
        if condition.get("type") in conditions.OWN
    ]
    return {**{key: value for key, value in current.items() if key in _KEYS}, "conditions": own}
