"""Kubernetes Events on jobs, posted in the background.

They tell people; no decision reads them, so a lost one changes nothing and none is retried.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid

from inception_operator.contract import names
from inception_operator.contract.errors import ApiError, LeadershipLostError
from inception_operator.contract.limits import cut_text
from inception_operator.contract.types import Event, Json

from .client import EVENTS, Client
from .containment import Containment, Where
from .objects import key_of

# The limit of events.k8s.io for a note.
MAX_MESSAGE = 1024
MAX_WAITING = 10_000
DRAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class EventPoster:
    """Posts the events of each job in their order; ``instance`` names this process in them."""

    def __init__(
        self, client: Client, containment: Containment, instance: str, lanes: int = 4
    ) -> None:
        self._client = client
        self._containment = containment
        self._instance = instance
        self._lanes: list[asyncio.Queue[Json]] = [
            asyncio.Queue(MAX_WAITING // lanes) for _ in range(lanes)
        ]

    def post(self, resource: Json, event: Event) -> None:
        """Hand over an event of now, without waiting."""
        key = key_of(resource)
        # The events of one job share a lane, which keeps their order; other jobs do not wait.
        lane = self._lanes[hash(key) % len(self._lanes)]
        try:
            lane.put_nowait(_body(resource, event, self._instance))
        except asyncio.QueueFull:
            _log.warning("too many events wait: %s is not posted", event.reason, extra={"key": key})

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, lane in enumerate(self._lanes):
                group.create_task(self._work(lane), name=f"events-{number}")

    async def drain(self) -> None:
        """Post what still waits, for `DRAIN_SECONDS` at most."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                for lane in self._lanes:
                    while not lane.empty():
                        await self._send(lane.get_nowait())
        except (TimeoutError, LeadershipLostError):
            _log.info("some events were not posted before the end")

    async def _work(self, lane: asyncio.Queue[Json]) -> None:
        while True:
            await self._send(await lane.get())

    async def _send(self, body: Json) -> None:
        key = key_of({"metadata": body["involvedObject"]})
        with self._containment.contain(key, Where.EVENT):
            try:
                await self._client.create(EVENTS, body["metadata"]["namespace"], body)
            except ApiError as error:
                _log.info("an event was not stored: %s", error, extra={"key": key})


def _body(resource: Json, event: Event, instance: str) -> Json:
    metadata = resource["metadata"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENTS.api_version,
        "kind": "Event",
        "metadata": {
            # Unique, so that no event overwrites another: kubectl sorts them by time anyway.
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
        "message": cut_text(event.message, MAX_MESSAGE),
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": instance,
    }
