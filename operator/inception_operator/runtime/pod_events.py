"""What events say of single pods, read on demand: only of those that do not start.

A watch would bring every event of the cluster, and a list is dear to the API server, which has to
read all events of a namespace for it. So a pod is asked after less and less often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from inception_operator.contract.errors import ApiError, RejectedError
from inception_operator.contract.types import PodView
from inception_operator.pod.events import trouble

from .client import EVENTS, Client
from .workqueue import Key

# Seconds between two questions after the same pod.
FIRST_PAUSE: Final = 10.0
MAX_PAUSE: Final = 300.0
MOST_PODS: Final = 3
"""Of a job; the pods of one job mostly have the same trouble."""
MOST_EVENTS: Final = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answer:
    """What was found about a pod; it is not asked after before ``again``, by the clock."""

    text: str | None
    again: float
    pause: float


class PodEvents:
    """The trouble of pods that do not start, by job and UID."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._answers: dict[Key, dict[str, _Answer]] = {}
        self._refused = False

    async def refresh(self, key: Key, pods: Collection[PodView]) -> None:
        """Ask after these pods of a job, unless that was done lately; the others are forgotten."""
        known = self._answers.get(key, {})
        kept = {pod.uid: known[pod.uid] for pod in pods if pod.uid in known}
        self._answers[key] = kept
        if not kept:
            del self._answers[key]
        due = [pod for pod in list(pods)[:MOST_PODS] if self._is_due(kept.get(pod.uid))]
        await asyncio.gather(*(self._ask(key, pod, kept.get(pod.uid)) for pod in due))

    def trouble(self, key: Key, uid: str) -> str | None:
        """What keeps the pod from starting, in the words of its events; None if they do not say."""
        answer = self._answers.get(key, {}).get(uid)
        return None if answer is None else answer.text

    def forget(self, key: Key) -> None:
        """Drop what was kept about a job that is gone."""
        self._answers.pop(key, None)

    def _is_due(self, answer: _Answer | None) -> bool:
        return answer is None or self._clock() >= answer.again

    async def _ask(self, key: Key, pod: PodView, last: _Answer | None) -> None:
        text = None if last is None else last.text
        # By uid: a pod of the same name before this one may have had trouble of its own.
        query = {"fieldSelector": f"involvedObject.uid={pod.uid}"}
        try:
            page = await self._client.list_page(EVENTS, query, namespace=key[0], limit=MOST_EVENTS)
            text = trouble(page.get("items") or ())
        except RejectedError as error:
            # Once: it stays so until somebody changes the role.
            if not self._refused:
                _log.warning("events of pods that do not start cannot be read: %s", error)
            self._refused = True
        except ApiError as error:
            # The last answer stays.
            _log.info("events of pod %s: %s", pod.name, error, extra={"key": key})
        pause = FIRST_PAUSE if last is None else min(MAX_PAUSE, last.pause * 2)
        answer = _Answer(text, self._clock() + pause, pause)
        self._answers.setdefault(key, {})[pod.uid] = answer
