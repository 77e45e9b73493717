"""The HTTP session that kopf lists and watches with: it hands kopf nothing that kopf cannot take.

kopf decodes every answer with ``json``, without a limit of its own: one resource of one user,
nested 2,000 levels deep, raises RecursionError in its watcher, which ends the process and does so
again after each restart. Its sessions may be ours, and aiohttp lets a session bring its own class
of responses, so what is too much is replaced by a stub before kopf sees it
(`contract.decoding`).

kopf also ends the process when the API server answers with an error for more than some seconds, as
a load balancer does whose API servers are all being replaced. Without any answer it tries again for
ever, so such an answer is shown to it as none. Where the error comes within a watch, it is made one
after which kopf lists again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import kopf
from typing_extensions import override
from yarl import URL

from inception_operator.contract.decoding import (
    MAX_ITEM_BYTES,
    MalformedError,
    decode_event,
    decode_list,
)
from inception_operator.contract.names import PLURAL

from .client import decoded

# A line with fewer opening brackets cannot be deep enough to trouble json (1,000 levels) or any
# code of kopf's that copies what it holds.
SHALLOW: Final = 300
ERROR_PAUSE: Final = 1.0
"""Seconds before a list that follows an error within a watch."""

_log = logging.getLogger(__name__)


def make_session(info: kopf.ConnectionInfo) -> aiohttp.ClientSession:
    """A session as kopf makes them from such a connection, but for the class of its responses."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=BoundedResponse,
    )


def bounded_line(line: bytes) -> bytes | None:
    """A line of a watch that is safe to decode: itself, or one with a stub in the object's place.

    None for a line that is no event at all.
    """
    if len(line) <= MAX_ITEM_BYTES and line.count(b"{") + line.count(b"[") < SHALLOW:
        return line
    try:
        return json.dumps(decode_event(line), separators=(",", ":")).encode()
    except MalformedError:
        return None


def after_error(line: bytes) -> bytes | None:
    """In place of an error in a watch that would end kopf: one after which it lists again."""
    if not line.startswith(b'{"type":"ERROR"'):
        return None
    status = decode_event(line).get("object") or {}
    if status.get("code") == HTTPStatus.GONE:
        return None
    _log.warning("the watch of %s ends with an error: %s", PLURAL, status.get("message"))
    event = {"type": "ERROR", "object": {**status, "code": HTTPStatus.GONE}}
    return json.dumps(event, separators=(",", ":")).encode()


def _ends_kopf(status: int, url: URL) -> bool:
    """Whether such an answer would end kopf, and trying again may bring another one."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return True
    # What else it asks for is what kinds there are, where 404 is an answer.
    if not url.path.endswith(f"/{PLURAL}"):
        return False
    # From a list a list follows, from a watch the same watch: too old a version stays too old.
    is_list = "watch" not in url.query
    return status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND) or (
        is_list and status == HTTPStatus.GONE
    )


class _Lines:
    """The body of a watch by whole lines, each of them bounded; otherwise as what it wraps."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, one at a time. What is left without a line's end was cut off: it is dropped,
        and comes again with the next watch.
        """
        begun: list[bytes] = []
        async for data in self._content.iter_chunked(size):
            first, *others = data.split(b"\n")
            begun.append(first)
            for following in others:
                line = bounded_line(b"".join(begun))
                begun = [following]
                if line and (other := after_error(line)):
                    await asyncio.sleep(ERROR_PAUSE)
                    line = other
                if line:
                    yield line + b"\n"


class BoundedResponse(aiohttp.ClientResponse):
    """A response whose lists and watch events are bounded object by object."""

    @override
    async def start(self, connection: Any) -> BoundedResponse:
        await super().start(connection)
        if _ends_kopf(self.status, self.url):
            raise aiohttp.ClientConnectionError(f"the API server answers with {self.status}")
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    @override
    async def json(self, **_: Any) -> Any:
        """The decoded body. kopf asks for no other kind of answer than lists and discovery."""
        try:
            return await decoded(decode_list, await self.read())
        except MalformedError as error:
            # What kopf expects of a body that is not JSON, such as a proxy's page of HTML.
            raise json.JSONDecodeError(str(error), "", 0) from error
