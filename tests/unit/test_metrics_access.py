"""Who gets the guarded page of metrics: what the API server says, how long that is remembered, and
how little of it strangers can make the operator ask.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inception_operator.contract.errors import RejectedError, UnavailableError
from inception_operator.contract.types import Json
from inception_operator.runtime import metrics_access
from inception_operator.runtime.client import TOKEN_REVIEWS, Client, Kind
from inception_operator.runtime.metrics_access import (
    ALLOWED_SECONDS,
    AT_ONCE,
    MAX_ALLOWED,
    MAX_REFUSED,
    MAX_TOKEN,
    PER_ADDRESS,
    PER_SECOND,
    REFUSED_SECONDS,
    UNRENEWED_SECONDS,
    MetricsAccess,
)

READER = {
    "username": "system:serviceaccount:monitoring:prometheus",
    "uid": "u",
    "groups": ["system:authenticated"],
    "extra": {"pod": ["p"]},
}


class Reviews(Client):
    """An API server that knows some tokens and some readers."""

    def __init__(self) -> None:
        self.users: dict[str, Json] = {"good": READER, "other": {"username": "guest"}}
        self.readers = {READER["username"]}
        self.asked: list[tuple[str, Json]] = []
        self.fault: Exception | None = None
        self.pause: asyncio.Event | None = None

    async def review(self, kind: Kind, name: str, spec: Json) -> Json:
        self.asked.append((name, spec))
        if self.pause is not None:
            await self.pause.wait()
        if self.fault is not None:
            raise self.fault
        if kind is TOKEN_REVIEWS:
            user = self.users.get(spec["token"])
            return {"authenticated": True, "user": user} if user else {"error": "unknown"}
        return {"allowed": spec["user"] in self.readers}

    @property
    def tokens(self) -> int:
        """How many tokens it was asked about."""
        return sum(name == "TokenReview" for name, _ in self.asked)


class Door:
    """Access with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reviews = Reviews()
        self.access = MetricsAccess(self.reviews, lambda: self.now)

    async def knock(self, token: str, address: str = "10.0.0.1") -> int:
        """The status of the answer; 200 for the page."""
        refusal = await self.access.refusal(f"Bearer {token}", address)
        return 200 if refusal is None else refusal.status


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic good",
        "good",
        "Bearer caf\u00e9",
        "Bearer \udc80",
        f"Bearer {'x' * (MAX_TOKEN + 1)}",
    ],
)
async def test_what_is_no_bearer_token_is_refused_without_a_question(
    door: Door, header: str
) -> None:
    refusal = await door.access.refusal(header, "10.0.0.1")
    assert refusal is not None
    assert refusal.status == 401
    assert door.reviews.asked == []


@pytest.mark.parametrize(
    ("token", "status", "questions"),
    [("good", 200, 2), ("other", 403, 2), ("made-up", 401, 1)],
)
async def test_the_api_server_decides_and_is_asked_once(
    door: Door, token: str, status: int, questions: int
) -> None:
    for _ in range(3):
        assert await door.knock(token) == status
    assert len(door.reviews.asked) == questions


