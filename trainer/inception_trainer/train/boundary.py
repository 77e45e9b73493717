"""What a step changes before it is finished, as it was before: batch norm statistics.

The forward pass of a step that fails has already moved them. Copies of them are taken at every step
boundary, into the pod's memory: from there a rank that was killed finds its own again, and copies
of the whole state take them from here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inception_trainer.checkpoint.memory_statistics import StatisticsFile
from inception_trainer.device import transfers


@dataclass(frozen=True)
class Boundary:
    """A step boundary: what belongs to the parameters of that moment."""

    count: int
    """Updates of parameters that this process had asked for."""
    step: int
    progress: dict[str, Any]
    """Plain data, which nobody changes any more."""
    statistics: dict[str, Tensor]
    """Overwritten two boundaries later."""


class StepCounts:
    """How many updates of parameters have been begun and finished, as the device sees it.

    The host tells a device what to do long before it is done. A device counts here itself, in the
    order in which it works; on the CPU the host's count is that.
    """

    def __init__(self, device: torch.device) -> None:
        self.finished = 0
        """Updates that the host has asked for."""
        self._device = device
        self._counts: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu":
            begun, done = torch.zeros(2, dtype=torch.int32, device=device).unbind()
            self._counts = begun, done

    def begin(self) -> None:
        """Parameters will now change."""
        if self._counts is not None:
            self._counts[0].add_(1)

    def finish(self) -> None:
        """They have changed."""
        self.finished += 1
        if self._counts is not None:
            self._counts[1].add_(1)

    def read(self) -> tuple[int, int]:
        """Begun and finished, of the device; waits for what is queued where it is called."""
        if self._counts is None:
            return self.finished, self.finished
        begun, done = self._counts
        return int(begun.item()), int(done.item())

    def drain(self, seconds: float) -> None:
        """Wait until the device has done what it was told, or so long."""
        if not transfers.has_async_copy(self._device):
            return
        place = transfers.event(self._device)
        deadline = time.monotonic() + seconds
        while not place.query() and time.monotonic() < deadline:
            time.sleep(0.001)


class BoundaryStatistics:
    """The statistics of the last step boundary, and those that whole copies need.

    ``live`` are the networks' own tensors, in the order of :func:`ordered`.
    """

    def __init__(self, live: Mapping[str, Tensor], file: StatisticsFile) -> None:
        self._names = list(live)
        self._live = list(live.values())
        self._file = file
        device = self._live[0].device if live else torch.device("cpu")
        self._device = None if device.type == "cpu" else DeviceStatistics(self._live, device)

    @torch.no_grad()
    def capture(self, step: int) -> None:
        """Take those after ``step`` steps; waits for no device."""
        if self._device is None:
            # Several hundred small tensors: one call for all of them.
            slot = self._file.begin()
            if slot:
                torch._foreach_copy_(slot, self._live)
            self._file.finish(step)
        else:
            self._device.capture(step)
            self._device.send(self._file)

    def pin(self, step: int) -> None:
        """Keep those of the last boundary, which is that after ``step`` steps, beside the ones that
        change with every step.
        """
        if self._device is not None:
            self._device.send_now(self._file)
        self._file.pin(step)

    def publish(self) -> None:
        """Let later attempts read them."""
        if self._device is not None:
            self._device.send_now(self._file)
        self._file.publish()

    def newest(self) -> dict[str, Tensor]:
        """Those of the last boundary, on the device where the networks are."""
        tensors = self._file.newest() if self._device is None else self._device.newest()
        return dict(zip(self._names, tensors, strict=True))


def ordered(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Counters first, then floats, as they lie in the file."""
    return {
        name: tensor
        for floats in (False, True)
        for name, tensor in statistics.items()
        if tensor.is_floating_point() == floats
    }


class DeviceStatistics:
    """The same on a device: two sets there, and a way to the host beside its computations."""

    def __init__(self, live: list[Tensor], device: torch.device) -> None:
        self._live = live
        self._device = device
        self._sets = [[torch.empty_like(tensor) for tensor in live] for _ in range(2)]
        pinned = transfers.has_async_copy(device)
        self._host = [torch.empty_like(t, device="cpu", pin_memory=pinned) for t in live]
        self._newest = 0
        self._step = -1
        self._sent: tuple[int, Any] | None = None
        """Step and place in the device's queue of what is on its way."""

    def newest(self) -> list[Tensor]:
        """The set of the last boundary."""
        return self._sets[self._newest]

    def capture(self, step: int) -> None:
        """Queue the copy behind what the device computes."""
        self._newest = 1 - self._newest
        torch._foreach_copy_(self.newest(), self._live)
        self._step = step

    def send(self, file: StatisticsFile) -> None:
        """Put into ``file`` what has arrived, and send the newest if the way is free.

        A device that is behind the host, or that does not copy on its own, sends only now and then.
        """
        if not transfers.has_async_copy(self._device):
            return
        if self._sent is not None:
            if not self._sent[1].query():
                return
            self._receive(file)
        for host, tensor in zip(self._host, self.newest(), strict=True):
            host.copy_(tensor, non_blocking=True)
        self._sent = (self._step, transfers.event(self._device))

    def send_now(self, file: StatisticsFile) -> None:
        """The same, and wait for it."""
        for host, tensor in zip(self._host, self.newest(), strict=True):
            host.copy_(tensor)
        self._sent = (self._step, None)
        self._receive(file)

    def _receive(self, file: StatisticsFile) -> None:
        assert self._sent is not None  # noqa: S101 - asked before
        step = self._sent[0]
        torch._foreach_copy_(file.begin(), self._host)
        file.finish(step)
        self._sent = None
