"""Asks for the state of single nodes, on demand: only where a pod of a job that cares looks lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from inception_operator.contract.errors import ApiError, NotFoundError, RejectedError
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .client import NODES, Client

FRESH_SECONDS = 2.0
FORGET_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Nodes:
    """Since when nodes have not been ready; an answer serves all jobs for two seconds."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._lost: dict[str, datetime | None] = {}
        self._asked: dict[str, float] = {}
        self._refused = False

    async def refresh(self, names: Collection[str]) -> None:
        """Ask for these nodes, unless that has just been done. A node that cannot be asked for
        counts as ready.
        """
        now = self._clock()
        for name in [name for name, asked in self._asked.items() if now - asked > FORGET_SECONDS]:
            del self._asked[name]
            self._lost.pop(name, None)
        due = [
            name for name in names if now - self._asked.get(name, -FRESH_SECONDS) >= FRESH_SECONDS
        ]
        self._asked |= dict.fromkeys(due, now)
        await asyncio.gather(*(self._ask(name) for name in due))

    def lost_since(self, name: str | None) -> datetime | None:
        """Since when the node has not been ready; None when it is, or nothing is known."""
        return None if name is None else self._lost.get(name)

    async def _ask(self, name: str) -> None:
        try:
            self._lost[name] = _not_ready_since(await self._client.get(NODES, None, name))
        except NotFoundError:
            self._lost[name] = self._lost.get(name) or datetime.now(UTC)
        except RejectedError as error:
            self._lost[name] = None
            if not self._refused:
                _log.warning(
                    "failurePolicy.nodeLostSeconds has no effect, nodes cannot be read: %s", error
                )
            self._refused = True
        except ApiError as error:
            # What was known stays; the next pass asks again.
            _log.info("node %s: %s", name, error)


def _not_ready_since(node: Json) -> datetime | None:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c for c in conditions if c.get("type") == "Ready"), None)
    if ready is None or ready.get("status") == "True":
        return None
    return parse_time(ready.get("lastTransitionTime")) or datetime.now(UTC)
