"""Which devices copy from and to pinned host memory on their own, and how to wait for such copies."""

from __future__ import annotations

from collections.abc import Callable

import torch


def has_async_copy(device: torch.device) -> bool:
    """Whether copies between this device and pinned memory run beside its computations (CUDA and
    ROCm).
    """
    return device.type == "cuda"


def use(device: torch.device) -> None:
    """Make a device that copies itself the one of the calling thread."""
    torch.cuda.set_device(device)


def mark(device: torch.device) -> Callable[[], None]:
    """A function that returns once all copies queued so far have arrived, for any thread."""
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait
