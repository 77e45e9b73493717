"""Goodput: where the time of a job goes, as seconds by cause, from its admission to its end.

``status.goodput`` is a sum that is carried on with every status that is written anyway: what has
passed since the last one goes to the cause that was written with it, and the cause of now takes its
place. Everything the sum is made from is in the status, so it survives a restart of the operator,
and the seconds always add up to the time between the first and the last of these writes.
docs/goodput.md defines the causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.names import LABEL_QUEUE, ConditionType, Reason
from inception_operator.contract.times import format_time, parse_time, whole_seconds
from inception_operator.contract.types import Json, Progress

from .failure import Failure

KEY: Final = "goodput"

PRODUCTIVE: Final = "productive"
REPEATED: Final = "repeatedSteps"
DATA: Final = "data"
CHECKPOINT: Final = "checkpoint"
QUEUE: Final = "queue"
PODS: Final = "pods"
FIRST_STEP: Final = "firstStep"
RECOVERY: Final = "recovery"
BACK_OFF: Final = "backOff"
SUSPENDED: Final = "suspended"
CAUSES: Final = (
    PRODUCTIVE,
    REPEATED,
    DATA,
    CHECKPOINT,
    QUEUE,
    PODS,
    FIRST_STEP,
    RECOVERY,
    BACK_OFF,
    SUSPENDED,
)
# What a job does between two steps of an attempt; all other causes are ways to wait for the first.
STEPPING: Final = frozenset((PRODUCTIVE, REPEATED))
# What the trainer of the present attempt has said of itself, by the cause that its seconds go to.
_TOLD: Final = {DATA: "dataSeconds", CHECKPOINT: "checkpointSeconds"}
# Reasons of Running=False after which steps are made up for: an attempt has ended, and no user or
# queue has asked for it.
_INTERRUPTED: Final = frozenset(
    (Reason.ATTEMPT_ENDED, Reason.RESIZED, Reason.MOVED, Reason.STATUS_RESTORED)
)
_NO_PODS: Final = frozenset((Reason.POD_CREATION_REJECTED, Reason.POD_POLICY_VIOLATION))
_INT64: Final = 2**63 - 1


@dataclass(frozen=True)
class Look:
    """What one pass knows besides the status.

    ``queued`` says that a queue decides when the job is suspended, ``tells_steps`` that its
    attempts are known to tell their steps. ``figures`` are those of the attempt that runs;
    ``failure`` is what has ended it in this pass.
    """

    now: datetime
    queued: bool = False
    tells_steps: bool = True
    figures: Progress | None = None
    failure: Failure | None = None


def is_queued(resource: Json) -> bool:
    """Whether a queue admits the job: it is suspended until its turn comes."""
    return LABEL_QUEUE in (resource["metadata"].get("labels") or {})


def carried_on(old: Json, new: Json, look: Look) -> Json:
    """The status ``new``, which is about to be written over ``old``, with the time that has passed.

    A job that has not been accepted yet has no goodput, and neither has one that had ended before
    any was counted.
    """
    before = old.get(KEY)
    if before is None:
        over = conditions.terminal(new["conditions"])
        if over or not conditions.is_true(new["conditions"], ConditionType.ACCEPTED):
            return new
        # A first status may be written after the first pod.
        begin = new.get("startTime") or format_time(look.now)
        before = {"cause": PODS, "causeStartTime": begin, "lastUpdatedTime": begin}
    elif "cause" not in before:
        # It has ended: whatever is written now, nothing grows any more.
        return new
    return new | {KEY: _advanced(before, old, new, look)}


def live_seconds(goodput: Json, now: datetime) -> dict[str, int]:
    """Seconds by cause as of now: a wait that goes on is counted up to this moment.

    Between steps only what is written counts. It may yet turn out to be no progress, and a counter
    that has been shown must not fall.
    """
    seconds = _seconds(goodput)
    cause = goodput.get("cause")
    if cause in seconds and cause not in STEPPING:
        seconds[cause] += _passed(goodput, now)
    return seconds


def ratio(seconds: Mapping[str, int]) -> float:
    """The productive share of all time in which the job was not suspended on request."""
    wanted = sum(seconds.values()) - seconds[SUSPENDED]
    return seconds[PRODUCTIVE] / wanted if wanted else 0.0


def _advanced(before: Json, old: Json, new: Json, look: Look) -> Json:
    # Another version of the operator may know other causes.
    cause = before["cause"] if before["cause"] in CAUSES else PODS
    furthest = _whole(before.get("furthestStep"))
    seconds = _seconds(before)
    told = _told(before, look)
    passed = _passed(before, look.now)
    lost = _lost(passed, cause, old, new, look)
    seconds[RECOVERY] += lost
    if cause in STEPPING:
        training = passed - lost
        for waited, (counted, heard) in told.items():
            # What does not fit waits for the next write: the counters are a little ahead or behind.
            share = max(0, min(training, heard - counted))
            seconds[waited] += share
            training -= share
            told[waited] = (counted + share, heard)
        repeated = _repeated(training, cause, _step(old), _step(new), furthest)
        seconds[REPEATED] += repeated
        seconds[PRODUCTIVE] += training - repeated
    else:
        # Time before the first step is no wait for data or a checkpoint of the training.
        told = {waited: (heard, heard) for waited, (_, heard) in told.items()}
        seconds[cause] += passed - lost
    following = _cause(new, cause, look, furthest)
    now = format_time(look.now)
    since = before.get("causeStartTime") if following == cause else now
    goodput: Json = {
        "ratio": f"{ratio(seconds):.4f}",
        "seconds": seconds,
        "cause": following,
        "causeStartTime": since or now,
        "lastUpdatedTime": now,
        "furthestStep": _furthest(furthest, new, look),
        **{_TOLD[waited]: counted for waited, (counted, _) in told.items()},
    }
    if not following:
        for key in ("cause", "causeStartTime", *_TOLD.values()):
            del goodput[key]
    return goodput


def _cause(status: Json, before: str, look: Look, furthest: int) -> str:
    """What the time goes to from now on; empty once the job is over. ``before`` is what it went to.

    It follows from the conditions, which are written with every change, and from the steps.
    """
    present = status["conditions"]
    if conditions.terminal(present):
        return ""
    if conditions.is_true(present, ConditionType.SUSPENDED):
        return QUEUE if look.queued else SUSPENDED
    if conditions.is_true(present, ConditionType.RUNNING):
        return _cause_while_running(before, look, furthest)
    reason = conditions.reason(present, ConditionType.PODS_READY)
    if reason == Reason.BACK_OFF:
        return BACK_OFF
    if conditions.reason(present, ConditionType.RUNNING) in _INTERRUPTED:
        return RECOVERY
    if conditions.is_true(present, ConditionType.PODS_READY):
        return FIRST_STEP
    if reason in _NO_PODS or conditions.is_false(present, ConditionType.ACCEPTED):
        return QUEUE
    return PODS


def _cause_while_running(before: str, look: Look, furthest: int) -> str:
    # Figures that are there before the first step say 0.
    step = look.figures.step if look.figures is not None else None
    if step:
        return REPEATED if step < furthest else PRODUCTIVE
    if before in STEPPING:
        return before
    if not look.tells_steps and step is None:
        return PRODUCTIVE
    return RECOVERY if before == RECOVERY else FIRST_STEP


def _lost(passed: int, cause: str, old: Json, new: Json, look: Look) -> int:
    """How many of the seconds that have passed an attempt spent after its failure.

    Of a job that tells its steps that is all the time in which it made none: it hung, or what it
    did is done again and counts then.
    """
    failure = look.failure
    if failure is None or cause not in STEPPING:
        return 0
    reached = max(_step(new), failure.step or 0)
    if reached and reached <= _step(old):
        return passed
    since_failure = (look.now - failure.time).total_seconds()
    return min(passed, max(0, int(since_failure)))


def _repeated(passed: int, cause: str, begin: int, end: int, furthest: int) -> int:
    """How many of the seconds went into steps that had been done before: they are shared out by the
    number of steps.
    """
    if end <= begin:
        return passed if cause == REPEATED else 0
    again = max(0, min(end, furthest) - begin)
    # In whole numbers: steps may have more digits than a float.
    return (2 * passed * again + (end - begin)) // (2 * (end - begin))


def _told(before: Json, look: Look) -> dict[str, tuple[int, int]]:
    """By cause: seconds of the trainer's own counters that are counted, and that it tells now."""
    figures = look.figures
    tells = {
        DATA: figures.data_seconds if figures is not None else None,
        CHECKPOINT: figures.checkpoint_seconds if figures is not None else None,
    }
    told = {}
    for cause, value in tells.items():
        counted = _whole(before.get(_TOLD[cause]))
        heard = counted if value is None else int(max(0.0, min(value, _INT64)))
        # Every attempt's counters begin at 0.
        told[cause] = (min(counted, heard), heard)
    return told


def _furthest(furthest: int, new: Json, look: Look) -> int:
    failed = look.failure.step if look.failure is not None else None
    return min(_INT64, max(furthest, _step(new), failed or 0))


def _step(status: Json) -> int:
    return _whole((status.get("trainerStatus") or {}).get("step"))


def _seconds(goodput: Json) -> dict[str, int]:
    known = goodput.get("seconds") or {}
    return {cause: _whole(known.get(cause)) for cause in CAUSES}


def _passed(goodput: Json, now: datetime) -> int:
    """Whole seconds since the last write; none where the clock was set back meanwhile."""
    since = parse_time(goodput.get("lastUpdatedTime"))
    if since is None:
        return 0
    return max(0, int((whole_seconds(now) - since).total_seconds()))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
