"""Times of steps on a device that works through a queue, by a clock that only the test moves."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from inception_trainer.device.clock import (
    EventClock,
    HostClock,
    IntervalClock,
    StepClock,
    step_clock,
)

LAUNCH, WORK = 0.020, 0.060
"""Seconds of the host and of the device for one step."""


@dataclass
class Queue:
    """A device that begins a step's work when it is told and has nothing else to do."""

    now: float = 100.0
    busy_until: float = 0.0

    def step(
        self,
        clock: StepClock,
        number: int,
        wait: float = 0.0,
        batches: int = 1,
        peers: float | None = None,
    ) -> None:
        """``peers`` is how long the device waits for other ranks, unknown to the host."""
        clock.begin(number)
        for _ in range(batches):
            clock.ask()
            self.now += wait
            clock.receive()
            self.busy_until = max(self.busy_until, self.now) + WORK / batches
            self.now += LAUNCH / batches
        if peers is not None:
            clock.ready()
            self.busy_until = max(self.busy_until, self.now) + peers
            clock.meet()
        clock.end()

    def catch_up(self) -> None:
        self.now = max(self.now, self.busy_until)

    def event(self) -> Event:
        return Event(self)


@dataclass
class Event:
    """As torch.cuda.Event is."""

    queue: Queue
    at: float = field(default=-1.0)

    def record(self) -> None:
        self.at = max(self.queue.now, self.queue.busy_until)

    def query(self) -> bool:
        return self.queue.now >= self.at

    def synchronize(self) -> None:
        self.queue.now = max(self.queue.now, self.at)

    def elapsed_time(self, end: Event) -> float:
        if not (self.query() and end.query()):
            raise RuntimeError("device not ready")
        return 1000 * (end.at - self.at)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_events_tell_the_work_behind_the_launch(queue) -> None:
    clock = EventClock(queue.event)
    for number in range(1, 11):
        queue.step(clock, number)
    # The host is through after 200 ms; by then the device has done three of ten steps.
    assert queue.now == pytest.approx(100.2)
    early = clock.take()
    assert [times.step for times in early] == [1, 2, 3]
    queue.catch_up()
    times = early + clock.take(caught_up=True)
    assert [step.step for step in times] == [*range(1, 11)]
    for step in times:
        assert step.compute_seconds == pytest.approx(WORK)
        assert step.data_seconds == pytest.approx(0.0)
        assert step.gap_seconds == pytest.approx(0.0)
    assert not clock.take(caught_up=True)


def test_a_host_that_waits_while_the_device_works_costs_nothing(queue) -> None:
    """30 ms for a batch and 20 ms of launch are hidden behind 60 ms of work."""
    clock = EventClock(queue.event)
    for number in range(1, 11):
        queue.step(clock, number, wait=0.030)
    queue.catch_up()
    first, *others = clock.take(caught_up=True)
    assert first.data_seconds == pytest.approx(0.030)
    assert sum(step.data_seconds for step in others) == pytest.approx(0.0)
    assert all(step.compute_seconds == pytest.approx(WORK) for step in others)


def test_only_the_part_of_a_wait_that_the_device_stands_still_counts(queue) -> None:
    """A batch comes every 120 ms (100 of waiting, 20 of launch) for 60 ms of work."""
    clock = EventClock(queue.event)
    for number in range(1, 6):
        queue.step(clock, number, wait=0.100)
    queue.catch_up()
    for step in clock.take(caught_up=True)[1:]:
        assert step.data_seconds == pytest.approx(0.060)
        assert step.compute_seconds == pytest.approx(WORK)
        assert step.gap_seconds == pytest.approx(0.0)


def test_waits_of_all_micro_batches_are_added_up(queue) -> None:
    clock = EventClock(queue.event)
    for number in range(1, 6):
        # Twice 70 ms of waiting and 10 of launch, for twice 30 ms of work.
        queue.step(clock, number, wait=0.070, batches=2)
    queue.catch_up()
    for step in clock.take(caught_up=True)[1:]:
        assert step.data_seconds == pytest.approx(2 * 0.050)
        assert step.compute_seconds == pytest.approx(WORK)


def test_the_device_tells_its_own_work_from_waiting_for_other_ranks(queue) -> None:
    clock = EventClock(queue.event)
    for number in range(1, 6):
        # The host is ahead: it has told the device of the wait long before it comes to it.
        queue.step(clock, number, peers=0.200)
    queue.catch_up()
    for step in clock.take(caught_up=True):
        assert step.own_seconds == pytest.approx(WORK)
        assert step.wait_seconds == pytest.approx(0.200)
        assert step.compute_seconds == pytest.approx(WORK + 0.200)


