"""Logging in to the sink under TLS, in memory: what is offered there, channel binding, and certificates."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

import pytest
from OpenSSL import SSL
from scramp import ScramClient
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion, optionsForClientTLS

from tests.client.memory import End, Network
from tests.testing.logging_in import TOKENS, USERS, Client, encoded, log_in, scram
from twisted_smtpclient.testing import Fault, Session, Sink, make_certificates

CERTIFICATES = make_certificates("mx.example", client="anna")


class Raw(Protocol):
    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


class Secured:
    """A session with a sink, past STARTTLS and the EHLO behind it."""

    def __init__(self, context: Any = None, *, with_certificate: bool = False, **settings: Any) -> None:
        self.network = Network()
        verified = CERTIFICATES.server_context(client_certificates=with_certificate)
        self.sink = Sink(self.network, **{"users": USERS, "starttls": verified, **settings})
        self.raw = Raw()
        self.end: End = self.network.join(self.raw, self.sink.buildProtocol(None))
        self.network.settle()
        self.session: Session = self.sink.sessions[0]
        self.hello_in_clear = self.send(b"EHLO x\r\n").decode()
        assert self.send(b"STARTTLS\r\n").startswith(b"220 ")
        self.end.startTLS(context or client_context(with_certificate))
        self.network.settle()
        self.hello = self.send(b"EHLO x\r\n").decode()

    def send(self, octets: bytes) -> bytes:
        self.raw.heard = b""
        self.end.write(octets)
        self.network.settle()
        return self.raw.heard

    @property
    def offered(self) -> list[str]:
        (line,) = [line for line in self.hello.splitlines() if line[4:].startswith("AUTH ")]
        return line[9:].split()


def at_most_1_2() -> TLSVersion:
    """Twisted's bound for TLS 1.2; up to 24.3 it left out the version itself."""
    # Its types say that this returns nothing; it is what is set.
    context: Any = CertificateOptions(lowerMaximumSecurityTo=TLSVersion.TLSv1_2).getContext()
    left_out = context.set_options(0) & SSL.OP_NO_TLSv1_2
    most: TLSVersion = TLSVersion.TLSv1_3 if left_out else TLSVersion.TLSv1_2
    return most


def client_context(with_certificate: bool = False, most: TLSVersion | None = None) -> Any:
    certificate = CERTIFICATES.client_certificate() if with_certificate else None
    return optionsForClientTLS(
        "mx.example",
        trustRoot=CERTIFICATES.trust_root(),
        clientCertificate=certificate,
        extraCertificateOptions={} if most is None else {"lowerMaximumSecurityTo": most},
    )


def test_tls_adds_channel_binding_to_what_is_offered() -> None:
    assert Secured().offered == [
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]
    assert Secured(channel_bindings=[]).offered[0] == "SCRAM-SHA-256"
    # Nothing before TLS, and the rest behind it.
    secured = Secured(tokens=TOKENS, mechanisms=["XOAUTH2"], mechanisms_in_clear=[])
    assert secured.offered == ["XOAUTH2"]


def end_point() -> tuple[str, bytes]:
    der = ssl.PEM_cert_to_DER_cert(CERTIFICATES.certificate_pem.decode())
    return "tls-server-end-point", hashlib.sha256(der).digest()


@pytest.mark.parametrize("name", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"])
def test_a_login_that_is_bound_to_the_servers_certificate(name: str) -> None:
    secured = Secured()
    reply = log_in(secured.send, name, scram(name, end_point())("anna", USERS["anna"]))
    assert reply.startswith(b"235 ")
    assert secured.session.login == ("anna", name)
    assert secured.session.violations == []


@pytest.mark.parametrize("binding", [("tls-server-end-point", b"x" * 32), ("tls-unique", b"x" * 12)])
def test_somebody_in_between_is_found_out(binding: tuple[str, bytes]) -> None:
    secured = Secured()
    client = scram("SCRAM-SHA-256-PLUS", binding)("anna", USERS["anna"])
    assert log_in(secured.send, "SCRAM-SHA-256-PLUS", client).startswith(b"535 ")
    assert secured.session.login is None


def bound_by(kind: str, data: bytes) -> Client:
    """By any kind: scramp knows no tls-exporter."""
    client: Any = ScramClient(
        ["SCRAM-SHA-256-PLUS"], "anna", USERS["anna"], channel_binding=("tls-unique", data)
    )
    client.gs2_header.cb_name = kind
    client.set_server_first((yield client.get_client_first().encode()).decode())
    client.set_server_final((yield client.get_client_final().encode()).decode())
    yield b""


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_login_that_is_bound_to_the_connection(version: str, right: bool) -> None:
    secured = Secured(None if version == "TLSv1.3" else client_context(most=at_most_1_2()))
    connection = secured.end.getHandle()
    assert connection.get_protocol_version_name() == version
    if version == "TLSv1.3":
        kind = "tls-exporter"
        data = bytes(connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""))
    else:
        kind, data = "tls-unique", connection.get_finished()
    reply = log_in(secured.send, "SCRAM-SHA-256-PLUS", bound_by(kind, data if right else b"x" * 32))
    assert reply.startswith(b"235 ") is right
    assert secured.session.violations == []


