"""The API server for an event loop: the questions of `client.questions` over ``kubernetes.aio``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from inception_operator.client.errors import ClientError, CutError
from inception_operator.client.place import Place, unloadable
from inception_operator.client.questions import (
    JSON,
    Query,
    Question,
    Request,
    check,
    document,
    seconds_until_again,
    unreachable,
)
from inception_operator.contract.types import Json

_CONNECT_SECONDS: Final = 10
_ANSWER: Final = aiohttp.ClientTimeout(total=60, sock_connect=_CONNECT_SECONDS)
_BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError)
T = TypeVar("T")


class AsyncCluster(Place):
    """Asks the API server without holding up the loop. Its connections are of one loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        async with self._opening:
            api = self.__dict__.pop("_api", None)
        if api is not None:
            await api.close()

    async def ask(self, question: Question[T]) -> T:
        """What a question comes to."""
        try:
            request = next(question)
            while True:
                try:
                    answer = await self._carry_out(request)
                except ClientError as error:
                    request = question.throw(error)
                else:
                    request = question.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    async def job(self, name: str) -> Json:
        """One job."""
        return await self.ask(self.questions.job(name))

    async def pods(self, name: str) -> list[Json]:
        """The pods of a job, by slot and incarnation."""
        return await self.ask(self.questions.pods(name))

    async def pod(self, name: str) -> Json:
        """One pod."""
        return await self._carry_out(Request("GET", self.questions.core_path("pods", name)))

    async def lines(
        self, path: str, query: Query = (), seconds: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come; no more after so many silent seconds.

        Raises CutError where the connection breaks.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=seconds
        )
        answer = await self._send(Request("GET", path, query=query), "*/*", timeout)
        stream = answer.response
        rest = b""
        try:
            if answer.status >= 300:
                check(answer.status, await answer.read(), f"GET {path}", self.options)
            async for block in stream.content.iter_any():
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    yield line
        except TimeoutError:
            return
        except _BROKEN as error:
            raise CutError(await self._address(), error) from error
        finally:
            stream.close()
        if rest:
            yield rest

    async def _carry_out(self, request: Request) -> Json:
        answer = await self._send(request, JSON, _ANSWER)
        try:
            data = await answer.read()
        except _BROKEN as error:
            raise CutError(await self._address(), error) from error
        check(answer.status, data, f"{request.method} {request.path}", self.options)
        return document(data, f"{await self._address()}{request.path}")

    async def _send(self, request: Request, accept: str, limits: aiohttp.ClientTimeout) -> Any:
        tries = 0
        while True:
            tries += 1
            answer = await self._sent(request, accept, limits)
            again = answer.response.headers.get("Retry-After")
            seconds = seconds_until_again(answer.status, again, tries)
            if seconds is None:
                return answer
            answer.response.close()
            await asyncio.sleep(seconds)

    async def _sent(self, request: Request, accept: str, limits: aiohttp.ClientTimeout) -> Any:
        api = await self._opened()
        try:
            parts = await api.param_serialize(
                request.method,
                request.path,
                query_params=list(request.query),
                header_params={"Content-Type": request.content, "Accept": accept},
                body=request.body,
                auth_settings=["BearerToken"],
            )
            return await api.call_api(*parts, _request_timeout=limits)
        except _BROKEN as error:
            raise unreachable(str(api.configuration.host), error) from error

    async def _address(self) -> str:
        return str((await self._opened()).configuration.host)

    @cached_property
    def _opening(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def _opened(self) -> Any:
        async with self._opening:
            if "_api" not in self.__dict__:
                self.__dict__["_api"] = ApiClient(await self._configuration())
            return self.__dict__["_api"]

    async def _configuration(self) -> Configuration:
        configuration = Configuration()
        try:
            if self.is_at_home:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            else:
                await load_kube_config(  # type: ignore[no-untyped-call]
                    self.file, self.context, configuration, persist_config=False
                )
        except ConfigException as error:
            # Not the one of the package's other half, which `unloadable` has.
            raise self.unusable(error) from error
        except unloadable() as error:
            raise self.unusable(error) from error
        return configuration
