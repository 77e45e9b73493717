"""``spec.training.data.cache``: how much of a pod the bundled trainer keeps data in.

The trainer's section is its own; this is the part of it that pods are made large enough for.
"""

from __future__ import annotations

import re
from typing import Any, Final

from inception_operator.contract.names import CONTAINER
from inception_operator.contract.types import Json

from .validation import refusal

MEBIBYTE: Final = 2**20
LEAST_LEFT_MIB: Final = 256
"""What a cache must leave of the memory limit, as the trainer has it."""
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(k|[KMGTPE]i?|)")
_UNITS: Final = {"": 1, "k": 10**3} | {
    unit + suffix: base**power
    for power, unit in enumerate("KMGTPE", 1)
    for suffix, base in (("", 1000), ("i", 1024))
}


def cache_mib(training: Json, key: str) -> int:
    """The number at ``memoryMebibytes`` or ``diskMebibytes``; 0 where there is none."""
    data = training.get("data")
    cache = data.get("cache") if isinstance(data, dict) else None
    size = cache.get(key) if isinstance(cache, dict) else None
    return size if isinstance(size, int) and size > 0 else 0


def check_cache(training: Json, container: Json, pod: Json) -> None:
    """Refuse a cache that the memory limit of the container or of its pod leaves no room for."""
    size = cache_mib(training, "memoryMebibytes")
    if not size:
        return
    for where, owner in ((f"container {CONTAINER}", container), ("pod", pod)):
        limit = _bytes(((owner.get("resources") or {}).get("limits") or {}).get("memory"))
        if limit is not None and (size + LEAST_LEFT_MIB) * MEBIBYTE > limit:
            raise refusal(
                f"{size} MiB do not fit into the {limit // MEBIBYTE} MiB that the {where} may "
                f"take, of which the training needs {LEAST_LEFT_MIB} MiB or more; lower it, or "
                "raise the memory limit",
                at="data.cache.memoryMebibytes",
            )


def _bytes(quantity: Any) -> int | None:
    """A quantity of Kubernetes; None for what is none or is written in a way nobody uses."""
    match = _QUANTITY.fullmatch(str(quantity))
    return None if match is None else int(float(match[1]) * _UNITS[match[2]])
