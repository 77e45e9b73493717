"""A very small Kubernetes client for the helper processes of a cluster: JSON over HTTPS with a
client certificate.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from .errors import LocalClusterError

_TIMEOUT = 30.0


class ApiError(LocalClusterError):
    """The API server refused a request."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{method} {path}: {status}: {message}")


class ApiClient:
    """Requests as the user of a kubeconfig with embedded certificates."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._address = urlsplit(cluster["server"]).netloc
        self._context = _tls(cluster, document["users"][0]["user"])

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Any:
        """One request; the decoded answer. Raises ApiError for every status that is no success."""
        return json.loads(self.content(method, path, body, content_type))

    def apply(self, path: str, body: object, **parameters: str) -> Any:
        """Server-side apply of an object at its path, as kubectl does; the object as it is stored.

        ``parameters`` are those of the request, such as ``dryRun="All"``. Raises ApiError.
        """
        query = urlencode({"fieldManager": "kubectl", "fieldValidation": "Strict", **parameters})
        return self.request("PATCH", f"{path}?{query}", body, "application/apply-patch+yaml")

    def text(self, path: str) -> str:
        """What lies at a path that holds no JSON."""
        return self.content("GET", path).decode()

    def content(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> bytes:
        """The same, but the answer as it came; a body of bytes is sent as it is."""
        connection = http.client.HTTPSConnection(
            self._address, context=self._context, timeout=_TIMEOUT
        )
        try:
            answer = _send(connection, method, path, body, content_type)
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(method, path, answer.status, _message(content))
        return content

    def watch(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        """Events of a collection from now on; ends by itself after ``seconds``."""
        connection = http.client.HTTPSConnection(
            self._address, context=self._context, timeout=seconds + _TIMEOUT
        )
        try:
            answer = _send(connection, "GET", f"{path}?watch=1&timeoutSeconds={seconds}", None)
            if answer.status != http.HTTPStatus.OK:
                raise ApiError("WATCH", path, answer.status, answer.read().decode(errors="replace"))
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()


def _message(content: bytes) -> str:
    """The message of a Status, or the whole text of what is none."""
    text = content.decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


def _send(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: object,
    content_type: str = "application/json",
) -> http.client.HTTPResponse:
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": content_type})
    return connection.getresponse()


def _tls(cluster: dict[str, str], user: dict[str, str]) -> ssl.SSLContext:
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    # The ssl module takes client certificates from files only.
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(
            base64.b64decode(user["client-certificate-data"])
            + base64.b64decode(user["client-key-data"])
        )
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
