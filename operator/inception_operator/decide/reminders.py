"""Reminders of an assignment: a kubelet now and then does not refresh the file for a minute, and
another change of the annotation makes it look.

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
    assignment = pod.assignment
    if assignment is None or issued is None:
        return 0
    if slots.confirmed(pod, attempt):
        return 0
    # The clock of the API server may be ahead of ours.
    seconds = max(0, (now - issued) // _SECOND)
    if _is_unheard(pod, attempt):
        # The n-th is due 2 to the power of n-1 seconds after the assignments went out.
        number = min(MOST_UNHEARD, seconds.bit_length())
    elif _waits(pod):
        number = min(MOST, seconds)
    else:
        return 0
    return number if number > assignment.reminder else 0


def look_again(pod: PodView, attempt: int, issued: datetime | None, now: datetime) -> float | None:
    """In how many seconds a launcher that does not answer is to be reminded again; others are asked
    all the time.
    """
    assignment = pod.assignment
    if assignment is None or issued is None:
        return None
    if not _is_unheard(pod, attempt):
        return None
    number = max(assignment.reminder, due(pod, attempt, issued, now))
    if number >= MOST_UNHEARD:
        return None
    following = issued + (1 << number) * _SECOND
    return (following - now).total_seconds()


def wants_answer(pod: PodView, attempt: int) -> bool:
    """Whether one that did not answer is to be asked again; questions to nobody cost time."""
    assignment = pod.assignment
    if assignment is None or assignment.reminder >= MOST_UNHEARD:
        return False
    return _is_unheard(pod, attempt)


def _is_unheard(pod: PodView, attempt: int) -> bool:
    """Whether only its readiness says that it has begun."""
    if attempt <= 1 or slots.confirmed(pod, attempt):
        return False
    return slots.acknowledged(pod, attempt)


def _waits(pod: PodView) -> bool:
    """It answers, but not that it runs; one that stands by for the attempt has read another
    assignment of it.
    """
    assignment = pod.assignment
    report = pod.report
    if assignment is None or report is None:
        return False
    if not pod.reachable:
        return False
    if report.attempt == assignment.attempt:
        return report.state == ReportState.IDLE
    return report.attempt < assignment.attempt
