"""Copies between a device and the host's memory that run beside its computations.

Which devices copy on their own, how to wait for such copies, and :class:`HostCopies`, the memory
that a snapshot of the training is copied into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def has_async_copy(device: torch.device) -> bool:
    """Whether copies between this device and pinned memory run beside its computations (CUDA and
    ROCm).
    """
    return device.type == "cuda"


def use(device: torch.device) -> None:
    """Make a device that copies on its own the one of the calling thread."""
    torch.cuda.set_device(device)


def mark(device: torch.device) -> Callable[[], None]:
    """A function that returns once all copies queued so far have arrived, for any thread."""
    wait: Callable[[], None] = event(device).synchronize
    return wait


def event(device: torch.device) -> Any:
    """A place in the device's queue: ``query()`` says whether all before it is done,
    ``synchronize()`` waits for it.
    """
    place = torch.cuda.Event()  # type: ignore[no-untyped-call]
    place.record(torch.cuda.current_stream(device))
    return place


def own_queue(device: torch.device) -> AbstractContextManager[object]:
    """A queue beside the device's own one, which may stand still: what is copied inside does not
    wait for it.
    """
    if not has_async_copy(device):
        return nullcontext()
    queue = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    context: AbstractContextManager[object] = torch.cuda.stream(queue)
    return context


class Uploads:
    """Copies from pinned memory into the device's, on a stream beside that of its computations.

    :meth:`send` is called by the thread that reads ahead, :meth:`receive` by the one that computes.
    ``functions`` are those of the vendor's module.
    """

    def __init__(self, device: torch.device, functions: Any = torch.cuda) -> None:
        self._device = device
        self._functions = functions
        self._stream: Any = None

    def send(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Any]:
        """Begin to copy; returns the tensors on the device, and the event behind their copies."""
        functions = self._functions
        if self._stream is None:
            self._stream = functions.Stream(self._device)
        with functions.stream(self._stream):
            copies = tuple(tensor.to(self._device, non_blocking=True) for tensor in tensors)
            arrived = functions.Event()
            arrived.record(self._stream)
        return copies, arrived

    def receive(self, copies: tuple[Tensor, ...], arrived: Any) -> None:
        """Let what is computed from here on wait for the copies; the host waits for nothing."""
        current = self._functions.current_stream(self._device)
        current.wait_event(arrived)
        for copy in copies:
            # Else the allocator gives the memory to the next copy while it is still being read:
            # it knows only the stream that it was made for.
            copy.record_stream(current)


def register(memory: Tensor) -> bool:
    """Let the device copy into host memory that others have allocated; False where it cannot."""
    try:
        status = torch.cuda.cudart().cudaHostRegister(  # type: ignore[no-untyped-call]
            memory.data_ptr(), memory.numel() * memory.element_size(), 0
        )
        return int(status) == 0
    except (AttributeError, RuntimeError, TypeError):
        return False


class HostCopies:
    """Copies of tensors in host memory that is used again and again, one set of them by name.

    Fresh memory is several times slower to fill than memory that was used before, because the
    kernel clears and maps every page of it. Where the device copies on its own, the copies go into
    pinned memory and lie in the device's queue before the next step: training does not wait for
    them, and whoever reads them waits for the mark.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self._device: torch.device | None = None
        """Whose queue holds the copies, where it copies on its own."""

    @torch.no_grad()
    def take(self, group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies with the layout of ``tensors`` in memory, complete once :meth:`mark` says so.

        They overwrite those that were taken under the same names before.
        """
        return {name: self._copy(f"{group} {name}", value) for name, value in tensors.items()}

    def mark(self) -> Callable[[], None]:
        """A function that returns once everything taken so far has arrived; any thread may call
        it.
        """
        if self._device is None:
            # Copies of a device that does not copy on its own are complete when they return.
            return lambda: None
        return mark(self._device)

    def _copy(self, name: str, value: Tensor) -> Tensor:
        pinned = has_async_copy(value.device)
        copy = self._memory.get(name)
        if copy is None or not _is_alike(copy, value):
            copy = torch.empty_like(value, device="cpu", pin_memory=pinned)
            self._memory[name] = copy
        if pinned:
            self._device = value.device
        return copy.copy_(value.detach(), non_blocking=pinned)


def _is_alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
