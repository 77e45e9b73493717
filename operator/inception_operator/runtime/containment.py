"""What becomes of an error of our own that concerns one job or one pod: it stays there.

Every loop of the process handles the objects of many users. An error at one of them is counted and
logged, once a minute for each object at most, and the loop goes on to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from inception_operator.contract.errors import LeadershipLostError, OperatorError

from .workqueue import Key

LOG_SECONDS = 60.0
REMEMBERED = 1_000

_log = logging.getLogger(__name__)


class Where(StrEnum):
    """What the operator was doing; a label of a metric."""

    DECISION = "decision"
    POD = "pod"
    NODE = "node"
    SCRAPE = "scrape"
    EVENT = "event"
    METRICS = "metrics"


class Containment:
    """Counts and logs errors that must not spread; ``count`` is told where each of them was."""

    def __init__(
        self, count: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._logged: dict[tuple[Key, Where], float] = {}

    @contextmanager
    def contain(self, key: Key, where: Where) -> Iterator[None]:
        """Keep an error of the block from whoever is around it; the loss of the Lease is none of an
        object's.
        """
        try:
            yield
        except LeadershipLostError:
            raise
        except Exception as error:
            self.note(key, where, error)

    def note(self, key: Key, where: Where, error: Exception) -> None:
        """Count an error, and log it unless one of this object has been within the last minute."""
        self._count(where)
        now = self._clock()
        if now - self._logged.get((key, where), now - LOG_SECONDS) < LOG_SECONDS:
            return
        self._logged.pop((key, where), None)
        self._logged[key, where] = now
        if len(self._logged) > REMEMBERED:
            del self._logged[next(iter(self._logged))]
        # Errors that we raise ourselves explain themselves; anything else is a bug. The place of a
        # RecursionError is a thousand lines long.
        bug = not isinstance(error, OperatorError | RecursionError)
        _log.error(
            "%s: %s: %s", where, type(error).__name__, error, extra={"key": key}, exc_info=bug
        )
