"""Kubernetes Events on trainings, posted in the background: they tell people, and losing one
changes nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from typing import Protocol

from inception_operator.contract import names
from inception_operator.contract.errors import ApiError
from inception_operator.contract.types import Event, Json

from .client import EVENTS, Resource
from .job_cache import key_of

MAX_NOTE = 1024
MAX_WAITING = 10_000
DRAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """What this needs of the client."""

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create an object."""


class EventPoster:
    """Events in the order of their making for each training. ``instance`` names this process in
    them.
    """

    def __init__(self, sink: Sink, instance: str, lanes: int = 4) -> None:
        self._sink = sink
        self._instance = instance
        self._lanes: list[asyncio.Queue[Json]] = [
            asyncio.Queue(MAX_WAITING // lanes) for _ in range(lanes)
        ]

    def post(self, job: Json, event: Event) -> None:
        """Hand over an event; it carries the time of now."""
        body = _body(job, event, self._instance)
        # One lane per training keeps its events in order.
        lane = self._lanes[hash(key_of(job)) % len(self._lanes)]
        try:
            lane.put_nowait(body)
        except asyncio.QueueFull:
            _log.warning(
                "too many events wait: %s is not posted", event.reason, extra={"key": key_of(job)}
            )

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, lane in enumerate(self._lanes):
                group.create_task(self._work(lane), name=f"events-{number}")

    async def drain(self) -> None:
        """Post what still waits, for a moment."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                for lane in self._lanes:
                    while not lane.empty():
                        await self._send(lane.get_nowait())
        except TimeoutError:
            _log.info("some events were not posted before the end")

    async def _work(self, lane: asyncio.Queue[Json]) -> None:
        while True:
            await self._send(await lane.get())

    async def _send(self, body: Json) -> None:
        try:
            await self._sink.create(EVENTS, body["metadata"]["namespace"], body)
        except ApiError as error:
            involved = body["involvedObject"]
            _log.info(
                "an event was not stored: %s",
                error,
                extra={"key": (involved["namespace"], involved["name"])},
            )


def _body(job: Json, event: Event, instance: str) -> Json:
    metadata = job["metadata"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENTS.api_version,
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            **{name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")},
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MAX_NOTE],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": instance,
    }
