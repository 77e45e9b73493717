"""What the CRD allows in ``status``, and a status cut down to it.

The API server refuses a status as a whole for one value beyond its limit, for ever: a reason of
2,000 characters in a launcher's report would keep its job from being suspended. So whatever is
written is cut here, last. tests/unit/test_limits.py holds the table equal to the CRD.
"""

from __future__ import annotations

from typing import Any, Final

from .types import Json

_INT32: Final = (0, 2**31 - 1)
_INT64: Final = (0, 2**63 - 1)
_SIGNED: Final = (-(2**31), 2**31 - 1)

# By path: most characters of a text, most entries of a list, or the range of a number.
LIMITS: Final[dict[str, int | tuple[int, int]]] = {
    "observedGeneration": _INT64,
    "conditions": 16,
    "conditions.type": 316,
    "conditions.observedGeneration": _INT64,
    "conditions.reason": 1024,
    "conditions.message": 32768,
    "state": 32,
    "attempt": _INT32,
    "restarts": _INT32,
    "restartsCountTowardsMax": _INT32,
    "progressSeconds": _INT32,
    "nonFiniteStep": _INT64,
    "failuresInARow": _INT32,
    "furthest.attempt": _INT32,
    "furthest.step": _INT64,
    "avoidedNodes": 16,
    "avoidedNodes.name": 253,
    "avoidedNodes.reason": 128,
    "nodes.desired": _INT32,
    "nodes.ready": _INT32,
    "nodes.summary": 32,
    "nodes.members": 8192,
    "nodes.desiredAtStart": _INT32,
    "nodes.spareReady": _INT32,
    "selector": 256,
    "accelerator": 384,
    "model": 64,
    "checkpointPath": 1280,
    "trainerStatus.progressPercentage": (0, 100),
    "trainerStatus.estimatedRemainingSeconds": _INT64,
    "trainerStatus.epoch": _INT32,
    "trainerStatus.step": _INT64,
    "trainerStatus.samplesPerSecond": 32,
    "trainerStatus.accuracyTop1": 32,
    "trainerStatus.accuracyTop5": 32,
    "trainerStatus.loss": 32,
    "trainerStatus.samplesSeen": _INT64,
    "trainerStatus.repeatedSteps": _INT64,
    "goodput.ratio": 32,
    "goodput.seconds.productive": _INT64,
    "goodput.seconds.repeatedSteps": _INT64,
    "goodput.seconds.data": _INT64,
    "goodput.seconds.checkpoint": _INT64,
    "goodput.seconds.queue": _INT64,
    "goodput.seconds.pods": _INT64,
    "goodput.seconds.firstStep": _INT64,
    "goodput.seconds.recovery": _INT64,
    "goodput.seconds.backOff": _INT64,
    "goodput.seconds.suspended": _INT64,
    "goodput.cause": 32,
    "goodput.furthestStep": _INT64,
    "goodput.dataSeconds": _INT64,
    "goodput.checkpointSeconds": _INT64,
    "straggler.rank": _INT32,
    "straggler.pod": 253,
    "straggler.node": 253,
    "straggler.ratio": 32,
    "replacedStragglers": 16,
    "replacedStragglers.rank": _INT32,
    "replacedStragglers.pod": 253,
    "replacedStragglers.node": 253,
    "rootCause.attempt": _INT32,
    "rootCause.pod": 253,
    "rootCause.node": 253,
    "rootCause.rank": _INT32,
    "rootCause.step": _INT64,
    "rootCause.exitCode": _SIGNED,
    "rootCause.reason": 128,
    "rootCause.message": 4096,
}


def clip(status: Json) -> Json:
    """The status within the limits: texts and lists cut, numbers moved to the nearest one."""
    return {key: _clip(key, value) for key, value in status.items()}


def cut_text(text: str, most: int) -> str:
    """At most so many characters of a text, all of which can be written."""
    # One that cannot be encoded would be refused as well: half of a pair of UTF-16, for one.
    return text[:most].encode("utf-8", "replace").decode("utf-8")


def _clip(path: str, value: Any) -> Any:
    limit = LIMITS.get(path)
    if isinstance(value, dict):
        return {key: _clip(f"{path}.{key}", each) for key, each in value.items()}
    if isinstance(value, list):
        most = limit if isinstance(limit, int) else None
        return [_clip(path, each) for each in value[:most]]
    if isinstance(value, str) and isinstance(limit, int):
        return cut_text(value, limit)
    if isinstance(value, int) and isinstance(limit, tuple):
        return max(limit[0], min(limit[1], value))
    return value
