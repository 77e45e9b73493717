"""Memory, load, temperature, power and health of one device, as far as the vendor's module tells.

Unknown is None. The functions are those of ``torch.cuda``, which all vendors copy in part:
``mem_get_info``, ``utilization``, ``temperature``, ``power_draw``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

# ImportError: torch.cuda's load and power need NVML's Python module.
NEVER = (ImportError, AttributeError, NotImplementedError, TypeError, AssertionError)
"""Errors that say that a figure does not exist here; others say that the device does not answer."""


@dataclass(frozen=True)
class Figures:
    """One reading, in base units: bytes, degrees Celsius, watts, and load as a ratio of 0 to 1."""

    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    memory_peak_bytes: float | None = None
    utilization_ratio: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    healthy: float | None = None
    """1, or 0 when a question fails that the device has answered before."""


class Reader:
    """Asks the functions of one device; those that are missing are not asked twice."""

    def __init__(self, functions: Any, index: int | None) -> None:
        self._functions = functions
        self._index = index
        self._missing: set[str] = set()
        self._answered: set[str] = set()
        self._failed = False

    def read(self) -> Figures:
        """All figures now; never raises."""
        self._failed = False
        free_total = self._ask("mem_get_info")
        allocated = self._ask("memory_allocated") if free_total is None else None
        percent = self._ask("utilization")
        power = self._ask("power_draw")
        if free_total is None:
            used = allocated
            total = None
        else:
            # Of the whole device, so other processes on it count too.
            free, total = (float(number) for number in free_total)
            used = total - free
        return Figures(
            memory_used_bytes=used,
            memory_total_bytes=total,
            memory_peak_bytes=self._ask("max_memory_allocated"),
            utilization_ratio=None if percent is None else percent / 100,
            temperature_celsius=self._ask("temperature"),
            power_watts=None if power is None else power / units_per_watt(self._functions),
            healthy=float(not self._failed) if self._answered else None,
        )

    def peak_memory(self) -> int | None:
        """Most bytes of device memory allocated so far."""
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
            # Vendors raise what they like. From a function that has answered before, it is a device
            # that has failed; from one that never has, a function that is no more than a stub.
            if name in self._answered:
                self._failed = True
            else:
                self._missing.add(name)
            return None
        if value is not None:
            self._answered.add(name)
        return value


def units_per_watt(functions: Any) -> int:
    """In what these functions tell ``power_draw``: NVIDIA's library in milliwatts, and torch hands
    on the watts of AMD's and Intel's as they are.
    """
    is_amd = functions is torch.cuda and torch.version.hip is not None
    is_intel = functions is getattr(torch, "xpu", None)
    return 1 if is_amd or is_intel else 1000
