"""Watches nodes for signs that they are about to go, and wakes the jobs with pods there.

Nothing is kept of nodes that stay, so a cluster of thousands costs no memory; and nothing is done
about changes that do not matter, such as the heartbeat of every kubelet. Without the right to list
and watch nodes there are no planned moves, and everything else works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import aclosing

from typing_extensions import override

from inception_operator.contract.errors import RejectedError
from inception_operator.contract.types import Json
from inception_operator.decide.leave_signs import LeaveSigns

from .client import NODES, Client
from .containment import Containment, Where
from .list_watch import ListWatch
from .objects import name_of

PAGE = 50
"""Nodes of one page of a list. One has 10 to 50 KiB, most of it names of images."""
RECHECK_SECONDS = 600.0
"""Pause between two questions for the right, while there is none."""
FLUSH_SECONDS = 0.1
"""Changes within this time are told together: whose pods are on these nodes is a search."""
MOST_DELETED = 1_000
MOST_NAMED = 32
"""Nodes that new pods are told to stay away from; each is a term of their affinity."""
DELETED = "deleted"

_log = logging.getLogger(__name__)


class LeavingNodes:
    """The nodes that are about to go, and why."""

    def __init__(self) -> None:
        self._why: dict[str, str] = {}
        self._deleted: dict[str, None] = {}
        self.known = False
        """Whether nodes have been looked at once, or nobody is going to."""

    def __len__(self) -> int:
        return len(self._why)

    def why(self, name: str | None) -> str | None:
        """Why a node is about to go; None while it stays."""
        if name is None:
            return None
        return self._why.get(name) or (DELETED if name in self._deleted else None)

    def stays(self, name: str) -> bool:
        """Whether a node is not about to go."""
        return self.why(name) is None

    def named(self, first: Collection[str]) -> tuple[str, ...]:
        """The names of these nodes and of others that go, `MOST_NAMED` at most."""
        names = dict.fromkeys(sorted(first))
        for name in self._why:
            if len(names) >= MOST_NAMED:
                break
            names[name] = None
        return tuple(names)[:MOST_NAMED]

    def note(self, name: str, why: str | None) -> bool:
        """Take over what has been seen of a node; True when it is news."""
        known = self.why(name)
        self._deleted.pop(name, None)
        if why is None:
            self._why.pop(name, None)
        else:
            self._why[name] = why
        return known != why

    def delete(self, name: str) -> bool:
        """A node was deleted: its pods, if there are any left, follow within a minute."""
        known = self.why(name)
        self._why.pop(name, None)
        self._deleted[name] = None
        if len(self._deleted) > MOST_DELETED:
            del self._deleted[next(iter(self._deleted))]
        return known != DELETED

    def retain(self, present: Collection[str]) -> set[str]:
        """Delete what is not there any more; returns its names."""
        missing = {name for name in self._why if name not in present}
        for name in missing:
            self.delete(name)
        return missing

    def clear(self) -> set[str]:
        """Forget everything; returns the names of the nodes of which something was known."""
        names = {*self._why, *self._deleted}
        self._why.clear()
        self._deleted.clear()
        return names


class NodeWatch(ListWatch):
    """Keeps `LeavingNodes` up to date; ``notify`` is told the names of nodes that changed."""

    def __init__(
        self,
        client: Client,
        notify: Callable[[Collection[str]], None],
        containment: Containment,
        signs: LeaveSigns,
        leaving: LeavingNodes,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(client, NODES, {}, clock=clock)
        self._notify = notify
        self._containment = containment
        self._signs = signs
        self._leaving = leaving
        self._changed: set[str] = set()
        self._allowed = False
        self._told = False

    @property
    def working(self) -> bool:
        """Whether nodes are watched now, so that jobs may move."""
        return self._allowed and self._version is not None

    async def run(self) -> None:
        """Watch until cancelled; the lack of the right is no error."""
        await self._list_and_watch()

    @override
    async def _once(self) -> None:
        await self._wait_for_right()
        try:
            await super()._once()
        except RejectedError:
            # Somebody took the right away; what was seen before may not be true any more.
            self._allowed = False
            self._version = None
            self._note_changes(self._leaving.clear())
            raise

    async def _wait_for_right(self) -> None:
        while not self._allowed:
            missing = [
                verb for verb in ("list", "watch") if not await self._client.allowed(verb, NODES)
            ]
            if not missing:
                self._allowed = True
                self._told = False
                return
            # Once: it stays so until somebody changes the role.
            if not self._told:
                _log.warning(
                    "planned moves are off: the operator may not %s nodes, so jobs stay on nodes "
                    "that are about to go until they are evicted",
                    " and ".join(missing),
                )
            self._told = self._leaving.known = True
            await asyncio.sleep(RECHECK_SECONDS)

    @override
    async def _relist(self) -> str:
        present: set[str] = set()
        changed: set[str] = set()
        version = ""
        async with aclosing(self._client.list_pages(NODES, {}, limit=PAGE)) as pages:
            async for page in pages:
                for raw in page["items"] or ():
                    name = name_of(raw)
                    present.add(name)
                    if self._look(name, raw):
                        changed.add(name)
                version = str(page["metadata"]["resourceVersion"])
        self._leaving.known = True
        self._note_changes(changed | self._leaving.retain(present))
        return version

    @override
    def _take(self, event_type: str, raw: Json) -> None:
        name = name_of(raw)
        is_news = self._leaving.delete(name) if event_type == "DELETED" else self._look(name, raw)
        if is_news:
            self._note_changes({name})

    def _look(self, name: str, raw: Json) -> bool:
        with self._containment.contain(("", name), Where.NODE):
            if self._leaving.note(name, self._signs.reason(raw)):
                return True
        return False

    def _note_changes(self, names: Collection[str]) -> None:
        if names and not self._changed:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)
        self._changed |= set(names)

    def _flush(self) -> None:
        changed, self._changed = self._changed, set()
        self._notify(changed)
