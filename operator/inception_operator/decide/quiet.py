"""Statuses that may wait: those that say nothing but that pods are waited for.

A status is written before anything acts on it. These are acted on by nobody: the first one of a job
holds what follows from its spec and its pods anyway (attempt 1, no restarts, a start as old as the
first pod), and a later one another count of pods that are ready. Most attempts begin sooner than
such a status is due, and then it is never written (decision 31).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType, Reason
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json, Plan, PodView

from . import goodput
from .own_status import own_part
from .plans import requeue_in

QUIET: Final = timedelta(seconds=5)
"""For how long nothing need be said of pods that start as they should."""
LONGEST: Final = timedelta(seconds=60)
"""A job that is older gets its first status in any case."""
_COUNTS: Final = frozenset(("ready", "spareReady", "summary"))
_COUNT: Final = re.compile(r"[0-9]+ of [0-9]+ pods ready")


def put_off(resource: Json, plan: Plan, pods: Iterable[PodView], now: datetime) -> Plan:
    """The plan without its status while that may wait; ``pods`` are those of the job."""
    if plan.status is None or plan.events or plan.delete or plan.assign:
        return plan
    since = _quiet_since(resource, plan.status, plan.create, pods, now)
    left = QUIET - (now - since) if since is not None else timedelta()
    # Clocks differ: a time that has yet to come says nothing.
    if not timedelta() < left <= QUIET:
        return plan
    return replace(plan, status=None) | requeue_in(left.total_seconds())


def first_made(pods: Iterable[PodView]) -> datetime | None:
    """When the first of these pods was made."""
    return min((pod.created for pod in pods if pod.created is not None), default=None)


def _quiet_since(
    resource: Json, new: Json, create: Sequence[Json], pods: Iterable[PodView], now: datetime
) -> datetime | None:
    """Since when the same has been told, or nothing; None when this status has to be written."""
    ready = conditions.find(new["conditions"], ConditionType.PODS_READY) or {}
    if (ready.get("status"), ready.get("reason")) != (conditions.FALSE, Reason.WAITING_FOR_PODS):
        return None
    old = own_part(resource)
    if not old["conditions"]:
        if not _COUNT.fullmatch(ready["message"]):
            # Something holds a pod up.
            return None
        made = parse_time(resource["metadata"].get("creationTimestamp"))
        if made is not None and now - made > LONGEST:
            # Pods that vanish again and again are always new.
            return None
        return first_made(pods) or (now if create else None)
    if _without_counts(old) != _without_counts(new):
        return None
    return parse_time((old.get(goodput.KEY) or {}).get("lastUpdatedTime"))


def _without_counts(status: Json) -> Json:
    rest = {key: value for key, value in status.items() if key not in (goodput.KEY, "nodes")}
    nodes = status.get("nodes") or {}
    rest["nodes"] = {key: value for key, value in nodes.items() if key not in _COUNTS}
    rest["conditions"] = [
        {**each, "message": ""} if _says_counts(each) else each for each in status["conditions"]
    ]
    return rest


def _says_counts(condition: Json) -> bool:
    return _COUNT.match(str(condition.get("message"))) is not None
