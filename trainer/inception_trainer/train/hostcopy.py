"""Copies of tensors in host memory that is used again and again: a snapshot costs training one pass
over its tensors.

Fresh memory is several times slower to fill than memory that was used before, because the kernel
clears and maps every page of it. Where the device can copy on its own (CUDA and ROCm), into pinned
memory, training does not even wait for the copies: they lie in the device's queue before the next
step, and whoever reads them waits for the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from inception_trainer.device import transfers


class HostCopies:
    """One set of copies by name; taking it again overwrites it."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._copies_itself: torch.device | None = None

    @torch.no_grad()
    def take(self, group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies with the layout of ``tensors`` in memory; complete only after :meth:`mark` says
        so.
        """
        return {name: self._copy(f"{group} {name}", value) for name, value in tensors.items()}

    def mark(self) -> Callable[[], None]:
        """A function that returns once everything taken so far has arrived; any thread may call it."""
        if self._copies_itself is None:
            return _arrived
        return transfers.mark(self._copies_itself)

    def _copy(self, name: str, value: Tensor) -> Tensor:
        kept = self._kept.get(name)
        pinned = transfers.has_async_copy(value.device)
        if kept is None or (kept.shape, kept.stride(), kept.dtype) != (
            value.shape,
            value.stride(),
            value.dtype,
        ):
            kept = self._kept[name] = torch.empty_like(value, device="cpu", pin_memory=pinned)
        if pinned:
            self._copies_itself = value.device
        return kept.copy_(value.detach(), non_blocking=pinned)


def _arrived() -> None:
    """Copies of a device that does not copy on its own are complete when they return."""
