"""The API server as the commands see it: dicts in and out, errors that name the remedy.

kubeconfig, exec plug-ins, proxies and certificates are the official client's. It takes half a
second to import, so that only a command that asks the API server something pays for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NoReturn
from urllib.parse import quote

from inception_operator.contract import names
from inception_operator.contract.types import Json

from .errors import FAILED, FORBIDDEN, NOT_FOUND, UNAVAILABLE, AnswerError, CliError, did_you_mean
from .terminal import clean_line, program

MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
JSON: Final = "application/json"
FIELD_MANAGER: Final = "kubectl-inception"
_GROUP_PATH: Final = f"/apis/{names.API_VERSION}"
_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60
_PAGE: Final = 500
_CONNECTIONS: Final = 64
"""More pods than that are not followed at a time over connections that are kept."""
Query = Sequence[tuple[str, str]]


@dataclass
class Cluster:
    """The cluster of a kubeconfig's context, and a namespace of it."""

    kubeconfig: str | None = None
    context: str | None = None
    chosen_namespace: str | None = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        # Only a client that was needed exists.
        if "_api" in self.__dict__:
            self._api.rest_client.close()

    @cached_property
    def namespace(self) -> str:
        """The namespace: the chosen one, that of the context, or default."""
        if self.chosen_namespace:
            return self.chosen_namespace
        from kubernetes.config import list_kube_config_contexts

        found = self._load(
            lambda: list_kube_config_contexts(self.kubeconfig)  # type: ignore[no-untyped-call]
        )
        contexts, active = found
        wanted = next((c for c in contexts if c["name"] == self.context), active)
        return str((wanted.get("context") or {}).get("namespace") or "default")

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
        data = answer.read()
        self._check(answer.status, data, method, path)
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CliError(f"{self.address}{path} has not answered with JSON", code=UNAVAILABLE)
        return found

    def lines(self, path: str, query: Query = (), seconds: float | None = None) -> Iterator[bytes]:
        """The lines of an answer as they come; no more after so many silent seconds."""
        import urllib3

        answer = self._send("GET", path, None, query, {}, "*/*", (_CONNECT_SECONDS, seconds))
        stream = answer.response
        if answer.status >= 300:
            self._check(answer.status, answer.read(), "GET", path)
        rest = b""
        try:
            for block in stream.stream(65536, decode_content=True):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
        except urllib3.exceptions.HTTPError:
            # A connection that breaks or is silent: whoever reads asks again.
            return
        finally:
            stream.close()
        if rest:
            yield rest

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
        from kubernetes.config import load_kube_config

        configuration = Configuration()
        self._load(
            lambda: load_kube_config(  # type: ignore[no-untyped-call]
                self.kubeconfig, context=self.context, client_configuration=configuration
            )
        )
        configuration.connection_pool_maxsize = _CONNECTIONS
        # A server that is not there is said at once; commands that wait try again themselves.
        configuration.retries = False
        return ApiClient(configuration)

    def _load(self, load: Any) -> Any:
        import yaml
        from kubernetes.config.config_exception import ConfigException

        wrong = (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError)
        try:
            return load()
        except wrong as error:
            raise CliError(
                f"no usable kubeconfig ({self._place()}): {clean_line(error)}",
                "Set KUBECONFIG or --kubeconfig to a file that kubectl works with, and --context "
                "to one of `kubectl config get-contexts`.",
                UNAVAILABLE,
            ) from error

    def _place(self) -> str:
        """Where the kubeconfig was looked for."""
        return self.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"

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
        try:
            parts = api.param_serialize(
                method,
                path,
                query_params=list(query),
                header_params={**headers, "Accept": accept},
                body=body,
                auth_settings=["BearerToken"],
            )
            return api.call_api(*parts, _request_timeout=timeout)
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise CliError(
                f"the API server {self.address} cannot be reached: {clean_line(error)}",
                "Is the cluster up, and is it the right context? `kubectl config current-context`",
                UNAVAILABLE,
            ) from error

    def _check(self, status: int, data: bytes, method: str, path: str) -> None:
        if status < 300:
            return
        try:
            answer = json.loads(data)
        except ValueError:
            answer = {}
        if not isinstance(answer, dict):
            answer = {}
        refuse(status, answer, data, f"{method} {path}")

    def jobs_path(self, name: str = "", sub: str = "", *, everywhere: bool = False) -> str:
        """URL path of the jobs of the namespace or of all, of one job, or of a part of it."""
        return _path(_GROUP_PATH, "" if everywhere else self.namespace, names.PLURAL, name, sub)

    def core_path(self, plural: str, name: str = "", sub: str = "") -> str:
        """The same of a kind of the core group."""
        return _path("/api/v1", self.namespace, plural, name, sub)

    def everything(self, path: str, query: Query = ()) -> list[Json]:
        """All items of a list, page by page."""
        found: list[Json] = []
        token = ""
        while True:
            page = [*query, ("limit", str(_PAGE)), *([("continue", token)] if token else [])]
            answer = self.request("GET", path, query=page)
            found += answer.get("items") or []
            token = str((answer.get("metadata") or {}).get("continue") or "")
            if not token:
                return found

    def jobs(self, *, everywhere: bool = False, selector: str = "") -> list[Json]:
        """The jobs of the namespace, or of all."""
        query = [("labelSelector", selector)] if selector else []
        return self.everything(self.jobs_path(everywhere=everywhere), query)

    def job(self, name: str) -> Json:
        """One job; when there is none of this name, the error names the nearest."""
        try:
            return self.request("GET", self.jobs_path(name))
        except AnswerError as error:
            if error.status == 404 and error.code == NOT_FOUND:
                self.explain_missing(name, error)
            raise

    def change(self, name: str, body: Json, sub: str = "") -> Json:
        """Merge keys into a job."""
        query = [("fieldManager", FIELD_MANAGER)]
        path = self.jobs_path(name, sub)
        try:
            return self.request("PATCH", path, body, query=query, content=MERGE)
        except AnswerError as error:
            if error.status == 404 and error.code == NOT_FOUND:
                self.explain_missing(name, error)
            raise

    def explain_missing(self, name: str, error: AnswerError) -> NoReturn:
        """Raise the error with the nearest name, or with where the job is instead."""
        remedy = f"`{program()} list` shows what there is; -n chooses another namespace."
        try:
            known = [str(job["metadata"]["name"]) for job in self.jobs()]
            remedy = did_you_mean(name, known) or remedy
        except CliError:
            # Who may read one job need not be allowed to list them.
            pass
        raise AnswerError(
            404,
            f"there is no InceptionTraining {name} in the namespace {self.namespace}",
            clean_line(remedy),
            NOT_FOUND,
        ) from error

    def pods(self, name: str) -> list[Json]:
        """The pods of a job, by slot and incarnation."""
        query = [("labelSelector", f"{names.LABEL_JOB}={name}")]
        return sorted(self.everything(self.core_path("pods"), query), key=_order)

    def events(self, uid: str) -> list[Json]:
        """The events on an object, oldest first."""
        query = [("fieldSelector", f"involvedObject.uid={uid}")]
        found = self.everything(self.core_path("events"), query)
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or ""))


