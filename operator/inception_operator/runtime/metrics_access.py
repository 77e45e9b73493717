"""Who may read the page of metrics where ``--metrics-secure`` guards it: the API server says.

As with controller-runtime's filter, a bearer token goes into a TokenReview and its user into a
SubjectAccessReview of ``get /metrics``. Whoever reaches the port can show any number of tokens, so
there are bounds on what the API server is asked: answers are remembered, and questions are counted
by the second, by the address they come from and by how many are open. Tokens that were let in have
a budget of their own, so that nobody else's questions keep a monitoring from its page.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inception_operator.contract.errors import ApiError
from inception_operator.contract.limits import cut_text
from inception_operator.contract.types import Json

from .client import ACCESS_REVIEWS, TOKEN_REVIEWS, Client

ALLOWED_SECONDS: Final = 60.0
"""How long an account whose rights were taken away still reads the page."""
UNRENEWED_SECONDS: Final = 300.0
"""The same while the API server cannot be asked: the metrics of that time are those wanted most."""
REFUSED_SECONDS: Final = 10.0
MAX_ALLOWED: Final = 64
MAX_REFUSED: Final = 256
MAX_TOKEN: Final = 8 * 1024
QUESTION_SECONDS: Final = 5.0
PER_SECOND: Final = 5
"""Tokens that are asked about in a second; each takes two requests at most. As many again for those
that were let in before.
"""
PER_ADDRESS: Final = 2
AT_ONCE: Final = 4
LOG_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Status and text of an answer to somebody who does not get the page."""

    status: int
    text: str


NO_TOKEN: Final = Refusal(401, "a bearer token of this cluster is needed")
BAD_TOKEN: Final = Refusal(401, "the API server does not know this token")
BUSY: Final = Refusal(503, "too many tokens are being looked at, try again")
UNKNOWN: Final = Refusal(503, "the API server could not be asked about this token, try again")


class Budget:
    """Bounds on questions: in one second, in it from one address, and open at once."""

    def __init__(
        self, per_second: int, per_address: int, at_once: int, clock: Callable[[], float]
    ) -> None:
        self._per_second = per_second
        self._per_address = per_address
        self._at_once = at_once
        self._clock = clock
        self._second = -1
        # Of this second only, and of those let through, so never more than `per_second` entries.
        self._asked: Counter[str] = Counter()
        self._open = 0

    def take(self, address: str) -> bool:
        """Whether one more question may be asked for ``address``; it then counts as open."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._asked.clear()
        if self._open >= self._at_once or self._asked.total() >= self._per_second:
            return False
        if self._asked[address] >= self._per_address:
            return False
        self._asked[address] += 1
        self._open += 1
        return True

    def end(self) -> None:
        """A question is no longer open."""
        self._open -= 1


class MetricsAccess:
    """Whose tokens may read the page; by their hashes, no token is kept."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        # When they were let in, and until when they are refused; the oldest first.
        self._allowed: dict[bytes, float] = {}
        self._refused: dict[bytes, tuple[float, Refusal]] = {}
        self._asking: dict[bytes, asyncio.Task[Refusal | None]] = {}
        self._strangers = Budget(PER_SECOND, PER_ADDRESS, AT_ONCE, clock)
        self._renewals = Budget(PER_SECOND, PER_SECOND, AT_ONCE, clock)
        self._logged: float | None = None

    async def refusal(self, authorization: str, address: str) -> Refusal | None:
        """Why the sender of this ``Authorization`` header does not get the page; None if it does.

        ``address`` is where the request comes from.
        """
        token = _bearer(authorization)
        if token is None:
            return NO_TOKEN
        key = hashlib.sha256(token.encode()).digest()
        allowed = self._allowed.get(key)
        if allowed is not None and self._clock() < allowed + ALLOWED_SECONDS:
            return None
        if (refused := self._refused.get(key)) is not None and self._clock() < refused[0]:
            return refused[1]
        answer = await self._ask(key, token, address)
        unsure = answer is BUSY or answer is UNKNOWN
        if unsure and allowed is not None and self._clock() < allowed + UNRENEWED_SECONDS:
            return None
        return answer

    async def _ask(self, key: bytes, token: str, address: str) -> Refusal | None:
        asking = self._asking.get(key)
        if asking is None:
            budget = self._renewals if key in self._allowed else self._strangers
            if not budget.take(address):
                return BUSY
            asking = asyncio.create_task(self._question(key, token, budget), name="metrics access")
            self._asking[key] = asking
        # Who hangs up does not take the answer from others with the same token.
        return await asyncio.shield(asking)

    async def _question(self, key: bytes, token: str, budget: Budget) -> Refusal | None:
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                refusal = await self._review(token)
        except (ApiError, TimeoutError) as error:
            self._note(error)
            return UNKNOWN
        finally:
            budget.end()
            del self._asking[key]
        self._remember(key, refusal)
        return refusal

    async def _review(self, token: str) -> Refusal | None:
        known = await self._client.review(TOKEN_REVIEWS, "TokenReview", {"token": token})
        if known.get("authenticated") is not True:
            return BAD_TOKEN
        user: Json = known.get("user") or {}
        spec = {
            "user": user.get("username"),
            "uid": user.get("uid"),
            "groups": user.get("groups"),
            "extra": user.get("extra"),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        spec = {name: value for name, value in spec.items() if value}
        right = await self._client.review(ACCESS_REVIEWS, "SubjectAccessReview", spec)
        if right.get("allowed") is not True:
            return Refusal(403, f"{cut_text(str(user.get('username')), 253)} may not get /metrics")
        return None

    def _remember(self, key: bytes, refusal: Refusal | None) -> None:
        # Taken out first, so that the newest answer is the last entry.
        self._allowed.pop(key, None)
        self._refused.pop(key, None)
        if refusal is None:
            self._allowed[key] = self._clock()
        else:
            self._refused[key] = (self._clock() + REFUSED_SECONDS, refusal)
        # Apart, so that no number of made-up tokens takes the place of one that was let in.
        if len(self._allowed) > MAX_ALLOWED:
            del self._allowed[next(iter(self._allowed))]
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def _note(self, error: Exception) -> None:
        now = self._clock()
        if self._logged is not None and now - self._logged < LOG_SECONDS:
            return
        self._logged = now
        reason = str(error) or f"no answer within {QUESTION_SECONDS:.0f} s"
        _log.error("nobody new gets /metrics: %s", reason)


def _bearer(authorization: str) -> str | None:
    """The token of an ``Authorization`` header; None if there is none that could be one."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.isascii():
        return None
    return token if 0 < len(token) <= MAX_TOKEN else None
