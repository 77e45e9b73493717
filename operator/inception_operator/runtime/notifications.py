"""Notifications: a launcher says that its ranks have ended, or have made their first step.

It sends one POST to the operator's ``/ring``. Who sends it proves nothing, so a notification only
makes the operator ask that pod for its report now. A lost one costs little: readiness tells of the
end up to a second later, and the next look at the metrics tells of the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .workqueue import Key

PAUSE = 0.2
"""Minimum seconds between two notifications of one pod. A pod is user code, and each one costs the
operator a request to it.
"""


class Notifications:
    """Pods that have notified the operator and have not been asked since, by job."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pending: dict[Key, dict[str, float]] = {}
        self._last: dict[Key, dict[str, float]] = {}

    def add(self, key: Key, uid: str) -> bool:
        """Note a notification of a pod; False when it comes within the pause after another one."""
        now = self._clock()
        last = self._last.setdefault(key, {})
        if uid in last and now < last[uid] + PAUSE:
            return False
        last[uid] = now
        self._pending.setdefault(key, {})[uid] = now
        return True

    def pending(self, key: Key) -> Mapping[str, float]:
        """When the pods of a job that wait have last notified, by UID."""
        return dict(self._pending.get(key, {}))

    def answered(self, key: Key, heard: Mapping[str, float]) -> None:
        """These pods have been heard since; ``heard`` is a part of what `pending` said before."""
        times = self._pending.get(key, {})
        for uid, time in heard.items():
            # Another one came while the pod was being asked: its answer may be older than that.
            if times.get(uid) == time:
                del times[uid]
        if not times:
            self._pending.pop(key, None)

    def retain(self, key: Key, uids: Collection[str]) -> None:
        """Forget all pods of a job but these."""
        _retain(self._pending, key, uids)
        _retain(self._last, key, uids)


def _retain(
    by_job: dict[Key, dict[str, float]],
    key: Key,
    uids: Collection[str],
) -> None:
    pods = by_job.get(key, {})
    for uid in set(pods) - set(uids):
        del pods[uid]
    if not pods:
        by_job.pop(key, None)
