"""The throw-away certificates, held against OpenSSL's own verification."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from twisted_smtpclient.testing import Sink, make_certificates

reactor: Any = installed


class Greeted(Protocol):
    def __init__(self) -> None:
        self.outcome: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        outcome, self.outcome = self.outcome, Deferred()
        outcome.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.outcome.errback(reason)
        self.outcome.addErrback(lambda _: None)


async def greeting_of(name: str) -> bytes:
    certificates = make_certificates()
    sink = Sink(reactor, implicit_tls=certificates.server_context())
    await sink.listen()
    endpoint = wrapClientTLS(
        optionsForClientTLS(name, trustRoot=certificates.trust_root()),
        HostnameEndpoint(reactor, b"127.0.0.1", sink.port),
    )
    try:
        protocol = await connectProtocol(endpoint, Greeted())
        greeting: bytes = await protocol.outcome
        return greeting
    finally:
        await sink.stop()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_trusts_the_authority_is_greeted(name: str) -> None:
    assert (await greeting_of(name)).startswith(b"220 ")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("expired", "certificate has expired"),
        ("wrong_name", "Hostname mismatch"),
        ("self_signed", "self.signed certificate"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_wrong_does_not_verify(option: str, told: str) -> None:
    options: dict[str, Any] = {option: True}
    certificates = make_certificates(**options)
    sink = Sink(reactor, implicit_tls=certificates.server_context())
    await sink.listen()
    context = ssl.create_default_context(cadata=certificates.authority_pem.decode())

    def shake_hands() -> None:
        with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as connection:
            context.wrap_socket(connection, server_hostname="localhost")

    with pytest.raises(ssl.SSLCertVerificationError, match=told):
        await deferToThread(shake_hands)
    await sink.stop()
    assert sink.mails == []


def test_the_fingerprint_is_of_the_servers_certificate() -> None:
    certificates = make_certificates("mx.example", "192.0.2.1")
    der = ssl.PEM_cert_to_DER_cert(certificates.certificate_pem.decode())
    assert certificates.fingerprint == f"sha256:{hashlib.sha256(der).hexdigest()}"
    assert certificates.fingerprint != make_certificates("mx.example", "192.0.2.1").fingerprint


def test_the_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(make_certificates())
