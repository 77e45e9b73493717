"""Readiness of single nodes, read on demand: only where a pod looks lost and its job cares.

A watch would bring every change of every node in the cluster, for the few that ever matter.
"""

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
"""How long an answer serves all jobs: a node that fails takes the pods of many with it."""
FORGET_SECONDS = 600.0

_log = logging.getLogger(__name__)


class Nodes:
    """Since when nodes have not been ready."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._lost: dict[str, datetime | None] = {}
        self._asked: dict[str, float] = {}
        self._refused = False

    async def refresh(self, names: Collection[str]) -> None:
        """Ask for these nodes, unless that has just been done.

        A node that the operator may not read counts as ready.
        """
        now = self._clock()
        for name, asked in list(self._asked.items()):
            if now - asked > FORGET_SECONDS:
                del self._asked[name]
                self._lost.pop(name, None)
        never = now - FRESH_SECONDS
        due = [name for name in names if now - self._asked.get(name, never) >= FRESH_SECONDS]
        # Before the requests: other workers that come meanwhile do not ask the same again.
        for name in due:
            self._asked[name] = now
        await asyncio.gather(*(self._ask(name) for name in due))

    def lost_since(self, name: str | None) -> datetime | None:
        """Since when the node has not been ready; None when it is, or nothing is known."""
        return None if name is None else self._lost.get(name)

    async def _ask(self, name: str) -> None:
        try:
            self._lost[name] = _not_ready_since(await self._client.get(NODES, None, name))
        except NotFoundError:
            # A node that was deleted is lost; its pods are still bound to its name.
            self._lost[name] = self._lost.get(name) or datetime.now(UTC)
        except RejectedError as error:
            self._lost[name] = None
            # Once: it stays so until somebody changes the role.
            if not self._refused:
                _log.warning(
                    "failurePolicy.nodeLostSeconds has no effect, nodes cannot be read: %s", error
                )
            self._refused = True
        except ApiError as error:
            # The last answer stays; the next pass asks again.
            _log.info("node %s: %s", name, error)


def _not_ready_since(node: Json) -> datetime | None:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c for c in conditions if c.get("type") == "Ready"), None)
    # Unknown is as bad as False: the node controller sets it when heartbeats stay away.
    if ready is None or ready.get("status") == "True":
        return None
    return parse_time(ready.get("lastTransitionTime")) or datetime.now(UTC)
