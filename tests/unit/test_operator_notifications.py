"""The bell: rings are remembered until the pod has been asked, and too many of them are passed
over.
"""

from __future__ import annotations

from inception_operator.runtime.notifications import PAUSE, Bell

KEY = ("ns", "job")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_ring_stays_until_the_pod_has_been_asked() -> None:
    bell = Bell(Clock())
    assert bell.ring(KEY, "a")
    assert bell.ring(KEY, "b")
    rung = bell.rung(KEY)
    assert set(rung) == {"a", "b"}
    bell.answered(KEY, {"a": rung["a"]})
    assert set(bell.rung(KEY)) == {"b"}
    assert bell.rung(("ns", "other")) == {}


def test_a_pod_that_rings_while_it_is_asked_is_asked_again() -> None:
    clock = Clock()
    bell = Bell(clock)
    bell.ring(KEY, "a")
    asked = bell.rung(KEY)
    clock.now += 2 * PAUSE
    assert bell.ring(KEY, "a")
    bell.answered(KEY, asked)
    assert set(bell.rung(KEY)) == {"a"}


def test_ringing_all_the_time_is_passed_over() -> None:
    clock = Clock()
    bell = Bell(clock)
    assert bell.ring(KEY, "a")
    clock.now += PAUSE / 2
    assert not bell.ring(KEY, "a")
    assert bell.ring(KEY, "b")
    clock.now += PAUSE
    assert bell.ring(KEY, "a")


def test_pods_that_are_gone_are_forgotten() -> None:
    bell = Bell(Clock())
    bell.ring(KEY, "a")
    bell.ring(KEY, "b")
    bell.retain(KEY, {"b"})
    assert set(bell.rung(KEY)) == {"b"}
    assert bell.ring(KEY, "a"), "its pause is forgotten, too"
    bell.retain(KEY, ())
    assert bell.rung(KEY) == {}
