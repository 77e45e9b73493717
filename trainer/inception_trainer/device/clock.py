"""Times of steps, also where the host runs ahead of the device.

A device that works through a queue is told what to do and does it later: what passes on the host
between the beginning and the end of a step is then the time of telling. Such devices are asked for
the times of events in their queue. Where a vendor has no such events, only the time until the
device has caught up is true, and the steps of a log interval share it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from .table import CPU


@dataclass(frozen=True)
class StepTimes:
    """What one step took: waiting for batches, computing, and standing still before it."""

    step: int
    """Steps done, this one included."""
    data_seconds: float
    """Time in which nothing was computed because a batch was missing."""
    compute_seconds: float
    """The rest of the step."""
    gap_seconds: float = 0.0
    """How long the device had nothing to do between the step before and this one."""
    own_seconds: float | None = None
    """From the beginning of the step until this rank's gradients were ready, waiting for batches
    included; None where nobody saw it. In synchronous training it is all that differs between
    ranks: what comes after takes as long as the slowest of them.
    """
    wait_seconds: float | None = None
    """From there until those of all ranks had come."""


class StepClock(Protocol):
    """Takes the times of steps. Calls come in the order ``begin``, then ``ask`` and ``receive`` for
    every batch, ``ready`` and ``meet`` where they are known, ``end``.
    """

    sees_device: bool
    """Whether the times are those of the device, which says when it stands still."""

    def begin(self, step: int) -> None:
        """A step begins; with it ``step`` steps will be done."""

    def ask(self) -> None:
        """The step needs its next batch."""

    def receive(self) -> None:
        """The batch is there."""

    def ready(self) -> None:
        """All gradients of this rank are computed, or told the device; it has waited for none of
        the others.
        """

    def meet(self) -> None:
        """It has waited for those of all ranks, or told the device to."""

    def end(self) -> None:
        """The host has told the device everything of this step."""

    def take(self, *, caught_up: bool = False) -> list[StepTimes]:
        """The times that have become known since the last call, in the order of the steps.

        ``caught_up`` says that the device has been waited for: then they are those of all steps.
        """


class HostClock:
    """The host's own: right where it computes itself."""

    sees_device = False

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._step = 0
        self._began = 0.0
        self._asked = 0.0
        self._waited = 0.0
        self._ready: float | None = None
        self._met: float | None = None
        self._times: list[StepTimes] = []

    def begin(self, step: int) -> None:
        """Start the clock."""
        self._step = step
        self._waited = 0.0
        self._ready = self._met = None
        self._began = self._now()

    def ask(self) -> None:
        """From here on the host waits."""
        self._asked = self._now()

    def receive(self) -> None:
        """It has waited until here."""
        self._waited += self._now() - self._asked

    def ready(self) -> None:
        """The gradients are there."""
        self._ready = self._now()

    def meet(self) -> None:
        """So are those of the others."""
        self._met = self._now()

    def end(self) -> None:
        """The step is done."""
        computed = self._now() - self._began - self._waited
        times = StepTimes(self._step, self._waited, computed)
        if self._ready is not None and self._met is not None:
            own, wait = self._ready - self._began, self._met - self._ready
            times = replace(times, own_seconds=own, wait_seconds=wait)
        self._times.append(times)

    def take(self, *, caught_up: bool = False) -> list[StepTimes]:
        """Every step that has ended."""
        times, self._times = self._times, []
        return times