def test_a_missing_batch_is_a_ranks_own_time(queue) -> None:
    clock = EventClock(queue.event)
    queue.step(clock, 1, wait=0.100, peers=0.0)
    queue.catch_up()
    (times,) = clock.take(caught_up=True)
    assert (times.own_seconds, times.wait_seconds) == pytest.approx((0.100 + WORK, 0.0))


def test_the_host_tells_its_own_work_from_waiting_for_other_ranks(queue) -> None:
    clock = HostClock(lambda: queue.now)
    clock.begin(1)
    clock.ask()
    queue.now += 0.1
    clock.receive()
    queue.now += 0.2
    clock.ready()
    queue.now += 0.7
    clock.meet()
    queue.now += 0.05
    clock.end()
    queue.step(clock, 2)
    met, alone = clock.take()
    assert (met.own_seconds, met.wait_seconds) == pytest.approx((0.3, 0.7))
    assert (met.data_seconds, met.compute_seconds) == pytest.approx((0.1, 0.95))
    assert (alone.own_seconds, alone.wait_seconds) == (None, None), "not those of the step before"


def test_a_device_without_events_does_not_tell_its_own_work(queue) -> None:
    clock = IntervalClock(lambda: queue.now)
    queue.step(clock, 1, peers=0.2)
    queue.catch_up()
    (times,) = clock.take(caught_up=True)
    assert (times.own_seconds, times.wait_seconds) == (None, None)


def test_a_gap_between_two_steps_is_seen_and_one_after_catching_up_is_not(queue) -> None:
    clock = EventClock(queue.event)
    queue.step(clock, 1)
    queue.now += 0.100
    queue.step(clock, 2)
    queue.catch_up()
    times = clock.take(caught_up=True)
    # 120 ms from one launch to the next, of which the device worked 60.
    assert [step.gap_seconds for step in times] == pytest.approx([0.0, 0.060])
    queue.now += 5.0
    queue.step(clock, 3)
    queue.catch_up()
    assert clock.take(caught_up=True)[0].gap_seconds == 0.0


def test_events_are_used_again(queue) -> None:
    made = []

    def make() -> Event:
        made.append(queue.event())
        return made[-1]

    clock = EventClock(make)
    for number in range(1, 101):
        queue.step(clock, number, peers=0.0)
        queue.catch_up()
        clock.take()
    assert len(made) <= 10


def test_without_events_the_steps_share_the_time_until_the_device_has_caught_up(queue) -> None:
    clock = IntervalClock(lambda: queue.now)
    for number in range(1, 11):
        queue.step(clock, number)
        assert not clock.take()
    queue.catch_up()
    times = clock.take(caught_up=True)
    assert [step.step for step in times] == [*range(1, 11)]
    assert all(step.compute_seconds == pytest.approx(WORK) for step in times)
    # The time between two intervals belongs to none of them.
    queue.now += 5.0
    queue.step(clock, 11, wait=0.010)
    queue.catch_up()
    (last,) = clock.take(caught_up=True)
    assert (last.data_seconds, last.compute_seconds) == pytest.approx((0.010, WORK))
    assert not clock.take(caught_up=True)


def test_the_clock_of_the_host_tells_every_step_at_once(queue) -> None:
    clock = HostClock(lambda: queue.now)
    queue.step(clock, 7, wait=0.5)
    (times,) = clock.take()
    assert (times.step, times.data_seconds) == (7, pytest.approx(0.5))
    assert times.compute_seconds == pytest.approx(LAUNCH)


def functions(**event: Any) -> Any:
    return types.SimpleNamespace(**event)


def refuse(**_arguments: Any) -> Any:
    raise RuntimeError("no events in this driver")


@pytest.mark.parametrize(
    ("device", "module", "kind"),
    [
        ("cpu", None, HostClock),
        ("meta", functions(Event=lambda enable_timing: Queue().event()), EventClock),
        ("meta", functions(), IntervalClock),
        ("meta", functions(Event=refuse), IntervalClock),
        # A name without what makes it of use.
        ("meta", functions(Event=lambda enable_timing: object()), IntervalClock),
    ],
    ids=["cpu", "events", "none", "refusing", "hollow"],
)
def test_the_clock_is_the_best_that_a_device_has(device, module, kind) -> None:
    assert type(step_clock(torch.device(device), module)) is kind
