"""The bell: a launcher whose ranks have ended, or made their first step, says so at once.

Who rings proves nothing, so ringing only makes the operator ask that pod now. Where no ring
arrives, readiness tells of the end up to a second later, and the next look at the figures of the
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from .workqueue import Key

PAUSE = 0.2
"""Seconds in which further rings of a pod are passed over: nobody shall keep the operator busy by
ringing.
"""


class Bell:
    """Which pods have rung and have not been asked since."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rung: dict[Key, dict[str, int]] = {}
        self._heard: dict[Key, dict[str, float]] = {}

    def ring(self, key: Key, uid: str) -> bool:
        """Note a ring; False when this pod has rung a moment ago."""
        heard, now = self._heard.setdefault(key, {}), self._clock()
        if now < heard.get(uid, float("-inf")) + PAUSE:
            return False
        heard[uid] = now
        rung = self._rung.setdefault(key, {})
        rung[uid] = rung.get(uid, 0) + 1
        return True

    def rung(self, key: Key) -> Mapping[str, int]:
        """How often each pod of a training has rung since it was last asked."""
        return dict(self._rung.get(key, {}))

    def answered(self, key: Key, asked: Mapping[str, int]) -> None:
        """These pods have been asked after these rings; one that has rung again meanwhile must be
        asked again.
        """
        rung = self._rung.get(key, {})
        for uid, times in asked.items():
            if rung.get(uid) == times:
                del rung[uid]
        if not rung:
            self._rung.pop(key, None)

    def retain(self, key: Key, uids: Collection[str]) -> None:
        """Drop what is known about all other pods of this training."""
        for known in (self._rung, self._heard):
            pods: dict[str, int] | dict[str, float] = known.get(key, {})
            for uid in [uid for uid in pods if uid not in uids]:
                del pods[uid]
            if not pods:
                known.pop(key, None)
