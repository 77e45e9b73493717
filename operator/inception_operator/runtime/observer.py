"""Gathers what a decision is made from: pods, their launchers' answers, node states, figures.

Caches come first. Only pods that have something to tell are asked, only nodes that may be lost, and
events only about pods that do not start.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from inception_operator.contract.types import Json, Observation, PodView, Report
from inception_operator.decide.questions import wants_events, wants_node, wants_report
from inception_operator.decide.slots import word_of_end
from inception_operator.pod.view import view

from .node_watch import LeavingNodes
from .nodes import Nodes
from .notifications import Notifications
from .objects import name_of, uid_of
from .pod_cache import PodCache
from .pod_events import PodEvents
from .probe import Probe
from .rank_watch import RankWatch
from .scraper import Scraper
from .workqueue import Key

MOST_KEPT: Final = 1024
"""Views of so many pods are kept. A pass looks at each pod of its job up to three times."""
_Known = tuple[Report | None, bool | None, datetime | None, bool]
"""What is known of a pod beside what the API server says."""


class Observer:
    """Makes an `Observation` of a job."""

    def __init__(
        self,
        pods: PodCache,
        probe: Probe,
        scraper: Scraper,
        ranks: RankWatch,
        nodes: Nodes,
        events: PodEvents,
        leaving: LeavingNodes,
    ) -> None:
        self._pods = pods
        self._probe = probe
        self._scraper = scraper
        self._ranks = ranks
        self._nodes = nodes
        self._events = events
        self._leaving = leaving
        self._notifications = Notifications(time.monotonic)
        # By job and pod: what it says of its end, and when that was first seen.
        self._ends: dict[Key, dict[str, tuple[object, datetime]]] = {}
        self._kept: dict[str, tuple[Json, _Known, PodView | None]] = {}

    def notify(self, key: Key, pod_name: str) -> bool | None:
        """A launcher has something to tell.

        True: its pod is to be asked. False: it notified just now. None: there is no such pod.
        """
        for raw in self._pods.pods(key):
            if name_of(raw) == pod_name:
                return self._notifications.add(key, uid_of(raw))
        return None

    async def ask(self, key: Key, resource: Json) -> bool:
        """Ask pods, nodes and events; False when an answer is still to come."""
        pods = tuple(self._views(key))
        uids = {pod.uid for pod in pods}
        self._probe.retain(key, uids)
        self._notifications.retain(key, uids)
        self._retain_ends(key, uids)
        notified = self._notifications.pending(key)
        due = [pod for pod in pods if pod.uid in notified or wants_report(resource, pod)]
        if due and not await self._probe.refresh(key, due, notified):
            return False
        heard = {uid: when for uid, when in notified.items() if not self._probe.is_silent(key, uid)}
        self._notifications.answered(key, heard)
        now = datetime.now(UTC)
        if due:
            # The answers decide which nodes matter, so the pods are looked at again.
            pods = tuple(self._views(key))
        unsure = [pod for pod in pods if wants_node(resource, pod, now)]
        await self._nodes.refresh({pod.node for pod in unsure if pod.node})
        await self._events.refresh(key, [pod for pod in pods if wants_events(resource, pod, now)])
        return True

    def observe(self, key: Key, resource: Json, rejection: str | None) -> Observation:
        """The job as the caches have it now; ``rejection`` is the refusal of its last pod."""
        pods = sorted(self._views(key), key=lambda pod: (pod.slot, pod.incarnation))
        return Observation(
            resource=resource,
            pods=tuple(pods),
            now=datetime.now(UTC),
            progress=self._scraper.progress(key),
            ranks=self._ranks.verdict(key),
            rejection=rejection,
            gone={
                slot: pod
                for slot, pod in self._pods.gone(key).items()
                if pod.owner in (None, uid_of(resource))
            },
            nodes_known=self._leaving.known,
            leaving=self._leaving.named({pod.node for pod in pods if pod.node and pod.leaving}),
        )

    def forget(self, key: Key) -> None:
        """Drop what was kept about a job that is gone."""
        self._scraper.forget(key)
        self._ranks.forget(key)
        self._probe.retain(key, ())
        self._events.forget(key)
        self._notifications.retain(key, ())
        self._retain_ends(key, ())

    def _retain_ends(self, key: Key, uids: Collection[str]) -> None:
        ends = {uid: end for uid, end in self._ends.pop(key, {}).items() if uid in uids}
        if ends:
            self._ends[key] = ends

    def _heard(self, key: Key, pod: PodView) -> datetime | None:
        """When this process first saw what the pod says of its end; None while it says nothing."""
        word = word_of_end(pod)
        if word is None:
            return None
        ends = self._ends.setdefault(key, {})
        if pod.uid not in ends or ends[pod.uid][0] != word:
            ends[pod.uid] = word, datetime.now(UTC)
        return ends[pod.uid][1]

    def _view(self, key: Key, raw: Json) -> PodView | None:
        """The pod as decisions see it: the same one as before while nothing has changed of it."""
        uid = uid_of(raw)
        known = (*self._probe.answer(key, uid), self._pods.ran_before(key, uid))
        kept = self._kept.get(uid)
        # What changes is replaced in the cache of pods.
        if kept is not None and kept[0] is raw and kept[1] == known:
            return kept[2]
        pod = view(raw, *known)
        self._kept[uid] = raw, known, pod
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return pod

    def _views(self, key: Key) -> Iterator[PodView]:
        for raw in self._pods.pods(key):
            pod = self._view(key, raw)
            if pod is None:
                continue
            lost, leaving = self._nodes.lost_since(pod.node), self._leaving.why(pod.node)
            trouble = self._events.trouble(key, pod.uid)
            if (lost, leaving, trouble) != (None, None, None):
                pod = replace(pod, node_lost_since=lost, leaving=leaving, trouble=trouble)
            heard = self._heard(key, pod)
            if heard is not None:
                pod = replace(pod, heard=heard)
            if pod.excluded_nodes:
                # An observation does not name all nodes that are about to go.
                staying = filter(self._leaving.stays, pod.excluded_nodes)
                pod = replace(pod, excluded_nodes=frozenset(staying))
            yield pod
