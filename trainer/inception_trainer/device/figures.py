"""Memory, load, temperature, power and health of a device, as far as the vendor's module tells.
Unknown is None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from inception_trainer.comm import Comm

    from .accelerator import Accelerator

NEVER = (ImportError, AttributeError, NotImplementedError, TypeError, AssertionError)
"""Errors that say that a figure does not exist here; others say that the device does not answer."""


@dataclass(frozen=True)
class Figures:
    """One reading, in base units."""

    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    memory_peak_bytes: float | None = None
    utilization_ratio: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    healthy: float | None = None
    """0 once a question that the device had answered fails."""


class Reader:
    """Asks the functions of one device; those that are missing are not asked twice."""

    def __init__(self, functions: Any, index: int | None) -> None:
        self._functions, self._index = functions, index
        self._missing: set[str] = set()
        self._answered: set[str] = set()
        self._failed = False

    def read(self) -> Figures:
        """All figures now; never raises."""
        self._failed = False
        free_total = self._ask("mem_get_info")
        allocated = self._ask("memory_allocated") if free_total is None else None
        percent, milliwatts = self._ask("utilization"), self._ask("power_draw")
        return Figures(
            memory_used_bytes=allocated
            if free_total is None
            else float(free_total[1] - free_total[0]),
            memory_total_bytes=None if free_total is None else float(free_total[1]),
            memory_peak_bytes=self._ask("max_memory_allocated"),
            utilization_ratio=None if percent is None else percent / 100,
            temperature_celsius=self._ask("temperature"),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            healthy=float(not self._failed) if self._answered else None,
        )

    def peak_memory(self) -> int | None:
        """Most device memory allocated so far."""
        peak = self._ask("max_memory_allocated")
        return None if peak is None else int(peak)

    def _ask(self, name: str) -> Any:
        function: Callable[..., Any] | None = getattr(self._functions, name, None)
        if function is None or name in self._missing:
            return None
        try:
            value = function() if self._index is None else function(self._index)
        except NEVER:
            self._missing.add(name)
            return None
        except Exception:
            self._failed |= name in self._answered
            if name not in self._answered:
                self._missing.add(name)
            return None
        if value is not None:
            self._answered.add(name)
        return value


def of_ranks(accelerator: Accelerator, comm: Comm) -> tuple[Figures, ...]:
    """The figures of every rank's device, in rank order; every rank must call it. Empty on the CPU."""
    if accelerator.is_cpu:
        return ()
    own = [
        math.nan if value is None else value for value in dataclasses.astuple(accelerator.figures())
    ]
    rows = comm.gather(torch.tensor(own, dtype=torch.float64)).tolist()
    return tuple(Figures(*(None if math.isnan(value) else value for value in row)) for row in rows)
