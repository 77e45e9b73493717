"""The certificate of ``--metrics-cert-path``: read at the start, and again whenever it changes.

Whoever issues certificates replaces them long before they end (cert-manager in the Secret, which
the kubelet then mounts anew). The new one serves all connections that come after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from pathlib import Path
from typing import Final

from inception_operator.contract.errors import SettingsError

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
"""The keys of a Secret of type kubernetes.io/tls, and so the names of the mounted files."""
POLL_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Certificate:
    """A TLS context of a server whose certificate follows the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served = b""
        self._failed = False
        self.context = _context()
        try:
            self._load()
        except OSError as error:
            raise SettingsError(
                f"--metrics-cert-path: no usable {CERTIFICATE} and {KEY} in {folder}: {error}"
            ) from error

    async def follow(self) -> None:
        """Look for another certificate now and then, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.renew()

    def renew(self) -> None:
        """Serve the certificate that the folder has now, or go on with the last good one."""
        try:
            changed = self._load()
        except OSError as error:
            # Files that are being replaced one after the other fit again at the next look.
            if not self._failed:
                _log.error("the certificate of /metrics stays as it was: %s", error)
            self._failed = True
            return
        self._failed = False
        if changed:
            _log.info("the certificate of /metrics is a new one")

    def _load(self) -> bool:
        """Take over the files if they have changed; raises OSError, of which SSLError is one."""
        # The kubelet mounts a new Secret by turning one link: both paths lead to the same version.
        certificate = (self._folder / CERTIFICATE).resolve(strict=True)
        key = (self._folder / KEY).resolve(strict=True)
        seen = hashlib.sha256(certificate.read_bytes() + b"\0" + key.read_bytes()).digest()
        if seen == self._served:
            return False
        # Tried elsewhere first: a key that does not fit would leave half of the new pair behind.
        _take(_context(), certificate, key)
        _take(self.context, certificate, key)
        self._served = seen
        return True


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _take(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    # Without a password OpenSSL would ask for that of an encrypted key at the terminal.
    context.load_cert_chain(certificate, key, password="")
