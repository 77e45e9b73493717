"""Lists objects of a kind and follows their watch for ever: the loop of what client-go calls a
reflector. What is kept of the objects is up to the subclass.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import aclosing

from inception_operator.contract.errors import ApiError, GoneError
from inception_operator.contract.types import Json

from .client import Client, Kind

IDLE_SECONDS = 90.0
"""The API server sends a bookmark about once a minute; longer silence means a dead connection."""
WATCH_SECONDS = 300
MAX_BACKOFF = 30.0
RECONNECT_PAUSE = 0.05

_log = logging.getLogger(__name__)


class ListWatch(ABC):
    """The objects of a kind that fit ``query``, of one namespace or of the whole cluster."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        query: Mapping[str, str],
        *,
        namespace: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._kind = kind
        self._query = query
        self._namespace = namespace
        self._clock = clock
        self._last_sign = clock()
        self._version: str | None = None
        self._failures = 0

    @property
    def age(self) -> float:
        """Seconds since the watch showed a sign of life."""
        return self._clock() - self._last_sign

    @abstractmethod
    async def _relist(self) -> str:
        """Replace the view by a list and report every difference.

        Returns the resourceVersion to watch from.
        """

    @abstractmethod
    def _take(self, event_type: str, raw: Json) -> None:
        """Take over one event of the watch; errors at one object must stay there."""

    async def _list_and_watch(self) -> None:
        while True:
            try:
                await self._once()
            except GoneError as error:
                # etcd keeps old versions for five minutes: after a longer gap only a list helps.
                _log.info("the watch of %s starts anew: %s", self._kind.plural, error)
                self._version = None
            except ApiError as error:
                pause = max(self._pause(), error.retry_after or 0.0)
                _log.warning(
                    "the watch of %s is broken, again in %.1f s: %s",
                    self._kind.plural,
                    pause,
                    error,
                )
                await asyncio.sleep(pause)

    async def _once(self) -> None:
        """One watch, after a list where one is needed."""
        if self._version is None:
            self._version = await self._relist()
            self._last_sign = self._clock()
        await self._follow(self._version)
        # A server that ends every watch at once must not be asked in a tight loop.
        await asyncio.sleep(RECONNECT_PAUSE)

    def _pause(self) -> float:
        pause = min(MAX_BACKOFF, 0.2 * 2.0 ** min(self._failures, 20))
        self._failures += 1
        # Jitter: all operators lose the same API server at the same moment.
        return pause * (0.75 + 0.25 * random.random())  # noqa: S311

    async def _follow(self, version: str) -> None:
        """Apply watch events until the server ends the stream."""
        # Spread, so that not all watches of a cluster come back in the same second.
        seconds = int(WATCH_SECONDS * (0.9 + 0.2 * random.random()))  # noqa: S311
        query = {**self._query, "resourceVersion": version, "timeoutSeconds": str(seconds)}
        events = self._client.watch(self._kind, query, IDLE_SECONDS, self._namespace)
        async with aclosing(events):
            async for event in events:
                raw = event["object"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], raw)
                # Bookmarks too: they move the version on while nothing else happens.
                self._version = raw["metadata"]["resourceVersion"]
                self._last_sign = self._clock()
                self._failures = 0
        self._last_sign = self._clock()
