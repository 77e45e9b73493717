"""Questions asked of a starting component. Every probe answers False instead of raising while
nobody listens.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable

from .model import Layout

_TIMEOUT = 2.0


def https_ok(layout: Layout, port: int, path: str, *, verify: bool = True) -> Callable[[], bool]:
    """A probe of a TLS endpoint on the loopback address, with the administrator's certificate."""
    return lambda: _get(_tls(layout, verify=verify), port, path)


def http_ok(port: int, path: str) -> Callable[[], bool]:
    """A probe of a plain HTTP endpoint on the loopback address."""
    return lambda: _get(None, port, path)


def _tls(layout: Layout, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(layout.pki("ca.crt")))
    context.load_cert_chain(layout.pki("admin.crt"), layout.pki("admin.key"))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _get(context: ssl.SSLContext | None, port: int, path: str) -> bool:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT, context=context)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
