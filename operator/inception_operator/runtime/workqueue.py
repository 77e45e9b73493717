"""A queue of keys, as client-go's work queue: de-duplicating, with delays and back-off.

Each key waits at most once and is worked on by one worker at a time, so any number of events about
a job becomes one decision, made from the latest view.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from inception_operator.contract.errors import LeadershipLostError, OperatorError

Key = tuple[str, str]
"""Namespace and name of a job."""

Handler = Callable[[Key], Awaitable["float | None"]]
"""Works on one key. Returns None when all is done, else the base of the back-off, in seconds,
after which the key comes again.
"""

ERROR_BASE = 0.1
MAX_BACKOFF = 60.0
SLACK = 64
"""Superseded dates that the heap may hold before it is rebuilt."""

_log = logging.getLogger(__name__)


def _nobody(*_seconds: float) -> None:
    return


@dataclass(frozen=True)
class Counts:
    """Who counts what happens to keys; ``waited`` and ``worked`` are told for how many seconds.

    A key that is added while it waits is not added once more. ``delayed`` are all that come later,
    ``retried`` those among them whose pass has failed.
    """

    added: Callable[[], None] = _nobody
    waited: Callable[[float], None] = _nobody
    worked: Callable[[float], None] = _nobody
    delayed: Callable[[], None] = _nobody
    retried: Callable[[], None] = _nobody


class WorkQueue:
    """De-duplicating queue with delayed keys.

    A key added while a worker holds it is handed out again when that worker is done, so no change
    is lost and no key is worked on twice at once.
    """

    def __init__(
        self,
        *,
        max_backoff: float = MAX_BACKOFF,
        jitter: Callable[[], float] = random.random,
        counts: Counts | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_backoff = max_backoff
        self._jitter = jitter
        self._counts = counts or Counts()
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._since: dict[Key, float] = {}
        # Since when each was added, and since when a worker has it.
        self._active: dict[Key, tuple[float, float]] = {}
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        """How many keys wait for a worker now."""
        return self._ready.qsize()

    @property
    def pending(self) -> int:
        """How many keys wait for a worker, or for the worker that has them to be done with them."""
        return len(self._since)

    @property
    def working(self) -> list[float]:
        """For how many seconds each key that is worked on has been."""
        # Copies, here and below: the page of metrics is made in another thread.
        active, now = list(self._active.values()), self._loop.time()
        return [max(0.0, now - started) for _, started in active]

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest key that waits or is being worked on was added."""
        active = (added for added, _ in list(self._active.values()))
        oldest = min((*self._since.values(), *active), default=None)
        return 0.0 if oldest is None else max(0.0, self._loop.time() - oldest)

    def add(self, key: Key) -> None:
        """Hand out ``key`` as soon as possible."""
        self._due.pop(key, None)
        if key in self._since:
            return
        self._counts.added()
        self._since[key] = self._loop.time()
        # While a worker has it, `done` hands it out: no two workers on one job.
        if key not in self._active:
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Hand out ``key`` after a delay; an earlier date that is set already stays."""
        if seconds <= 0:
            self.add(key)
            return
        self._counts.delayed()
        due = self._loop.time() + seconds
        if key in self._since or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._compact()
        self._arm()

    def retry(self, key: Key, base: float = ERROR_BASE) -> float:
        """Hand out ``key`` after a delay that doubles with every retry in a row.

        Returns the delay in seconds.
        """
        if base >= ERROR_BASE:
            # With a shorter one a pass only looks whether it has left anything to do.
            self._counts.retried()
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        ceiling = min(self._max_backoff, base * 2.0 ** min(failures, 30))
        delay = ceiling * (0.75 + 0.25 * self._jitter())
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """The next retry of ``key`` starts with the shortest delay again."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop dates and failures of a key whose object is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key; it belongs to the caller until ``done``."""
        key = await self._ready.get()
        added, now = self._since.pop(key), self._loop.time()
        self._active[key] = (added, now)
        self._counts.waited(now - added)
        return key

    def done(self, key: Key) -> None:
        """The caller has finished with ``key``."""
        _, started = self._active.pop(key)
        self._counts.worked(self._loop.time() - started)
        # It was added while it was worked on: that work may not have seen the change.
        if key in self._since:
            self._ready.put_nowait(key)

    def _compact(self) -> None:
        """Drop superseded dates from the heap."""
        # A job with a deadline in a week sets that date anew in every pass.
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        # The loop may fire a clock tick early. A date that an earlier one has superseded is still
        # in the heap, and no longer in _due.
        while self._heap and self._heap[0][0] <= now + 0.001:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)
        self._arm()

    def close(self) -> None:
        """Cancel the timer, so that the event loop can end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def work(queue: WorkQueue, handler: Handler) -> None:
    """One worker: runs until cancelled; an error of the handler delays its key and nothing else.

    Raises LeadershipLostError when the handler does.
    """
    while True:
        key = await queue.get()
        try:
            base = await handler(key)
        except LeadershipLostError:
            # Not the job's: nobody in this process may go on.
            raise
        except Exception as error:
            delay = queue.retry(key)
            _log.warning(
                "%s: %s; again in %.1f s",
                type(error).__name__,
                error,
                delay,
                extra={"key": key},
                exc_info=_traceback(error),
            )
        else:
            if base is None:
                queue.succeeded(key)
            else:
                queue.retry(key, base)
        finally:
            queue.done(key)


def _traceback(error: Exception) -> bool:
    """Errors that we raise ourselves explain themselves; anything else is a bug."""
    return not isinstance(error, OperatorError)
