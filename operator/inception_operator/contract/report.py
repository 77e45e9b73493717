"""Reads what a launcher says about its ranks: JSON from ``/status`` or the termination message.

Both have the same format (docs/architecture/wire.md). Neither is trusted: a pod is user code, and
any program may write a termination message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from . import version
from .assignment import MAX_ATTEMPT
from .decoding import MalformedError, decimal_number, decode, whole_number
from .names import ReportState
from .times import parse_time
from .types import RankTimes, Report

MAX_STEP: Final = 2**63 - 1
MAX_RANK: Final = 2**31 - 1
# Windows and some runtimes have codes of 32 bits; Linux has 8.
MAX_CODE: Final = 2**31 - 1
MAX_REASON: Final = 128
MAX_MESSAGE: Final = 8 * 1024
# A program of the user's names its figures itself; the operator knows ten of them.
MAX_METRICS: Final = 100
# Devices of one node, with room.
MAX_RANKS: Final = 128
STATES = frozenset(
    (
        ReportState.STARTING,
        ReportState.IDLE,
        ReportState.RUNNING,
        ReportState.FAILED,
        ReportState.STOPPED,
        ReportState.SUCCEEDED,
    )
)


def from_json(source: str | bytes | Mapping[str, Any] | None) -> Report | None:
    """The report, or None when the text is none. A field of a wrong type counts as absent."""
    data = source if isinstance(source, Mapping) else _load(source)
    if not isinstance(data, Mapping):
        return None
    state = data.get("state")
    if not isinstance(state, str) or state not in STATES:
        return None
    attempt = whole_number(data.get("attempt"), 0, MAX_ATTEMPT)
    if attempt is None:
        return None
    return Report(
        attempt=attempt,
        state=state,
        exit_code=whole_number(data.get("exitCode"), -MAX_CODE, MAX_CODE),
        rank=whole_number(data.get("rank"), 0, MAX_RANK),
        reason=_text(data.get("reason"), MAX_REASON),
        message=_text(data.get("message"), MAX_MESSAGE),
        time=parse_time(data.get("time")),
        step=whole_number(data.get("step"), 0, MAX_STEP),
        metrics=_numbers(data.get("metrics")),
        contract=whole_number(data.get("contract"), 1, version.MOST) or version.UNSAID,
        leaving=data.get("leaving") is True,
        ranks=_ranks(data.get("ranks")),
    )


def _load(source: str | bytes | None) -> object:
    # A termination message is mostly the last lines of a log: the first character rules it out.
    if not source or source.lstrip()[:1] not in ("{", b"{"):
        return None
    try:
        data: object = decode(source)
    except MalformedError:
        return None
    return data


def _text(value: object, most: int) -> str | None:
    return value[:most] if isinstance(value, str) and value else None


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    first = islice(value.items(), MAX_METRICS)
    numbers = {str(key): decimal_number(number) for key, number in first}
    return {key: number for key, number in numbers.items() if number is not None}


def _ranks(value: object) -> tuple[RankTimes, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANKS:
        return ()
    found = (_rank(each) for each in value if isinstance(each, Mapping))
    return tuple(times for times in found if times is not None)


def _rank(data: Mapping[str, Any]) -> RankTimes | None:
    """What one rank tells, or None when a number is missing or none."""
    rank = whole_number(data.get("rank"), 0, MAX_RANK)
    steps = whole_number(data.get("steps"), 0, MAX_STEP)
    keys = ("stepSeconds", "ownSeconds", "waitSeconds")
    seconds = [decimal_number(data.get(key)) for key in keys]
    if rank is None or steps is None:
        return None
    known = [value for value in seconds if value is not None and 0 <= value < math.inf]
    return RankTimes(rank, steps, *known) if len(known) == len(keys) else None