async def test_the_user_of_the_token_is_asked_for_as_the_api_server_knows_it(door: Door) -> None:
    assert await door.knock("good") == 200
    name, spec = door.reviews.asked[1]
    assert name == "SubjectAccessReview"
    assert spec == {
        "user": READER["username"],
        "uid": "u",
        "groups": ["system:authenticated"],
        "extra": {"pod": ["p"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


async def test_the_scheme_is_read_as_http_has_it(door: Door) -> None:
    assert await door.access.refusal("bearer good", "10.0.0.1") is None


async def test_a_refusal_names_the_account_and_is_short(door: Door) -> None:
    door.reviews.users["long"] = {"username": "u" * 10_000}
    refusal = await door.access.refusal("Bearer long", "10.0.0.1")
    assert refusal is not None
    assert len(refusal.text) < 300
    refusal = await door.access.refusal("Bearer other", "10.0.0.1")
    assert refusal is not None
    assert refusal.text == "guest may not get /metrics"


async def test_a_right_that_is_taken_away_ends_within_a_minute(door: Door) -> None:
    assert await door.knock("good") == 200
    door.reviews.readers.clear()
    door.now += ALLOWED_SECONDS - 1
    assert await door.knock("good") == 200
    door.now += 1
    assert await door.knock("good") == 403


async def test_a_right_that_is_given_shows_soon(door: Door) -> None:
    assert await door.knock("other") == 403
    door.reviews.readers.add("guest")
    door.now += REFUSED_SECONDS - 1
    assert await door.knock("other") == 403
    door.now += 1
    assert await door.knock("other") == 200


@pytest.mark.parametrize(
    "fault", [UnavailableError(503, "away"), RejectedError(403, "may not create tokenreviews")]
)
async def test_while_the_api_server_cannot_be_asked_known_readers_go_on_for_a_while(
    door: Door, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await door.knock("good") == 200
    door.reviews.fault = fault
    door.now += UNRENEWED_SECONDS - 1
    assert await door.knock("good") == 200
    assert await door.knock("other") == 503
    door.now += 1
    assert await door.knock("good") == 503
    # What goes wrong is in the log, once a minute.
    assert [record.getMessage() for record in caplog.records] == [
        f"nobody new gets /metrics: {fault}"
    ]
    door.reviews.fault = None
    door.now += 1
    assert await door.knock("good") == 200


async def test_an_api_server_that_does_not_answer_is_not_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_access, "QUESTION_SECONDS", 0.01)
    door.reviews.pause = asyncio.Event()
    assert await door.knock("good") == 503
    door.reviews.pause = None
    assert await door.knock("good") == 200


async def test_made_up_tokens_cost_a_bounded_number_of_questions(door: Door) -> None:
    for second in range(3):
        door.now = 1000.0 + second
        answers = [
            await door.knock(f"random-{second}-{number}", f"10.0.{number % 50}.1")
            for number in range(500)
        ]
        assert set(answers) == {401, 503}
        assert door.reviews.tokens == PER_SECOND * (second + 1)


async def test_one_address_leaves_questions_for_others(door: Door) -> None:
    for number in range(100):
        await door.knock(f"random-{number}", "10.0.0.66")
    assert door.reviews.tokens == PER_ADDRESS
    assert await door.knock("good", "10.0.0.1") == 200


async def test_strangers_do_not_keep_a_reader_from_being_asked_for_again(door: Door) -> None:
    assert await door.knock("good") == 200
    for number in range(2 * max(MAX_ALLOWED, MAX_REFUSED)):
        door.now += 1 / PER_SECOND
        await door.knock(f"random-{number}", f"10.0.{number % 50}.1")
    door.now = float(int(door.now) + 1)
    for number in range(100):
        await door.knock(f"more-{number}", f"10.0.{number % 50}.1")
    door.reviews.asked.clear()
    door.reviews.readers.clear()
    # Longer ago than a minute: it is asked for, and not passed over in the crowd.
    assert await door.knock("good") == 403
    assert len(door.reviews.asked) == 2


async def test_what_is_remembered_is_bounded(door: Door) -> None:
    for number in range(MAX_REFUSED + 100):
        door.now += 1.0
        await door.knock(f"random-{number}")
        door.reviews.users[f"reader-{number}"] = READER
        await door.knock(f"reader-{number}")
    access: Any = door.access
    assert (len(access._refused), len(access._allowed)) == (MAX_REFUSED, MAX_ALLOWED)
    assert access._asking == {}
    assert not any(b"r" in key and len(key) != 32 for key in access._allowed), "hashes only"


async def test_questions_that_are_open_are_bounded_and_shared(door: Door) -> None:
    door.reviews.pause = asyncio.Event()
    same = [asyncio.create_task(door.knock("good")) for _ in range(50)]
    others = []
    for number in range(50):
        await asyncio.sleep(0)
        door.now += 1.0
        others.append(asyncio.create_task(door.knock(f"random-{number}", f"10.0.{number}.1")))
    await asyncio.sleep(0)
    assert door.reviews.tokens == AT_ONCE
    # One of those who wait hangs up.
    same.pop().cancel()
    door.reviews.pause.set()
    assert set(await asyncio.gather(*same)) == {200}
    assert sorted(await asyncio.gather(*others)) == [401] * (AT_ONCE - 1) + [503] * 47
    door.now += 1.0
    door.reviews.pause = None
    assert await door.knock("random-49") == 401, "the places are free again"