def test_only_the_kinds_that_it_was_given_will_do() -> None:
    secured = Secured(channel_bindings=["tls-exporter"])
    client = scram("SCRAM-SHA-256-PLUS", end_point())("anna", USERS["anna"])
    assert log_in(secured.send, "SCRAM-SHA-256-PLUS", client).startswith(b"535 ")
    # No data of a TLS version that is not spoken.
    assert Secured(channel_bindings=["tls-unique"]).offered[0] == "SCRAM-SHA-256"
    secured = Secured(client_context(most=at_most_1_2()), channel_bindings=["tls-exporter"])
    assert secured.offered[0] == "SCRAM-SHA-256"


def test_a_flag_that_says_y_where_plus_was_offered() -> None:
    secured = Secured()
    first = encoded(b"y,,n=anna,r=abcdef")
    assert secured.send(b"AUTH SCRAM-SHA-256 " + first + b"\r\n").startswith(b"535 ")
    assert secured.session.violations == [
        "SCRAM-SHA-256: the flag says that SCRAM-SHA-256-PLUS was not offered"
    ]
    # "n" is a client that cannot bind.
    reply = log_in(secured.send, "SCRAM-SHA-256", scram("SCRAM-SHA-256")("anna", USERS["anna"]))
    assert reply.startswith(b"235 ")


def test_an_offer_that_was_hidden_from_the_client_is_found_out_and_nobodys_fault() -> None:
    hidden = Fault("EHLO", "REPLY", lambda own: own.replace(b"-PLUS", b"-PLUX"), nth=2)
    secured = Secured(faults=[hidden])
    first = encoded(b"y,,n=anna,r=abcdef")
    assert secured.send(b"AUTH SCRAM-SHA-256 " + first + b"\r\n").startswith(b"535 ")
    assert secured.session.violations == []


def test_a_certificate_logs_in_whom_it_is_for() -> None:
    secured = Secured(with_certificate=True)
    assert secured.offered[-1] == "EXTERNAL"
    assert secured.send(b"AUTH EXTERNAL =\r\n").startswith(b"235 ")
    assert secured.session.login == ("anna", "EXTERNAL")


def test_a_certificate_logs_in_nobody_else() -> None:
    secured = Secured(with_certificate=True, users={}, mechanisms=["EXTERNAL"])
    assert secured.offered == ["EXTERNAL"]
    assert secured.send(b"AUTH EXTERNAL " + encoded(b"olga") + b"\r\n").startswith(b"535 ")
    assert secured.send(b"AUTH EXTERNAL " + encoded(b"anna") + b"\r\n").startswith(b"235 ")


def test_without_a_certificate_there_is_no_external() -> None:
    secured = Secured()
    assert "EXTERNAL" not in secured.offered
    assert secured.send(b"AUTH EXTERNAL =\r\n").startswith(b"538 ")


def test_a_client_that_has_to_show_a_certificate_and_has_none_gets_no_tls() -> None:
    network = Network()
    sink = Sink(network, implicit_tls=CERTIFICATES.server_context(client_certificates=True))
    raw = Raw()
    factory: Any = sink.factory
    end = network.join(raw, factory.buildProtocol(None))
    end.startTLS(client_context())
    network.settle()
    assert raw.heard == b""


def test_what_was_before_tls_is_forgotten() -> None:
    network = Network()
    sink = Sink(network, users=USERS, starttls=CERTIFICATES.server_context())
    raw = Raw()
    end = network.join(raw, sink.buildProtocol(None))

    def send(octets: bytes) -> bytes:
        raw.heard = b""
        end.write(octets)
        network.settle()
        return raw.heard

    send(b"EHLO x\r\n")
    assert send(b"AUTH PLAIN " + encoded(b"\0olga\0other") + b"\r\n").startswith(b"235 ")
    assert sink.sessions[0].login == ("olga", "PLAIN")
    send(b"STARTTLS\r\n")
    end.startTLS(client_context())
    send(b"EHLO x\r\n")
    assert sink.sessions[0].login is None
    assert send(b"MAIL FROM:<>\r\n").startswith(b"530 ")


def test_requiretls_is_offered_and_taken_under_tls_alone() -> None:
    secured = Secured(users={}, requiretls=True)
    assert "REQUIRETLS" in secured.hello
    assert "REQUIRETLS" not in secured.hello_in_clear
    assert secured.send(b"MAIL FROM:<> REQUIRETLS\r\n").startswith(b"250 ")
    assert secured.session.violations == []
