"""
Tests of STARTTLS on a session: what is believed, and what happens when it fails.

The TLS here is the real one, over memory; loopback has its turn in test_tls.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, MESSAGE, Post, Session, envelope, terms
from twisted_smtpclient import (
    ConnectionLost,
    Content,
    ExtensionUnsupported,
    InternalError,
    PipeliningESMTPClient,
    ProtocolError,
    Refused,
    ResponseTimeout,
    ShuttingDown,
    Timeouts,
    TLSFailed,
    TLSMode,
)
from twisted_smtpclient.client.tls import ClientTLS
from twisted_smtpclient.testing import Action, Fault, Stage, make_certificates

CERTIFICATES = make_certificates(HOST, "localhost", "127.0.0.1", "::1")
UNTRUSTED = make_certificates(HOST)
OFFER = (b"PIPELINING", b"CHUNKING", b"STARTTLS")
GREETING = b"220 server.example ESMTP"


def secure_session(mode: TLSMode = TLSMode.DEPEND, **options: Any) -> Session:
    server = terms(helo="me.example", tls=mode, timeouts=Timeouts.uniform(10))
    return Session(server, tls=ClientTLS(CERTIFICATES.trust_root()).terms(server), **options)


def post(certificates: Any = CERTIFICATES, **sink: Any) -> Post:
    """An agent that trusts one authority, and a sink that offers STARTTLS."""
    trust = {"trust_root": CERTIFICATES.trust_root()}
    return Post(agent=trust, starttls=certificates.server_context(), **sink)


# What is said behind the 220, in clear.


@pytest.mark.parametrize("mode", [TLSMode.TRY, TLSMode.DEPEND])
@pytest.mark.parametrize(
    "injected",
    [
        b"250 evil.example\r\n",
        b"250-evil.example\r\n250 AUTH PLAIN\r\n",
        b"250 evil.example\r\n250 ok\r\n250 ok\r\n250 queued\r\n",
        b"421 go away\r\n",
        b"220 ready again\r\n",
        b"2",
        b"250-evil.example",
        b"\r",
        b"\n",
        b"\x00",
        b"garbage\r\n",
        b"\x16\x03\x03",
    ],
)
def test_octets_behind_the_220_to_starttls_end_the_session_before_tls_begins(
    mode: TLSMode, injected: bytes
) -> None:
    session = secure_session(mode)
    _, outcome = session.deliver()
    assert session.open(*OFFER) == b"STARTTLS\r\n"
    session.send(b"220 go ahead\r\n" + injected)
    assert session.end.tls_begun == 0
    assert session.end.writes == [b"EHLO me.example\r\n", b"STARTTLS\r\n"]
    assert type(outcome.error) is ProtocolError
    assert not session.client.tls_was_at_fault
    assert not session.client.tlsMode
    assert session.over


@pytest.mark.parametrize("injected", [b"250 evil.example\r\n", b"421 go away\r\n", b"25"])
@pytest.mark.parametrize("mode", [TLSMode.TRY, TLSMode.DEPEND])
def test_an_injection_is_not_followed_by_a_connection_in_clear(mode: TLSMode, injected: bytes) -> None:
    here = post(faults=[Fault(Stage.STARTTLS, Action.INJECT, injected, nth=None)])
    assert type(here.delivered(tls=mode, bound=30).error) is ProtocolError
    assert len(here.network.ends) == 1
    assert here.sink.mail_count == 0
    here.close()


def test_starttls_answered_octet_by_octet_begins_tls_behind_the_last() -> None:
    session = secure_session()
    session.open(*OFFER)
    session.octet_by_octet(b"220-go", b"220 ahead")
    assert session.end.tls_begun == 1
    # A ClientHello, and no EHLO before the handshake is complete.
    assert session.script.all.endswith(session.end.sent[len(b"EHLO me.example\r\nSTARTTLS\r\n") :])
    assert session.end.sent[len(b"EHLO me.example\r\nSTARTTLS\r\n")] == 0x16
    assert session.end.writes == [b"EHLO me.example\r\n", b"STARTTLS\r\n"]


@pytest.mark.parametrize("octets", [b"250 evil.example\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_octets_in_clear_in_the_handshake_are_not_believed(octets: bytes) -> None:
    session = secure_session()
    _, outcome = session.deliver()
    session.open(*OFFER)
    session.say(b"220 go ahead")
    session.send(octets)
    assert isinstance(outcome.error, TLSFailed)
    assert str(outcome.error).startswith("the TLS handshake failed")
    assert session.over


def test_another_success_than_220_to_starttls_is_a_protocol_error() -> None:
    session = secure_session(TLSMode.TRY)
    session.open(*OFFER)
    session.say(b"250 fine")
    assert type(session.ready.error) is ProtocolError
    assert session.end.tls_begun == 0
    assert session.over


@pytest.mark.parametrize("offer", [b"starttls", b"StartTLS", b"STARTTLS"])
def test_starttls_is_known_however_it_is_spelt(offer: bytes) -> None:
    assert secure_session().open(offer) == b"STARTTLS\r\n"


# What is believed after it.


def test_only_the_ehlo_reply_behind_tls_is_believed() -> None:
    here = post(
        chunking=False,
        faults=[Fault(Stage.EHLO, Action.REPLY, b"250-x\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 SIZE 1\r\n")],
    )
    assert here.delivered(tls=TLSMode.DEPEND).value.all_ok
    (mail,) = here.sink.mails
    assert mail.via == "DATA"
    assert mail.session.tls
    assert [command[:4] for command in here.sink.commands].count(b"EHLO") == 2
    assert here.sink.violations == []
    here.close()


def test_an_offer_of_starttls_behind_tls_is_not_taken_up() -> None:
    reply = b"250-x\r\n250 STARTTLS\r\n"
    here = post(faults=[Fault(Stage.EHLO, Action.REPLY, reply, nth=2)])
    assert here.delivered(tls=TLSMode.DEPEND).value.all_ok
    assert here.sink.commands.count(b"STARTTLS") == 1
    here.close()


def test_helo_does_not_follow_behind_tls() -> None:
    here = post(faults=[Fault(Stage.EHLO, Action.REPLY, b"502 what?\r\n", nth=2)])
    error = here.delivered(tls=TLSMode.DEPEND).error
    assert isinstance(error, Refused)
    assert (error.command, error.code) == ("EHLO", 502)
    assert b"HELO" not in b"".join(here.sink.commands)
    here.close()


def test_tls_mode_is_told_once_the_handshake_is_complete() -> None:
    here = post()
    sessions: list[PipeliningESMTPClient] = []
    client = PipeliningESMTPClient(
        server=terms(tls=TLSMode.DEPEND),
        reactor=here.network,
        tls=ClientTLS(CERTIFICATES.trust_root()).terms(terms(tls=TLSMode.DEPEND)),
    )
    assert not client.tlsMode
    client.when_ready().addCallback(sessions.append)
    here.network.join(client, here.sink.buildProtocol(None))
    assert not client.tlsMode
    here.network.settle()
    assert sessions == [client]
    assert client.tlsMode
    client.finish()
    here.network.elapse(5)
    here.network.assert_nothing_is_left()


def test_a_flight_for_starttls_and_the_second_ehlo_is_all_that_tls_costs() -> None:
    here = post()
    assert here.delivered(tls=TLSMode.DEPEND).value.all_ok
    assert here.sink.flights == 4
    here.close()


def test_large_content_goes_through_tls_octet_for_octet() -> None:
    here = post()
    message = b".x\r\n" * 500_000
    assert here.delivered(tls=TLSMode.DEPEND, message=message).value.all_ok
    assert here.sink.mails[0].content == message
    here.close()


# NO, TRY, DEPEND.


def test_without_tls_starttls_is_never_said() -> None:
    here = post()
    assert here.delivered(tls=TLSMode.NO).value.all_ok
    assert b"STARTTLS" not in here.sink.commands
    here.close()


@pytest.mark.parametrize(
    "certificates",
    [CERTIFICATES, UNTRUSTED, make_certificates(expired=True), make_certificates(self_signed=True)],
)
def test_tls_that_is_tried_takes_any_certificate(certificates: Any) -> None:
    here = post(certificates)
    assert here.delivered(tls=TLSMode.TRY).value.all_ok
    assert here.sink.mails[0].session.tls
    here.close()


def test_tls_that_is_tried_and_not_offered_goes_in_clear() -> None:
    here = Post()
    assert here.delivered(tls=TLSMode.TRY).value.all_ok
    assert not here.sink.mails[0].session.tls
    here.close()


def test_tls_that_is_depended_on_and_not_offered_sends_nothing() -> None:
    here = Post()
    error = here.delivered(tls=TLSMode.DEPEND).error
    assert isinstance(error, ExtensionUnsupported)
    assert str(error) == "the server does not offer STARTTLS, and tls is DEPEND"
    assert not error.temporary
    assert [command[:4] for command in here.sink.commands] == [b"EHLO", b"QUIT"]
    here.close()


def test_tls_that_is_depended_on_does_not_fall_back_to_helo() -> None:
    here = Post(esmtp=False)
    assert isinstance(here.delivered(tls=TLSMode.DEPEND).error, ExtensionUnsupported)
    assert [command[:4] for command in here.sink.commands] == [b"EHLO", b"QUIT"]
    here.close()


@pytest.mark.parametrize("code", [454, 501, 554])
def test_starttls_that_is_refused_goes_on_in_clear_on_the_same_connection(code: int) -> None:
    here = post(faults=[Fault(Stage.STARTTLS, Action.REPLY, b"%d no\r\n" % code)])
    assert here.delivered(tls=TLSMode.TRY).value.all_ok
    assert len(here.network.ends) == 1
    assert not here.sink.mails[0].session.tls
    here.close()


@pytest.mark.parametrize(
    ("stage", "action", "options"),
    [
        (Stage.STARTTLS, Action.REPLY_AND_CLOSE, {"reply": b"421 no\r\n"}),
        (Stage.STARTTLS, Action.CLOSE, {}),
        (Stage.STARTTLS, Action.RESET, {}),
        (Stage.STARTTLS, Action.STALL, {}),
        (Stage.HANDSHAKE, Action.CLOSE, {}),
        (Stage.HANDSHAKE, Action.RESET, {}),
        (Stage.HANDSHAKE, Action.STALL, {}),
        (Stage.HANDSHAKE, Action.REPLY, {"reply": b"454 TLS not available\r\n"}),
        (Stage.HANDSHAKE, Action.REPLY, {"reply": b"\x15\x03\x03\x00\x02\x02\x28"}),
    ],
    ids=str,
)
def test_starttls_that_fails_where_it_is_tried_goes_in_clear_on_a_new_connection(
    stage: Stage, action: Action, options: dict[str, Any]
) -> None:
    here = post(faults=[Fault(stage, action, **options)])
    outcome = here.delivered(tls=TLSMode.TRY, timeouts=Timeouts.uniform(10), bound=11)
    assert outcome.value.all_ok
    assert len(here.network.ends) == 2
    assert not here.network.ends[0].connected
    (mail,) = here.sink.mails
    assert not mail.session.tls
    assert mail.content == MESSAGE
    here.close()


@pytest.mark.parametrize(
    ("stage", "action", "options", "error", "says"),
    [
        (
            Stage.STARTTLS,
            Action.REPLY,
            {"reply": b"454 not now\r\n"},
            Refused,
            "STARTTLS refused: 454 not now",
        ),
        (
            Stage.STARTTLS,
            Action.REPLY_AND_CLOSE,
            {"reply": b"421 no\r\n"},
            Refused,
            "STARTTLS refused: 421 no",
        ),
        (Stage.STARTTLS, Action.CLOSE, {}, ConnectionLost, "connection lost, no reply to STARTTLS"),
        (Stage.STARTTLS, Action.STALL, {}, ResponseTimeout, "no reply to STARTTLS within 10 s"),
        (Stage.HANDSHAKE, Action.CLOSE, {}, ConnectionLost, "connection lost in the TLS handshake"),
        (Stage.HANDSHAKE, Action.RESET, {}, ConnectionLost, "connection lost in the TLS handshake"),
        (
            Stage.HANDSHAKE,
            Action.STALL,
            {},
            ResponseTimeout,
            "the TLS handshake was not complete within 10 s",
        ),
        (Stage.HANDSHAKE, Action.REPLY, {"reply": b"454 no\r\n"}, TLSFailed, "the TLS handshake failed"),
    ],
    ids=str,
)
def test_starttls_that_fails_where_it_is_depended_on_is_the_error(
    stage: Stage, action: Action, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    here = post(faults=[Fault(stage, action, nth=None, **options)])
    outcome = here.delivered(tls=TLSMode.DEPEND, timeouts=Timeouts.uniform(10), bound=10)
    assert type(outcome.error) is error
    assert str(outcome.error).startswith(says)
    assert len(here.network.ends) == 1
    here.close()


@pytest.mark.parametrize("stage", [Stage.STARTTLS, Stage.HANDSHAKE])
def test_an_agent_that_is_closed_in_between_goes_nowhere_in_clear(stage: Stage) -> None:
    here = post(faults=[Fault(stage, Action.STALL)])
    outcome = Outcome(here.deliver(tls=TLSMode.TRY))
    here.network.settle()
    here.close()
    assert isinstance(outcome.error, ShuttingDown)
    assert len(here.network.attempts) == 1
    assert here.sink.mails == []


def test_a_handshake_that_trickles_does_not_move_the_timer() -> None:
    # The head of a record of 16 KiB, and its octets one by one.
    slowly = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(100)
    here = post(faults=[Fault(Stage.HANDSHAKE, Action.TRICKLE, slowly)])
    outcome = here.delivered(tls=TLSMode.DEPEND, timeouts=Timeouts.uniform(10), bound=10)
    assert isinstance(outcome.error, ResponseTimeout)
    assert outcome.seconds == 10
    here.close()


# Certificates.


@pytest.mark.parametrize(
    ("certificates", "says"),
    [
        (UNTRUSTED, "its authority is not trusted"),
        (make_certificates(HOST, self_signed=True), "it is self-signed"),
    ],
    ids=["untrusted", "self-signed"],
)
def test_a_certificate_that_nobody_trusts_is_refused(certificates: Any, says: str) -> None:
    here = post(certificates)
    error = here.delivered(tls=TLSMode.DEPEND).error
    assert isinstance(error, TLSFailed)
    assert str(error) == f"the server's certificate does not verify: {says}"
    assert not error.temporary
    assert here.sink.mail_count == 0
    assert here.sink.commands[1:] == [b"STARTTLS"]
    here.close()


def test_an_expired_certificate_is_refused_and_told_as_such() -> None:
    expired = make_certificates(HOST, expired=True)
    here = Post(agent={"trust_root": expired.trust_root()}, starttls=expired.server_context())
    error = here.delivered(tls=TLSMode.DEPEND).error
    assert isinstance(error, TLSFailed)
    assert str(error) == "the server's certificate does not verify: it has expired"
    here.close()


@pytest.mark.parametrize("tls_name", [None, "mx.example.org", "192.0.2.99", "2001:db8::1"])
def test_a_certificate_for_another_name_is_refused_and_told_as_such(tls_name: str | None) -> None:
    wrong = make_certificates(wrong_name=True)
    here = Post(agent={"trust_root": wrong.trust_root()}, starttls=wrong.server_context())
    error = here.delivered(tls=TLSMode.DEPEND, tls_name=tls_name).error
    assert isinstance(error, TLSFailed)
    assert str(error) == f"the server's certificate does not verify: it is not for {tls_name or HOST}"
    # It was judged before EHLO was said a second time.
    assert [command[:4] for command in here.sink.commands] == [b"EHLO", b"STAR"]
    here.close()


@pytest.mark.parametrize("tls_name", ["wrong.invalid", "WRONG.invalid", "wrong.invalid."])
def test_a_certificate_is_held_against_the_name_in_the_terms(tls_name: str) -> None:
    wrong = make_certificates(wrong_name=True)
    here = Post(agent={"trust_root": wrong.trust_root()}, starttls=wrong.server_context())
    assert here.delivered(tls=TLSMode.DEPEND, tls_name=tls_name).value.all_ok
    here.close()


def test_a_fingerprint_stands_for_chain_and_name() -> None:
    other = make_certificates(wrong_name=True, expired=True)
    here = post(other)
    outcome = here.delivered(
        tls=TLSMode.DEPEND, tls_fingerprint=other.fingerprint.upper().replace("SHA", "sha")
    )
    assert outcome.value.all_ok
    here.close()


def test_another_fingerprint_is_refused_although_chain_and_name_are_in_order() -> None:
    here = post()
    error = here.delivered(tls=TLSMode.DEPEND, tls_fingerprint="sha256:" + "0" * 64).error
    assert isinstance(error, TLSFailed)
    assert str(error) == (
        f"the server's certificate does not verify: its fingerprint is {CERTIFICATES.fingerprint}"
    )
    here.close()


def test_a_fingerprint_is_not_held_against_a_server_where_tls_is_only_tried() -> None:
    here = post()
    assert here.delivered(tls=TLSMode.TRY, tls_fingerprint="sha256:" + "0" * 64).value.all_ok
    assert here.sink.mails[0].session.tls
    here.close()


@pytest.mark.parametrize(
    ("certificates", "verified"),
    [(CERTIFICATES, True), (UNTRUSTED, False), (make_certificates(wrong_name=True), False)],
)
def test_whether_the_certificate_verified_is_known_although_it_need_not(
    certificates: Any, verified: bool
) -> None:
    here = post(certificates)
    server = terms(tls=TLSMode.TRY)
    tls = ClientTLS(CERTIFICATES.trust_root()).terms(server)
    assert not tls.verified
    client = PipeliningESMTPClient(server=server, reactor=here.network, tls=tls)
    ready = Outcome(client.when_ready())
    here.network.join(client, here.sink.buildProtocol(None))
    here.network.settle()
    assert ready.value.tlsMode
    assert tls.verified is verified
    client.finish()
    here.network.elapse(5)


def test_a_context_factory_of_the_users_decides_what_it_accepts() -> None:
    here = post(UNTRUSTED)
    client = PipeliningESMTPClient(None, CertificateOptions(), b"me.example", reactor=here.network)
    client.requireTransportSecurity = True
    outcome = Outcome(client.deliver(envelope(), Content(MESSAGE)))
    here.network.join(client, here.sink.buildProtocol(None))
    here.network.settle()
    assert outcome.value.all_ok
    assert here.sink.mails[0].session.tls
    client.finish()
    here.network.elapse(5)
    here.network.assert_nothing_is_left()


def test_a_context_factory_of_the_users_decides_what_it_refuses() -> None:
    here = post(UNTRUSTED)
    context = optionsForClientTLS("localhost", trustRoot=CERTIFICATES.trust_root())
    client = PipeliningESMTPClient(None, context, b"me.example", reactor=here.network)
    client.requireTransportSecurity = True
    outcome = Outcome(client.deliver(envelope(), Content(MESSAGE)))
    here.network.join(client, here.sink.buildProtocol(None))
    here.network.settle()
    assert isinstance(outcome.error, TLSFailed)
    here.network.assert_nothing_is_left()


@implementer(IOpenSSLClientConnectionCreator)
class Broken:
    """A context factory that cannot make a connection."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        raise self._error


