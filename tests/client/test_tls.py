"""
Tests of TLS over real sockets on loopback.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion

from tests.client.sessions import envelope
from twisted_smtpclient import (
    Content,
    DeliveryAgent,
    DeliveryResult,
    ResponseTimeout,
    Server,
    Timeouts,
    TLSFailed,
    TLSMode,
)
from twisted_smtpclient.client.tls import ClientTLS
from twisted_smtpclient.testing import Action, Fault, Sink, Stage, make_certificates

GOOD = make_certificates()
UNTRUSTED = make_certificates()
EXPIRED = make_certificates(expired=True)
WRONG_NAME = make_certificates(wrong_name=True)
#: 2 MB, of which each line begins with a dot.
LARGE = b".hello\r\n" * 262_144


class Post:
    """An agent and a sink on loopback."""

    def __init__(self, agent: DeliveryAgent, sink: Sink) -> None:
        self.agent = agent
        self.sink = sink

    async def deliver(self, message: bytes = b"x\r\n", **terms: Any) -> DeliveryResult:
        server = Server(**{"host": "localhost", "port": self.sink.port, **terms})
        return await self.agent.deliver(server, envelope(), Content(message))


@asynccontextmanager
async def loopback(
    trusted: Any = GOOD, *, listen: str = "tcp:0:interface=127.0.0.1", **sink: Any
) -> AsyncIterator[Post]:
    """They leave no socket and no delayed call behind."""
    from twisted.internet import reactor

    calls: Any = reactor
    before = set(calls.getDelayedCalls())
    server = Sink(reactor, **sink)
    await server.listen(listen)
    agent = DeliveryAgent(reactor, trust_root=trusted.trust_root())
    try:
        yield Post(agent, server)
    finally:
        await agent.close()
        await server.stop()
    assert server.open_sessions == []
    assert {call for call in calls.getDelayedCalls() if call.active()} <= before
    assert server.violations == []


def offering_at_most(version: int, mode: TLSMode) -> dict[str, Any]:
    """The same, of a server that knows TLS from 1.0 up to this version."""
    pair = PrivateCertificate.loadPEM(GOOD.key_pem + GOOD.certificate_pem)
    options = CertificateOptions(
        privateKey=pair.privateKey.original,
        certificate=pair.original,
        insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
    )
    with warnings.catch_warnings():
        # As in the making of the certificates' own contexts.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Without this OpenSSL has no cipher for TLS 1.1.
        context = options.getContext()
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        # Twisted's own bound leaves out the version itself, up to 24.3.
        context.set_max_proto_version(version)
    return {"implicit_tls" if mode is TLSMode.IMPLICIT else "starttls": options}


def offering(certificates: Any, mode: TLSMode) -> dict[str, Any]:
    """A sink's settings for STARTTLS, or for TLS from the first octet."""
    kind = "implicit_tls" if mode is TLSMode.IMPLICIT else "starttls"
    return {kind: certificates.server_context()}


VERIFIED = pytest.mark.parametrize("mode", [TLSMode.DEPEND, TLSMode.IMPLICIT])


@VERIFIED
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_verifies_lets_the_mail_through_octet_for_octet(mode: TLSMode) -> None:
    async with loopback(**offering(GOOD, mode)) as post:
        assert (await post.deliver(LARGE, tls=mode)).all_ok
        assert post.sink.mails[0].content == LARGE
        assert post.sink.mails[0].session.tls


@VERIFIED
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_may_bear_an_ip_address(mode: TLSMode, host: str) -> None:
    interface = host.replace(":", "\\:")
    async with loopback(listen=f"tcp:0:interface={interface}", **offering(GOOD, mode)) as post:
        assert (await post.deliver(host=host, tls=mode)).all_ok


@VERIFIED
@pytest_twisted.ensureDeferred
async def test_a_certificate_without_the_ip_address_is_refused(mode: TLSMode) -> None:
    named = make_certificates("localhost")
    async with loopback(named, **offering(named, mode)) as post:
        with pytest.raises(TLSFailed, match=r"it is not for 127\.0\.0\.1$"):
            await post.deliver(host="127.0.0.1", tls=mode)
        assert (await post.deliver(host="127.0.0.1", tls=mode, tls_name="localhost")).all_ok


