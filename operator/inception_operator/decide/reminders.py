"""Reminders of an assignment: a kubelet now and then does not refresh the file for a minute, and
another change looks.

A launcher that answers is reminded every second until it says that it has its ranks. One that is
ready and does not answer has them for all one can tell; it is reminded after 1, 2, 4, 8 and 16
seconds. Not so in the first attempt: what gets lost is a change that follows another one within a
second or two, and there none goes before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract.names import ReportState
from inception_operator.contract.types import PodView

from . import slots

MOST: Final = 10
MOST_UNHEARD: Final = 5
_SECOND: Final = timedelta(seconds=1)


def due(pod: PodView, attempt: int, issued: datetime | None, now: datetime) -> int:
    """Number of the reminder that is due, or 0."""
    order = pod.assignment
    if order is None or issued is None or slots.confirmed(pod, attempt):
        return 0
    seconds = max(0, (now - issued) // _SECOND)
    if _unheard(pod, attempt):
        number = min(MOST_UNHEARD, seconds.bit_length())
    elif _waits(pod):
        number = min(MOST, seconds)
    else:
        return 0
    return number if number > order.reminder else 0


def look_again(pod: PodView, attempt: int, issued: datetime | None, now: datetime) -> float | None:
    """In how many seconds a launcher that does not answer is to be reminded again; others are asked
    all the time.
    """
    order = pod.assignment
    if order is None or issued is None or not _unheard(pod, attempt):
        return None
    number = max(order.reminder, due(pod, attempt, issued, now))
    return None if number >= MOST_UNHEARD else (issued + 2**number * _SECOND - now).total_seconds()


def wants_answer(pod: PodView, attempt: int) -> bool:
    """Whether one that did not answer is to be asked again; questions to nobody cost time."""
    order = pod.assignment
    return order is not None and order.reminder < MOST_UNHEARD and _unheard(pod, attempt)


def _unheard(pod: PodView, attempt: int) -> bool:
    return attempt > 1 and slots.acknowledged(pod, attempt) and not slots.confirmed(pod, attempt)


def _waits(pod: PodView) -> bool:
    """It answers, but not that it runs; one that holds for the attempt has read another assignment
    of it.
    """
    order, report = pod.assignment, pod.report
    if order is None or report is None or not pod.reachable:
        return False
    return report.attempt < order.attempt or (
        report.attempt == order.attempt and report.state == ReportState.IDLE
    )
