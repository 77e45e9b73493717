"""Keys and certificates of one cluster: one certificate authority, thrown away with the cluster."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import network
from .model import Layout

_LIFETIME = dt.timedelta(days=365)
# A clock that steps back a little must not make a fresh certificate invalid.
_BACKDATED = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Leaf:
    """One certificate to be issued: file name, subject and, for servers, the names it answers
    to.
    """

    name: str
    common_name: str
    organization: str | None = None
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def kubernetes_service_address() -> str:
    """The first address of the Service range, which kube-apiserver takes for itself."""
    return str(ipaddress.ip_network(network.SERVICE_CIDR)[1])


def leaves() -> tuple[Leaf, ...]:
    """Everything that gets a certificate; those without names are clients only."""
    service = "kubernetes.default.svc"
    names = (
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.{network.CLUSTER_DOMAIN}",
    )
    addresses = ("127.0.0.1", kubernetes_service_address(), network.NODE_ADDRESS)
    return (
        Leaf("apiserver", "kube-apiserver", dns_names=names, addresses=addresses),
        Leaf("etcd", "etcd", dns_names=("localhost",), addresses=("127.0.0.1",)),
        Leaf("admin", "localcluster-admin", "system:masters"),
        Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        Leaf("kube-controller-manager", "system:kube-controller-manager"),
        Leaf("kube-scheduler", "system:kube-scheduler"),
        Leaf("kwok", "localcluster-kwok", "system:masters"),
        Leaf("kubelet", f"system:node:{network.NODE_NAME}", "system:nodes"),
        Leaf("kube-proxy", "system:kube-proxy"),
        Leaf("coredns", "localcluster-coredns", "system:masters"),
    )


def create(layout: Layout) -> None:
    """Write ``ca.crt``, ``service-account.key`` and, for every leaf, ``NAME.crt`` and
    ``NAME.key``.
    """
    layout.pki("ca.crt").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate_authority(authority_key)
    _write_pair(layout, "ca", authority, authority_key)
    for leaf in leaves():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_pair(layout, leaf.name, _issue(leaf, key, authority, authority_key), key)
    account_key = ec.generate_private_key(ec.SECP256R1())
    _write_secret(layout.pki("service-account.key"), _key_pem(account_key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
    )


def _certificate_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localcluster-ca")])
    builder = _builder(name, name, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _issue(
    leaf: Leaf,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.organization))
    builder = _builder(x509.Name(attributes), authority.subject, key)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in leaf.dns_names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in leaf.addresses]
    if alternatives:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    # Python's own TLS client insists on the two key identifiers from 3.13 on.
    authority_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        authority_key.public_key()
    )
    builder = builder.add_extension(authority_identifier, critical=False)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    return builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False).sign(
        authority_key, hashes.SHA256()
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # SEC1, because kube-apiserver reads EC service-account keys in that form.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_pair(
    layout: Layout, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    layout.pki(f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_secret(layout.pki(f"{name}.key"), _key_pem(key))


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def client_names() -> Sequence[str]:
    """Certificates that get a kubeconfig of their own."""
    return tuple(
        leaf.name
        for leaf in leaves()
        if not leaf.dns_names and leaf.name != "apiserver-kubelet-client"
    )
