"""/metrics over TLS: its certificate and the change of it, and whoever reaches the port."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from certificates import MountedSecret, certificate
from inception_operator.contract.errors import SettingsError
from inception_operator.runtime.certificate import Certificate
from inception_operator.runtime.connections import Connections
from inception_operator.runtime.metrics_access import NO_TOKEN, MetricsAccess, Refusal
from inception_operator.runtime.server import Guard, Server

PAGE = bytes(range(256)) * 1000
GET = b"GET /metrics HTTP/1.1\r\nHost: operator\r\nAuthorization: Bearer good\r\n\r\n"


class OneReader(MetricsAccess):
    """Lets one token in."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def refusal(self, authorization: str, address: str) -> Refusal | None:
        self.addresses.append(address)
        if authorization == "Bearer good":
            return None
        return NO_TOKEN if not authorization else Refusal(503, "try again")


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path / "secret")


@asynccontextmanager
async def serving(
    followed: Certificate, access: MetricsAccess, connections: Connections | None = None
) -> AsyncIterator[Server]:
    guard = Guard(0, followed, access, Connections(16) if connections is None else connections)
    server = Server(
        "127.0.0.1",
        0,
        healthy=lambda: None,
        ready=lambda: None,
        metrics=lambda: PAGE,
        notify=lambda *_: True,
        guard=guard,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(port: int, trust: ssl.SSLContext, token: str = "good") -> tuple[int, bytes]:  # noqa: S107
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"https://127.0.0.1:{port}/metrics", ssl=trust) as response,
    ):
        return response.status, await response.read()


async def test_the_page_is_on_its_own_port_for_those_who_are_let_in(secret: MountedSecret) -> None:
    access = OneReader()
    async with (
        serving(Certificate(secret.folder), access) as server,
        aiohttp.ClientSession() as session,
    ):
        assert await ask(server.metrics_port, secret.trust()) == (200, PAGE)
        assert access.addresses == ["127.0.0.1"]
        # The kubelet and launchers show no token.
        open_ = f"http://127.0.0.1:{server.port}"
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 404)):
            async with session.get(open_ + path) as response:
                assert response.status == status
        async with session.post(f"{open_}/ring/ns/job/pod") as response:
            assert response.status == 202
        guarded = f"https://127.0.0.1:{server.metrics_port}"
        for path in ("/healthz", "/readyz"):
            async with session.get(guarded + path, ssl=secret.trust()) as response:
                assert response.status == 404


@pytest.mark.parametrize(
    ("token", "status", "header"),
    [("", 401, ("WWW-Authenticate", "Bearer")), ("bad", 503, ("Retry-After", "1"))],
)
async def test_a_refusal_says_what_to_do(
    secret: MountedSecret, token: str, status: int, header: tuple[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        serving(Certificate(secret.folder), OneReader()) as server,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        url = f"https://127.0.0.1:{server.metrics_port}/metrics"
        async with session.get(url, ssl=secret.trust()) as response:
            assert response.status == status
            assert response.headers[header[0]] == header[1]
            assert b"trainer" not in await response.read()
        async with session.head(url, ssl=secret.trust()) as response:
            assert response.status == status


async def test_a_new_certificate_serves_the_connections_that_come_after_it(
    secret: MountedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Certificate(secret.folder)
    async with serving(followed, OneReader()) as server:
        old = secret.trust()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port, ssl=old)
        with caplog.at_level(logging.INFO):
            secret.issue()
            followed.renew()
            followed.renew()
        assert [record.getMessage() for record in caplog.records] == [
            "the certificate of /metrics is a new one"
        ]
        assert await ask(server.metrics_port, secret.trust()) == (200, PAGE)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(server.metrics_port, old)
        # Who was connected before is not disturbed.
        writer.write(GET)
        assert (await reader.read()).endswith(PAGE)
        writer.close()


async def test_the_folder_is_looked_at_again_and_again(
    secret: MountedSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inception_operator.runtime.certificate.POLL_SECONDS", 0.01)
    async with serving(Certificate(secret.folder), OneReader()) as server:
        secret.issue()
        for _ in range(1000):
            try:
                assert (await ask(server.metrics_port, secret.trust()))[0] == 200
                break
            except aiohttp.ClientConnectorCertificateError:
                await asyncio.sleep(0.01)
        else:
            raise AssertionError("the old certificate is still served")


def broken(kind: str) -> tuple[bytes, bytes]:
    good, key = certificate()
    return {
        "another key": (good, certificate()[1]),
        "no certificate": (b"nonsense", key),
        "no key": (good, b""),
        "a key with a password": certificate(b"secret"),
    }[kind]


BROKEN = ("another key", "no certificate", "no key", "a key with a password")


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_pair_that_does_not_fit_leaves_the_one_that_is_served(
    secret: MountedSecret, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    followed = Certificate(secret.folder)
    async with serving(followed, OneReader()) as server:
        old = secret.trust()
        secret.mount(*broken(kind))
        for _ in range(3):
            followed.renew()
        assert await ask(server.metrics_port, old) == (200, PAGE)
        (record,) = caplog.records
        assert "stays as it was" in record.getMessage()
        secret.issue()
        followed.renew()
        assert await ask(server.metrics_port, secret.trust()) == (200, PAGE)


@pytest.mark.parametrize("kind", BROKEN)
def test_without_a_usable_certificate_the_operator_does_not_start(
    secret: MountedSecret, kind: str
) -> None:
    secret.mount(*broken(kind))
    with pytest.raises(SettingsError, match=r"--metrics-cert-path: no usable tls.crt and tls.key"):
        Certificate(secret.folder)


def test_a_folder_without_files_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=str(tmp_path)):
        Certificate(tmp_path)


async def test_handshakes_that_never_end_are_counted_and_closed(
    secret: MountedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(8)
    with caplog.at_level(logging.DEBUG):
        async with serving(Certificate(secret.folder), OneReader(), connections) as server:
            held = [
                await asyncio.open_connection("127.0.0.1", server.metrics_port) for _ in range(40)
            ]
            for number, (_, writer) in enumerate(held):
                # The head of a TLS record, or what speaks no TLS at all.
                writer.write(b"\x16\x03\x01" if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
            assert await ask(server.metrics_port, secret.trust()) == (200, PAGE)
            assert len(connections) <= 8
            assert len(connections) > 0
            reader, _ = held[1]
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1000)
            for _, writer in held:
                writer.close()
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_handshake_is_not_waited_for(secret: MountedSecret) -> None:
    connections = Connections(seconds=0.05)
    async with serving(Certificate(secret.folder), OneReader(), connections) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(b"\x16\x03\x01\x02\x00")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        for _ in range(1000):
            if not len(connections):
                break
            await asyncio.sleep(0.01)
        assert len(connections) == 0
        writer.close()


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    secret: MountedSecret,
) -> None:
    """A client of TLS 1.3 sends both in one go."""
    async with serving(Certificate(secret.folder), OneReader()) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = secret.trust().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        tls.write(GET)
        writer.write(outgoing.read())
        answer = b""
        while not answer.endswith(PAGE):
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(await reader.read(65536))
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_old_protocol_is_refused(secret: MountedSecret) -> None:
    assert Certificate(secret.folder).context.minimum_version == ssl.TLSVersion.TLSv1_2
