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
from urllib.parse import urlsplit

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

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request; the decoded answer. Raises ApiError for every status that is no success."""
        return json.loads(self._content(method, path, body))

    def text(self, path: str) -> str:
        """What lies at a path that holds no JSON."""
        return self._content("GET", path, None).decode()

    def _content(self, method: str, path: str, body: object) -> bytes:
        connection = http.client.HTTPSConnection(
            self._address, context=self._context, timeout=_TIMEOUT
        )
        try:
            answer = _send(connection, method, path, body)
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(method, path, answer.status, content.decode(errors="replace"))
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


def _send(
    connection: http.client.HTTPSConnection, method: str, path: str, body: object
) -> http.client.HTTPResponse:
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    return connection.getresponse()


def _tls(cluster: dict[str, str], user: dict[str, str]) -> ssl.SSLContext:
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with (
        tempfile.NamedTemporaryFile() as pair
    ):  # the ssl module takes client certificates from files only
        pair.write(
            base64.b64decode(user["client-certificate-data"])
            + base64.b64decode(user["client-key-data"])
        )
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
