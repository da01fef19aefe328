"""
Tests of listening with TLS, with and without certificates of the clients'.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    connectProtocol,
    quoteStringArgument,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import PrivateCertificate, optionsForClientTLS
from twisted.plugin import getPlugins
from twisted.python.failure import Failure

from tests.gateway.fakes import FakeAgent, line
from twisted_smtpclient.gateway.token import Tokens
from twisted_smtpclient.service import Daemon
from twisted_smtpclient.testing.certificates import Certificates, make_certificates

OURS = make_certificates("localhost")
OTHERS = make_certificates("localhost")


class Client(Protocol):
    """Asks once, and keeps what it is answered."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.answered: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)  # type: ignore[union-attr]  # it is connected

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.count(b"\n") == self.request.count(b"\n") and not self.answered.called:
            self.answered.callback(self.received)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if not self.answered.called:
            self.answered.errback(reason)


class Files:
    """The certificates of a daemon, as PEM files."""

    def __init__(self, folder: Path, certificates: Certificates = OURS) -> None:
        self.folder = folder
        self.key = self.write("key.pem", certificates.key_pem)
        self.certificate = self.write("certificate.pem", certificates.certificate_pem)
        self.both = self.write("both.pem", certificates.key_pem + certificates.certificate_pem)
        self.authority = self.write("authority.pem", certificates.authority_pem)

    def write(self, name: str, octets: bytes) -> str:
        path = self.folder / name
        path.write_bytes(octets)
        return str(path)


@asynccontextmanager
async def listening(endpoint: str, **options: Any) -> AsyncIterator[Callable[..., Awaitable[bytes]]]:
    """A daemon on an endpoint; gives what asks it, as a client with or without a certificate."""
    agent = FakeAgent()
    agent.at_once = True
    daemon = Daemon(reactor, agent, [serverFromString(reactor, endpoint)], drain_timeout=1, **options)
    daemon.startService()
    address: Any = daemon.ports[0].getHost()

    async def ask(certificate: PrivateCertificate | None = None, *, request: bytes = b"") -> bytes:
        terms = optionsForClientTLS("localhost", trustRoot=OURS.trust_root(), clientCertificate=certificate)
        tcp = HostnameEndpoint(reactor, "127.0.0.1", address.port)
        client = Client(request or line(id=1) + b"\n")
        await connectProtocol(wrapClientTLS(terms, tcp), client)
        received = await client.answered
        client.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
        return received

    try:
        yield ask
    finally:
        await daemon.stopService()


def mtls(files: Files, *more: str) -> str:
    return ":".join(
        [
            "mtls:0:interface=127.0.0.1",
            f"privateKey={files.key}",
            f"certKey={files.certificate}",
            f"clientCA={files.authority}",
            *more,
        ]
    )


@pytest_twisted.ensureDeferred
async def test_twisted_s_own_tls_will_do_where_no_certificate_is_asked_for(tmp_path: Path) -> None:
    files = Files(tmp_path)
    own = f"ssl:0:interface=127.0.0.1:privateKey={files.key}:certKey={files.certificate}"
    async with listening(own) as ask:
        assert json.loads(await ask())["status"] == "ok"


@pytest_twisted.ensureDeferred
async def test_a_client_with_a_certificate_of_the_authority_is_served(tmp_path: Path) -> None:
    async with listening(mtls(Files(tmp_path))) as ask:
        assert json.loads(await ask(OURS.client_certificate()))["status"] == "ok"


@pytest.mark.parametrize(
    "certificate", [None, OTHERS.client_certificate()], ids=["none", "another authority's"]
)
@pytest_twisted.ensureDeferred
async def test_a_client_without_one_is_not(certificate: PrivateCertificate | None, tmp_path: Path) -> None:
    async with listening(mtls(Files(tmp_path))) as ask:
        with pytest.raises((SSL.Error, ConnectionError, Exception)) as caught:
            await ask(certificate)
        assert "certificate" in repr(caught.value) or "unknown ca" in repr(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_servers_is_none_for_clients(tmp_path: Path) -> None:
    files = Files(tmp_path)
    server_s = PrivateCertificate.loadPEM(OURS.key_pem + OURS.certificate_pem)
    async with listening(mtls(files)) as ask:
        with pytest.raises(Exception, match=r"certificate|alert"):
            await ask(server_s)


@pytest_twisted.ensureDeferred
async def test_one_file_may_hold_key_and_certificate_and_another_many_authorities(tmp_path: Path) -> None:
    files = Files(tmp_path)
    authorities = files.write("authorities.pem", OTHERS.authority_pem + OURS.authority_pem)
    endpoint = f"mtls:port=0:interface=127.0.0.1:privateKey={files.both}:clientCA={authorities}"
    async with listening(f"{endpoint}:extraCertChain={files.authority}:backlog=5") as ask:
        for certificates in (OURS, OTHERS):
            assert json.loads(await ask(certificates.client_certificate()))["status"] == "ok"


@pytest_twisted.ensureDeferred
async def test_a_token_is_asked_for_over_tls_too(tmp_path: Path) -> None:
    files = Files(tmp_path)
    tokens = Tokens(files.write("tokens", b"secret\n"))
    async with listening(mtls(files), tokens=tokens, max_clients=1) as ask:
        certificate = OURS.client_certificate()
        received = await ask(certificate, request=b'{"token": "guess", "id": 1}\n')
        assert json.loads(received)["error"] == "NotAllowed"
        received = await ask(certificate, request=b'{"token": "secret"}\n' + line(id=1) + b"\n")
        assert [json.loads(each)["status"] for each in received.splitlines()] == ["ok", "ok"]


def test_a_path_with_a_colon_is_quoted_as_in_every_endpoint_string(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    files = Files(folder)
    assert serverFromString(
        reactor,
        f"mtls:0:privateKey={quoteStringArgument(files.both)}:clientCA={quoteStringArgument(files.authority)}",
    )


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [
        ("mtls:0:privateKey={both}", "clientCA"),
        ("mtls:0:clientCA={authority}", "privateKey"),
        ("mtls:0:privateKey={both}:clientCA={key}", "no certificate in"),
        ("mtls:0:privateKey={both}:clientCA=/does/not/exist.pem", "No such file"),
        ("mtls:0:privateKey=/does/not/exist.pem:clientCA={authority}", "No such file"),
        ("mtls:x:privateKey={both}:clientCA={authority}", "invalid literal"),
        ("mtls:0:privateKey={both}:clientCA={authority}:sslmethod=x", "sslmethod"),
    ],
)
def test_what_is_missing_or_wrong_is_told_before_it_listens(
    endpoint: str, error: str, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    with pytest.raises((TypeError, ValueError, OSError), match=error):
        serverFromString(reactor, endpoint.format(**vars(files)))


def test_it_is_a_plugin_of_twisted_s() -> None:
    assert [each.prefix for each in getPlugins(IStreamServerEndpointStringParser)].count("mtls") == 1
