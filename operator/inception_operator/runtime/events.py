"""Kubernetes Events on jobs, posted in the background.

They tell people; no decision reads them, so a lost one changes nothing and none is retried. While
many jobs wait for their pods, events wait for a moment: both need the same API server.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import uuid
from collections.abc import Callable

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
BUSY_DEPTH = 20
"""With more jobs than that in the work queue, events let them go first."""
HOLD_SECONDS = 10.0
HOLD_POLL = 0.2

_log = logging.getLogger(__name__)


def _no_depth() -> int:
    return 0


class EventPoster:
    """Posts the events of each job in their order; ``instance`` names this process in them.

    ``depth`` is how many jobs wait for a decision.
    """

    def __init__(
        self,
        client: Client,
        containment: Containment,
        instance: str,
        lanes: int = 4,
        depth: Callable[[], int] = _no_depth,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._containment = containment
        self._instance = instance
        self._depth = depth
        self._clock = clock
        self._lanes: list[asyncio.Queue[tuple[float, Json]]] = [
            asyncio.Queue(MAX_WAITING // lanes) for _ in range(lanes)
        ]
        # By lane: what has left it and waits for quieter times.
        self._held: dict[int, Json] = {}

    def post(self, resource: Json, event: Event) -> None:
        """Hand over an event of now, without waiting."""
        key = key_of(resource)
        # The events of one job share a lane, which keeps their order; other jobs do not wait.
        lane = self._lanes[hash(key) % len(self._lanes)]
        try:
            lane.put_nowait((self._clock(), _body(resource, event, self._instance)))
        except asyncio.QueueFull:
            _log.warning("too many events wait: %s is not posted", event.reason, extra={"key": key})

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, lane in enumerate(self._lanes):
                group.create_task(self._work(number, lane), name=f"events-{number}")

    async def drain(self) -> None:
        """Post what still waits, for `DRAIN_SECONDS` at most."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                for number, lane in enumerate(self._lanes):
                    if number in self._held:
                        await self._send(self._held.pop(number))
                    while not lane.empty():
                        await self._send(lane.get_nowait()[1])
        except (TimeoutError, LeadershipLostError):
            _log.info("some events were not posted before the end")

    async def _work(self, number: int, lane: asyncio.Queue[tuple[float, Json]]) -> None:
        while True:
            posted, self._held[number] = await lane.get()
            # Each has its own limit, so that those behind it do not wait for theirs one by one.
            while self._may_wait(posted):  # noqa: ASYNC110 - nobody tells of a shorter queue
                await asyncio.sleep(HOLD_POLL)
            await self._send(self._held.pop(number))

    def _may_wait(self, posted: float) -> bool:
        return self._depth() > BUSY_DEPTH and self._clock() - posted < HOLD_SECONDS

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
