"""Events: in order for each training, bounded, and never in anybody's way."""

from __future__ import annotations

import asyncio

import pytest

from fake_time import now, run
from inception_operator.contract.errors import UnavailableError
from inception_operator.contract.types import Event, Json
from inception_operator.runtime import events
from inception_operator.runtime.client import EVENTS, Client, Kind
from inception_operator.runtime.events import EventPoster
from operator_objects import job, strict_containment


class Sink(Client):
    def __init__(self, pause: float = 0.0) -> None:
        self.bodies: list[Json] = []
        self.pause = pause
        self.failures = 0

    async def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        assert (kind, namespace) == (EVENTS, "ns")
        await asyncio.sleep(self.pause)
        if self.failures:
            self.failures -= 1
            raise UnavailableError(503, "down")
        self.bodies.append(body)
        return body


def event(reason: str = "AttemptStarted", message: str = "text") -> Event:
    return Event("Normal", reason, message)


def test_an_event_names_its_training_and_its_sender_and_is_bounded() -> None:
    async def main() -> None:
        sink = Sink()
        poster = EventPoster(sink, strict_containment(), "me")
        poster.post(job(), event(message="x" * 3000))
        await poster.drain()
        (body,) = sink.bodies
        assert body["involvedObject"]["uid"] == "job-uid"
        assert (body["reason"], body["reportingInstance"]) == ("AttemptStarted", "me")
        assert len(body["message"]) == 1024

    run(main())


def test_events_of_a_training_keep_their_order_and_a_lost_one_stops_nothing() -> None:
    async def main() -> None:
        sink = Sink(pause=0.5)
        poster = EventPoster(sink, strict_containment(), "me")
        posting = asyncio.create_task(poster.run())
        sink.failures = 1
        for number in range(5):
            poster.post(job(), event(str(number)))
        await asyncio.sleep(10)
        assert [body["reason"] for body in sink.bodies] == ["1", "2", "3", "4"]
        posting.cancel()

    run(main())


def test_events_let_jobs_go_first_but_not_for_long() -> None:
    async def main() -> None:
        sink, depth = Sink(), events.BUSY_DEPTH + 1
        poster = EventPoster(sink, strict_containment(), "me", depth=lambda: depth, clock=now)
        posting = asyncio.create_task(poster.run())
        poster.post(job(), event("first"))
        await asyncio.sleep(events.HOLD_SECONDS / 2)
        assert sink.bodies == []
        depth = 0
        await asyncio.sleep(1)
        assert len(sink.bodies) == 1
        depth = events.BUSY_DEPTH + 1
        for number in range(5):
            poster.post(job(), event(str(number)))
        await asyncio.sleep(events.HOLD_SECONDS - 1)
        assert len(sink.bodies) == 1
        await asyncio.sleep(2)
        assert len(sink.bodies) == 6, "all at once, not one after another"
        posting.cancel()

    run(main())


def test_what_is_held_back_is_posted_at_the_end() -> None:
    async def main() -> None:
        sink = Sink()
        busy = events.BUSY_DEPTH + 1
        poster = EventPoster(sink, strict_containment(), "me", depth=lambda: busy, clock=now)
        posting = asyncio.create_task(poster.run())
        for number in range(3):
            poster.post(job(), event(str(number)))
        await asyncio.sleep(1)
        posting.cancel()
        await asyncio.wait([posting])
        await poster.drain()
        assert [body["reason"] for body in sink.bodies] == ["0", "1", "2"]

    run(main())


def test_at_the_end_the_rest_is_posted_for_a_moment_only() -> None:
    async def main() -> None:
        sink = Sink(pause=0.4)
        poster = EventPoster(sink, strict_containment(), "me")
        for number in range(5):
            poster.post(job(), event(str(number)))
        await poster.drain()
        assert len(sink.bodies) == 2

    run(main())


def test_too_many_events_are_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 2)

    async def main() -> None:
        sink = Sink()
        poster = EventPoster(sink, strict_containment(), "me", lanes=1)
        for number in range(3):
            poster.post(job(), event(str(number)))
        await poster.drain()
        assert [body["reason"] for body in sink.bodies] == ["0", "1"]

    run(main())
    assert "2 is not posted" in caplog.text
