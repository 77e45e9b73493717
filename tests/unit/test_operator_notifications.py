"""Notifications are kept until the pod has been asked, and too many of them are passed over."""

from __future__ import annotations

from inception_operator.runtime.notifications import PAUSE, Notifications

KEY = ("ns", "job")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_notification_stays_until_the_pod_has_been_asked() -> None:
    notifications = Notifications(Clock())
    assert notifications.add(KEY, "a")
    assert notifications.add(KEY, "b")
    pending = notifications.pending(KEY)
    assert set(pending) == {"a", "b"}
    notifications.answered(KEY, {"a": pending["a"]})
    assert set(notifications.pending(KEY)) == {"b"}
    assert notifications.pending(("ns", "other")) == {}


def test_a_pod_that_notifies_while_it_is_asked_is_asked_again() -> None:
    clock = Clock()
    notifications = Notifications(clock)
    notifications.add(KEY, "a")
    asked = notifications.pending(KEY)
    clock.now += 2 * PAUSE
    assert notifications.add(KEY, "a")
    notifications.answered(KEY, asked)
    assert set(notifications.pending(KEY)) == {"a"}


def test_notifying_all_the_time_is_passed_over() -> None:
    clock = Clock()
    notifications = Notifications(clock)
    assert notifications.add(KEY, "a")
    clock.now += PAUSE / 2
    assert not notifications.add(KEY, "a")
    assert notifications.add(KEY, "b")
    clock.now += PAUSE
    assert notifications.add(KEY, "a")


def test_pods_that_are_gone_are_forgotten() -> None:
    notifications = Notifications(Clock())
    notifications.add(KEY, "a")
    notifications.add(KEY, "b")
    notifications.retain(KEY, {"b"})
    assert set(notifications.pending(KEY)) == {"b"}
    assert notifications.add(KEY, "a"), "its pause is forgotten, too"
    notifications.retain(KEY, ())
    assert notifications.pending(KEY) == {}
