"""The API server as the commands see it: dicts in and out, errors that name the remedy.

kubeconfig, exec plug-ins, proxies and certificates are the official client's. It takes half a
second to import, so that only a command that asks the API server something pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, TypeVar

from inception_operator.contract.types import Json

from .errors import CutError
from .place import Place
from .questions import (
    JSON,
    Query,
    Question,
    Request,
    answered,
    check,
    document,
    seconds_until_again,
    unreachable,
)

_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60
_CONNECTIONS: Final = 64
"""More pods than that are not followed at a time over connections that are kept."""
T = TypeVar("T")


class Cluster(Place):
    """Asks the API server, and waits for its answer."""

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, where there are any."""
        # Only a client that was needed exists.
        if "_api" in self.__dict__:
            self._api.rest_client.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Query = (),
        content: str = JSON,
        accept: str = JSON,
    ) -> Json:
        """Send a request; the answer as a dict."""
        timeout = (_CONNECT_SECONDS, _ANSWER_SECONDS)
        answer = self._send(method, path, body, query, {"Content-Type": content}, accept, timeout)
        data = self._read(answer)
        check(answer.status, data, f"{method} {path}", self.options)
        return document(data, f"{self.address}{path}")

    def ask(self, question: Question[T]) -> T:
        """What a question comes to."""
        return answered(question, self._carry_out)

    def _carry_out(self, request: Request) -> Json:
        return self.request(
            request.method, request.path, request.body, request.query, request.content
        )

    def lines(self, path: str, query: Query = (), seconds: float | None = None) -> Iterator[bytes]:
        """The lines of an answer as they come; no more after so many silent seconds.

        Raises CutError where the connection breaks.
        """
        import urllib3

        answer = self._send("GET", path, None, query, {}, "*/*", (_CONNECT_SECONDS, seconds))
        stream = answer.response
        if answer.status >= 300:
            check(answer.status, self._read(answer), f"GET {path}", self.options)
        rest = b""
        try:
            for block in stream.stream(65536, decode_content=True):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
        except urllib3.exceptions.ReadTimeoutError:
            return
        except urllib3.exceptions.HTTPError as error:
            raise CutError(self.address, error) from error
        finally:
            stream.close()
        if rest:
            yield rest

    def _read(self, answer: Any) -> bytes:
        import urllib3

        try:
            data: bytes = answer.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CutError(self.address, error) from error
        return data

    @property
    def address(self) -> str:
        """URL of the API server."""
        return str(self._api.configuration.host)

    @property
    def configuration(self) -> Any:
        """The official client's: certificates and proxies, for connections of another kind."""
        return self._api.configuration

    def signed(self, path: str, query: Query) -> tuple[str, dict[str, str]]:
        """The whole URL of a request, and the headers that say who sends it."""
        parts = self._api.param_serialize(
            "GET", path, query_params=list(query), auth_settings=["BearerToken"]
        )
        return str(parts[1]), dict(parts[2])

    @cached_property
    def _api(self) -> Any:
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration
        from kubernetes.config import load_incluster_config, load_kube_config

        configuration = Configuration()
        if self.is_at_home:
            self.loaded(
                lambda: load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            )
        else:
            self.loaded(
                lambda: load_kube_config(  # type: ignore[no-untyped-call]
                    self.file, context=self.context, client_configuration=configuration
                )
            )
        configuration.connection_pool_maxsize = _CONNECTIONS
        # A server that is not there is said at once; commands that wait try again themselves.
        configuration.retries = False
        return ApiClient(configuration)

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Query,
        headers: dict[str, str],
        accept: str,
        timeout: tuple[float, float | None],
    ) -> Any:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        api = self._api
        tries = 0
        while True:
            tries += 1
            try:
                parts = api.param_serialize(
                    method,
                    path,
                    query_params=list(query),
                    header_params={**headers, "Accept": accept},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = api.call_api(*parts, _request_timeout=timeout)
            except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
                raise unreachable(self.address, error) from error
            again = answer.response.headers.get("Retry-After")
            seconds = seconds_until_again(answer.status, again, tries)
            if seconds is None:
                return answer
            answer.response.close()
            time.sleep(seconds)

    def jobs_path(self, name: str = "", sub: str = "", *, everywhere: bool = False) -> str:
        """URL path of the jobs of the namespace or of all, of one job, or of a part of it."""
        return self.questions.jobs_path(name, sub, everywhere=everywhere)

    def core_path(self, plural: str, name: str = "", sub: str = "") -> str:
        """The same of a kind of the core group."""
        return self.questions.core_path(plural, name, sub)

    def everything(self, path: str, query: Query = ()) -> list[Json]:
        """All items of a list."""
        return self.ask(self.questions.everything(path, query))

    def jobs(self, *, everywhere: bool = False, selector: str = "") -> list[Json]:
        """The jobs of the namespace, or of all."""
        return self.ask(self.questions.jobs(everywhere=everywhere, selector=selector))

    def job(self, name: str) -> Json:
        """One job."""
        return self.ask(self.questions.job(name))

    def change(self, name: str, body: Json, sub: str = "") -> Json:
        """Merge keys into a job."""
        return self.ask(self.questions.change(name, body, sub))

    def pods(self, name: str) -> list[Json]:
        """The pods of a job, by slot and incarnation."""
        return self.ask(self.questions.pods(name))

    def events(self, uid: str) -> list[Json]:
        """The events on an object, oldest first."""
        return self.ask(self.questions.events(uid))

    def pod_warnings(self, job: Json) -> list[Json]:
        """The warnings on the pods of a job, gone ones too, oldest first."""
        return self.ask(self.questions.pod_warnings(job))