class IntervalClock(HostClock):
    """For devices with a queue and without events: the time until the device has caught up, less
    waiting, in equal parts for all steps since it did so before.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(now)
        self._since: float | None = None

    def begin(self, step: int) -> None:
        """The first step after the device had caught up begins the interval."""
        super().begin(step)
        if self._since is None:
            self._since = self._began

    def take(self, *, caught_up: bool = False) -> list[StepTimes]:
        """Nothing before the device has caught up."""
        if not caught_up or self._since is None:
            return []
        # Of these the waits alone are true: where the gradients were ready only the device knows.
        told = super().take()
        waited = sum(times.data_seconds for times in told)
        computed = self._now() - self._since - waited
        self._since = None
        return [StepTimes(times.step, times.data_seconds, computed / len(told)) for times in told]


@dataclass
class _Recorded:
    """The events of one step: of its beginning, around each wait and of its end; and those of its
    gradients, which may be missing.
    """

    step: int
    events: list[Any] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)


class EventClock:
    """Reads when the device came to certain places in its queue.

    Between the two events around a wait lies no work: their distance is how long the device, and
    not the host, has waited. It is nothing as long as the queue holds work from before.
    """

    sees_device = True

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self._make_event = make_event
        self._unused: list[Any] = []
        """Events to be used again: making one costs more than recording it."""
        self._recorded = _Recorded(0)
        self._queued: deque[_Recorded] = deque()
        self._last_end: Any = None
        """Of the step that was taken last, while nothing else has come after it."""

    def begin(self, step: int) -> None:
        """Record the place where the step begins."""
        self._recorded = _Recorded(step)
        self._record(self._recorded.events)

    def ask(self) -> None:
        """Record the place behind all work so far."""
        self._record(self._recorded.events)

    def receive(self) -> None:
        """Record the place where work goes on."""
        self._record(self._recorded.events)

    def ready(self) -> None:
        """Record the place behind the gradients, before the device waits for other ranks."""
        self._record(self._recorded.gradients)

    def meet(self) -> None:
        """Record the place behind that wait."""
        self._record(self._recorded.gradients)

    def end(self) -> None:
        """Record the place behind the last work of the step."""
        self._record(self._recorded.events)
        self._queued.append(self._recorded)

    def take(self, *, caught_up: bool = False) -> list[StepTimes]:
        """Every step that the device has done."""
        times = []
        while self._queued and (caught_up or self._queued[0].events[-1].query()):
            recorded = self._queued.popleft()
            if caught_up:
                recorded.events[-1].synchronize()
            times.append(self._times(recorded))
        if caught_up and self._last_end is not None:
            # What comes next on the host (records, an evaluation, a save) is no gap between steps.
            self._unused.append(self._last_end)
            self._last_end = None
        return times

    def _times(self, recorded: _Recorded) -> StepTimes:
        events = recorded.events
        begin, end = events[0], events[-1]
        waits = zip(events[1:-1:2], events[2:-1:2], strict=True)
        waited = sum(_seconds(asked, received) for asked, received in waits)
        gap = 0.0
        if self._last_end is not None:
            gap = _seconds(self._last_end, begin)
            self._unused.append(self._last_end)
        self._last_end = end
        computed = max(0.0, _seconds(begin, end) - waited)
        times = StepTimes(recorded.step, waited, computed, gap)
        if len(recorded.gradients) == 2:
            ready, met = recorded.gradients
            own, wait = _seconds(begin, ready), _seconds(ready, met)
            times = replace(times, own_seconds=own, wait_seconds=wait)
        self._unused.extend((*events[:-1], *recorded.gradients))
        return times

    def _record(self, place: list[Any]) -> None:
        event = self._unused.pop() if self._unused else self._make_event()
        event.record()
        place.append(event)


def _seconds(first: Any, second: Any) -> float:
    return float(first.elapsed_time(second)) / 1000


def step_clock(device: torch.device, functions: Any) -> StepClock:
    """The clock that is right for a device; ``functions`` are those of the vendor's module."""
    if device.type == CPU:
        return HostClock()
    # The vendor's own first: they are older than torch's, and all vendors copy those of CUDA.
    for make in (
        lambda: functions.Event(enable_timing=True),
        lambda: torch.Event(device, enable_timing=True),
    ):
        if _tells_time(make):
            return EventClock(make)
    return IntervalClock()


def _tells_time(make_event: Callable[[], Any]) -> bool:
    """Whether such events can be made, asked and compared; tried, for nothing tells."""
    try:
        first, second = make_event(), make_event()
        first.record()
        second.record()
        second.synchronize()
        return bool(second.query()) and math.isfinite(first.elapsed_time(second))
    except Exception:
        # Vendors raise what they like where a function is no more than a name.
        return False