def _path(root: str, namespace: str, plural: str, name: str, sub: str) -> str:
    place = ["namespaces", namespace] if namespace else []
    parts = [*place, plural, *([name] if name else []), *([sub] if sub else [])]
    return "/".join([root, *(quote(part, safe="") for part in parts)])


def _order(pod: Json) -> tuple[int, int, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    slot, incarnation = labels.get(names.LABEL_SLOT, ""), labels.get(names.LABEL_INCARNATION, "")
    return _number(slot), _number(incarnation), str(pod["metadata"]["name"])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def refuse(status: int, answer: Json, data: bytes, request: str) -> NoReturn:
    """Raise what a refusal means for the user."""
    message = clean_line(answer.get("message") or data[:300].decode("utf-8", "replace"))
    if status == 401:
        raise AnswerError(
            status,
            "the API server does not know you: the credentials of the kubeconfig are wrong or old",
            "Log in again as for kubectl; `kubectl auth whoami` says who you are.",
            FORBIDDEN,
        )
    if status == 403 and "exceeded quota" not in message:
        raise AnswerError(
            status,
            message or f"{request} is forbidden",
            "Ask an administrator for the role edit (view, to look only) in this namespace: the "
            f"operator's chart adds its kind to them. `{program()} doctor` lists what you may do.",
            FORBIDDEN,
        )
    if status == 404 and not (answer.get("details") or {}).get("name") and names.GROUP in request:
        raise AnswerError(
            status,
            f"the API server knows no {names.KIND} ({names.API_VERSION})",
            "The operator's CustomResourceDefinition is not installed: docs/install.md, or another "
            "--context.",
            UNAVAILABLE,
        )
    code = NOT_FOUND if status == 404 else UNAVAILABLE if status >= 500 else FAILED
    raise AnswerError(status, message or f"{request}: {status}", code=code)
