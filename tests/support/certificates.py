"""Certificates of a server as somebody who issues them writes and replaces them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class MountedSecret:
    """A folder with tls.crt and tls.key as the kubelet mounts a Secret: links to one version, which
    all change at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        self.issue()
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(Path("..data", name))

    def issue(self) -> None:
        """Mount a new version with another key and certificate, for 127.0.0.1."""
        self.mount(*certificate())

    def mount(self, certificate: bytes, key: bytes) -> None:
        """Mount a new version with these."""
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir(parents=True)
        (version / "tls.crt").write_bytes(certificate)
        (version / "tls.key").write_bytes(key)
        link = self.folder / "..new"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")

    def trust(self) -> ssl.SSLContext:
        """What a client knows who trusts the present certificate and no other."""
        return ssl.create_default_context(cafile=str(self.folder / "tls.crt"))


def certificate(password: bytes | None = None) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "metrics")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    text = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
    return signed.public_bytes(PEM), text