def test_openssls_refusal_to_start_is_a_failure_of_tls(logged_failures: Any) -> None:
    session = secure_session(contextFactory=Broken(SSL.Error([("a", "b", "c")])))
    _, outcome = session.deliver()
    session.open(*OFFER)
    session.say(b"220 go ahead")
    assert isinstance(outcome.error, TLSFailed)
    assert session.end.writes[-1] == b"STARTTLS\r\n"
    assert session.script.lost
    # Twisted's own: it aborts a connection that was never made.
    assert logged_failures.flush(AttributeError)


def test_a_context_factory_that_raises_is_an_internal_error_and_no_hang(logged_failures: Any) -> None:
    session = secure_session(contextFactory=Broken(RuntimeError("no context")))
    _, outcome = session.deliver()
    session.open(*OFFER)
    session.say(b"220 go ahead")
    assert isinstance(outcome.error, InternalError)
    assert session.script.lost
    assert len(logged_failures.flush(RuntimeError)) == 1
    assert logged_failures.flush(AttributeError)


def test_a_judge_that_raises_is_an_internal_error_and_no_hang(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def judge(self: object, connection: object) -> None:
        raise RuntimeError("no judgment")

    monkeypatch.setattr("twisted_smtpclient.client.tls.ServerTLS.judge", judge)
    here = post()
    assert isinstance(here.delivered(tls=TLSMode.DEPEND).error, InternalError)
    here.close()
    assert logged_failures.flush(RuntimeError)


def test_a_transport_that_cannot_start_tls_is_a_failure_of_tls() -> None:
    server = terms(tls=TLSMode.DEPEND)
    client = PipeliningESMTPClient(server=server, reactor=Network())
    ready = Outcome(client.when_ready())
    transport = StringTransport()
    client.makeConnection(transport)  # type: ignore[no-untyped-call]  # the base's
    client.dataReceived(b"220 hi\r\n")
    client.dataReceived(b"250-x\r\n250 STARTTLS\r\n")
    client.dataReceived(b"220 go\r\n")
    assert isinstance(ready.error, TLSFailed)
    assert transport.disconnecting


def test_a_late_end_of_a_handshake_changes_nothing() -> None:
    session = secure_session()
    session.open(*OFFER)
    session.client.abort(ConnectionLost("enough"))
    session.client.handshakeCompleted()
    session.network.settle()
    assert not session.client.tlsMode
    assert session.over


# TLS from the first octet.


def implicit(certificates: Any = CERTIFICATES, **sink: Any) -> Post:
    trust = {"trust_root": CERTIFICATES.trust_root()}
    return Post(agent=trust, implicit_tls=certificates.server_context(), **sink)


def test_implicit_tls_is_on_before_the_greeting() -> None:
    here = implicit()
    assert here.delivered(tls=TLSMode.IMPLICIT).value.all_ok
    assert here.sink.mails[0].session.tls
    assert here.sink.flights == 2
    assert b"STARTTLS" not in here.sink.commands
    here.close()


@pytest.mark.parametrize(
    ("certificates", "changes", "says"),
    [
        (UNTRUSTED, {}, "the server's certificate does not verify: its authority is not trusted"),
        (
            CERTIFICATES,
            {"tls_name": "mx.example"},
            "the server's certificate does not verify: it is not for mx.example",
        ),
        (
            CERTIFICATES,
            {"tls_fingerprint": "sha256:" + "0" * 64},
            f"the server's certificate does not verify: its fingerprint is {CERTIFICATES.fingerprint}",
        ),
    ],
    ids=["untrusted", "name", "fingerprint"],
)
def test_implicit_tls_refuses_what_starttls_refuses(
    certificates: Any, changes: dict[str, Any], says: str
) -> None:
    here = implicit(certificates)
    error = here.delivered(tls=TLSMode.IMPLICIT, **changes).error
    assert isinstance(error, TLSFailed)
    assert str(error) == says
    assert here.sink.commands == []
    here.close()


def test_implicit_tls_takes_a_fingerprint() -> None:
    here = implicit(UNTRUSTED)
    assert here.delivered(tls=TLSMode.IMPLICIT, tls_fingerprint=UNTRUSTED.fingerprint).value.all_ok
    here.close()


@pytest.mark.parametrize(
    ("action", "options", "error"),
    [
        (Action.CLOSE, {}, ConnectionLost),
        (Action.RESET, {}, ConnectionLost),
        (Action.STALL, {}, ResponseTimeout),
        (Action.DEAF, {}, ResponseTimeout),
        (Action.REPLY, {"reply": b"220 server.example, in clear\r\n"}, TLSFailed),
    ],
)
def test_implicit_tls_that_fails_is_one_named_error_within_the_bound(
    action: Action, options: dict[str, Any], error: type[Exception]
) -> None:
    here = implicit(faults=[Fault(Stage.HANDSHAKE, action, **options)])
    outcome = here.delivered(tls=TLSMode.IMPLICIT, timeouts=Timeouts.uniform(10), bound=10)
    assert type(outcome.error) is error
    # The next one is none the worse for it.
    assert here.delivered(tls=TLSMode.IMPLICIT).value.all_ok
    here.close()


def test_a_session_on_a_transport_that_has_tls_does_not_start_it_again() -> None:
    here = implicit()
    context = optionsForClientTLS("localhost", trustRoot=CERTIFICATES.trust_root())
    client = PipeliningESMTPClient(
        server=terms(host="localhost", tls=TLSMode.IMPLICIT),
        reactor=here.network,
        tls=ClientTLS(CERTIFICATES.trust_root()).terms(terms(host="localhost", tls=TLSMode.IMPLICIT)),
    )
    factory = Factory.forProtocol(lambda: client)
    wrapped = TLSMemoryBIOFactory(context, True, factory, here.network).buildProtocol(None)
    outcome = Outcome(client.deliver(envelope(), Content(MESSAGE)))
    end = here.network.join(wrapped, here.sink.buildProtocol(None))
    here.network.settle()
    assert outcome.value.all_ok
    assert end.tls_begun == 0
    assert client.tlsMode
    client.finish()
    here.network.elapse(5)
    here.network.assert_nothing_is_left()


def test_a_server_that_talks_on_after_quit_over_tls_is_left_after_quits_bound() -> None:
    here = implicit(faults=[Fault(Stage.QUIT, Action.TRICKLE, b"221-bye\r\n", interval=1, endless=True)])
    assert here.delivered(tls=TLSMode.IMPLICIT).value.all_ok
    closed = Outcome(here.agent.close())
    here.network.elapse(5.5)
    assert closed.value is None
    assert not here.network.ends[0].connected


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (Action.STALL, "no reply to EHLO within 10 s"),
        (Action.CLOSE, "connection lost, no reply to EHLO"),
    ],
)
def test_what_fails_behind_the_handshake_is_not_laid_at_its_door(action: Action, says: str) -> None:
    here = post(faults=[Fault(Stage.EHLO, action, nth=2)])
    outcome = here.delivered(tls=TLSMode.DEPEND, timeouts=Timeouts.uniform(10), bound=10)
    assert str(outcome.error).startswith(says)
    here.close()