@VERIFIED
@pytest.mark.parametrize(
    ("certificates", "trusted", "says"),
    [
        (UNTRUSTED, GOOD, "its authority is not trusted"),
        (EXPIRED, EXPIRED, "it has expired"),
        (WRONG_NAME, WRONG_NAME, "it is not for localhost"),
    ],
    ids=["untrusted", "expired", "wrong name"],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_does_not_verify_says_why(
    mode: TLSMode, certificates: Any, trusted: Any, says: str
) -> None:
    async with loopback(trusted, **offering(certificates, mode)) as post:
        with pytest.raises(TLSFailed, match=f"^the server's certificate does not verify: {says}$"):
            await post.deliver(tls=mode)
        assert post.sink.mail_count == 0


@pytest.mark.parametrize("certificates", [UNTRUSTED, EXPIRED, WRONG_NAME])
@pytest_twisted.ensureDeferred
async def test_tls_that_is_tried_needs_no_certificate_that_verifies(certificates: Any) -> None:
    async with loopback(starttls=certificates.server_context()) as post:
        assert (await post.deliver()).all_ok
        assert post.sink.mails[0].session.tls


@VERIFIED
@pytest_twisted.ensureDeferred
async def test_a_fingerprint_is_enough_and_another_is_refused(mode: TLSMode) -> None:
    async with loopback(**offering(WRONG_NAME, mode)) as post:
        assert (await post.deliver(tls=mode, tls_fingerprint=WRONG_NAME.fingerprint)).all_ok
        with pytest.raises(TLSFailed, match=f"its fingerprint is {WRONG_NAME.fingerprint}"):
            await post.deliver(tls=mode, tls_fingerprint=GOOD.fingerprint)


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
@pytest_twisted.ensureDeferred
async def test_a_server_that_closes_in_the_handshake_is_tried_in_clear(action: Action) -> None:
    fault = Fault(Stage.HANDSHAKE, action)
    async with loopback(starttls=GOOD.server_context(), faults=[fault]) as post:
        assert (await post.deliver(LARGE)).all_ok
        assert not post.sink.mails[0].session.tls
        assert post.sink.session_count == 2


@VERIFIED
@pytest_twisted.ensureDeferred
async def test_a_handshake_that_never_completes_ends_within_the_bound(mode: TLSMode) -> None:
    fault = Fault(Stage.HANDSHAKE, Action.STALL)
    async with loopback(faults=[fault], **offering(GOOD, mode)) as post:
        with pytest.raises(ResponseTimeout, match=r"^the TLS handshake was not complete within 0\.05 s$"):
            await post.deliver(tls=mode, timeouts=Timeouts.uniform(0.05))


@pytest_twisted.ensureDeferred
async def test_tls_works_over_a_unix_socket(tmp_path: Any) -> None:
    path = tmp_path / "socket"
    async with loopback(listen=f"unix:{path}", starttls=GOOD.server_context()) as post:
        server = Server(host=f"unix:{path}", tls=TLSMode.DEPEND, tls_name="localhost")
        assert (await post.agent.deliver(server, envelope(), Content(LARGE))).all_ok
        assert post.sink.mails[0].session.tls


def test_the_platforms_trust_roots_are_loaded_once() -> None:
    tls = ClientTLS()
    server = Server(host="localhost")
    assert tls.terms(server)._context is tls.terms(server)._context


def test_an_address_is_no_server_name_indication() -> None:
    # RFC 6066 section 3 has no place for it.
    nobody: Any = object()
    tls = ClientTLS(GOOD.trust_root())
    assert tls.terms(Server(host="localhost")).clientConnectionForTLS(nobody).get_servername() == b"localhost"
    assert tls.terms(Server(host="::1")).clientConnectionForTLS(nobody).get_servername() is None


@pytest_twisted.ensureDeferred
async def test_tls_that_is_tried_needs_no_name_on_a_unix_socket(tmp_path: Any) -> None:
    path = tmp_path / "socket"
    async with loopback(listen=f"unix:{path}", starttls=GOOD.server_context()) as post:
        assert (await post.agent.deliver(Server(host=f"unix:{path}"), envelope(), Content(LARGE))).all_ok
        assert post.sink.mails[0].session.tls


@VERIFIED
@pytest_twisted.ensureDeferred
async def test_tls_older_than_1_2_is_refused(mode: TLSMode) -> None:
    async with loopback(**offering_at_most(SSL.TLS1_2_VERSION, mode)) as post:
        assert (await post.deliver(tls=mode)).all_ok
    async with loopback(**offering_at_most(SSL.TLS1_1_VERSION, mode)) as post:
        with pytest.raises(TLSFailed, match="handshake failed"):
            await post.deliver(tls=mode)
        assert post.sink.mails == []
