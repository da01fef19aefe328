"""
Tests of logging in on a transport: where a secret may be shown, mechanisms of
the user's own, tokens that are asked for, and what is told of all that.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.mail.interfaces import IClientAuthentication
from twisted.mail.smtp import CramMD5ClientAuthenticator, LOGINAuthenticator, PLAINAuthenticator
from zope.interface import implementer

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, MESSAGE, Post, Session, terms
from tests.client.submission import CERTIFICATES, PASSWORD, TOKEN, UNTRUSTED, USER, Submission
from twisted_smtpclient import (
    Cancelled,
    ConnectionFailed,
    ConnectionTimeout,
    Content,
    Credentials,
    DeliveryAgent,
    Envelope,
    ExtensionUnsupported,
    InternalError,
    InvalidRequest,
    PipeliningESMTPClient,
    ProtocolError,
    Refused,
    Server,
    ShuttingDown,
    TLSFailed,
    TLSMode,
)
from twisted_smtpclient.client.login import channel_of
from twisted_smtpclient.smtp.login import Channel
from twisted_smtpclient.testing import Fault, Sink

GREETING = b"220 server.example ESMTP"
PLAIN = Credentials("anna", "hunter2", mechanisms=["PLAIN"])
SHOWN = b"AUTH PLAIN " + b64encode(b"\0anna\0hunter2") + b"\r\n"


def client(**options: Any) -> PipeliningESMTPClient:
    """One whose clock has no part in it."""
    return PipeliningESMTPClient(identity="me.example", reactor=Network(), **options)


# Where a secret may be shown.


@pytest.mark.parametrize(
    "address",
    [
        IPv4Address("TCP", "127.0.0.1", 25),
        IPv4Address("TCP", "127.9.9.9", 25),
        IPv6Address("TCP", "::1", 25),
        IPv6Address("TCP", "::ffff:127.0.0.1", 25),
        UNIXAddress("/run/smtp"),
    ],
    ids=str,
)
def test_a_password_may_be_shown_to_this_machine_by_the_address_that_is_connected_to(address: Any) -> None:
    session = Session(terms(tls=TLSMode.TRY, auth=PLAIN), address=address)
    assert session.open(b"AUTH PLAIN") == SHOWN
    assert session.say(b"235 2.7.0 welcome") == b""
    assert session.ready.value is session.client
    assert session.client.handshake is not None
    assert session.client.handshake.authenticated


@pytest.mark.parametrize(
    "address", [IPv4Address("TCP", "192.0.2.1", 25), IPv6Address("TCP", "fe80::1", 25)], ids=str
)
@pytest.mark.parametrize("host", [HOST, "localhost", "127.0.0.1", "::1"])
def test_whatever_the_name_another_machine_is_shown_none(address: Any, host: str) -> None:
    session = Session(terms(host=host, tls=TLSMode.TRY, auth=PLAIN), address=address)
    _, outcome = session.deliver()
    assert session.open(b"AUTH PLAIN") == b"QUIT\r\n"
    assert isinstance(outcome.error, ExtensionUnsupported)
    assert "would show the password on a connection in clear" in str(outcome.error)


def test_it_may_be_shown_where_tls_is_no_by_choice() -> None:
    session = Session(terms(tls=TLSMode.NO, auth=PLAIN))
    assert session.open(b"AUTH PLAIN") == SHOWN


def test_no_terms_at_all_are_no_choice() -> None:
    session = Session(client=client(credentials=PLAIN))
    assert session.client.server.tls is TLSMode.NO
    assert session.open(b"AUTH PLAIN") == b"QUIT\r\n"
    assert isinstance(session.ready.error, ExtensionUnsupported)


def test_behind_an_endpoint_nothing_is_this_machine() -> None:
    class Endpoint:
        def connect(self, factory: Any) -> Deferred[Any]:
            raise AssertionError("it is connected by hand here")

    server = Server(host="localhost", endpoint=Endpoint(), tls=TLSMode.TRY, auth=PLAIN)
    session = Session(server, address=IPv4Address("TCP", "127.0.0.1", 1080))
    assert session.open(b"AUTH PLAIN") == b"QUIT\r\n"
    assert isinstance(session.ready.error, ExtensionUnsupported)


@pytest.mark.parametrize("fingerprint", [False, True])
@pytest.mark.parametrize("tls", [TLSMode.TRY, TLSMode.DEPEND])
def test_a_certificate_by_its_fingerprint_is_verified(tls: TLSMode, fingerprint: bool) -> None:
    here = Submission(tls, starttls=UNTRUSTED.server_context(), mechanisms=["PLAIN"])
    digest = {"tls_fingerprint": UNTRUSTED.fingerprint} if fingerprint else {}
    outcome = here.submit(Credentials(USER, PASSWORD), **digest)
    if fingerprint:
        assert outcome.value.all_ok
    else:
        assert isinstance(outcome.error, ExtensionUnsupported | TLSFailed)
        assert here.attempts == []
    here.end()


class Unverifying(CertificateOptions):
    """What Twisted's documentation has for "trust anyone"."""

    def __init__(self) -> None:
        super().__init__(verify=False)


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        (lambda: optionsForClientTLS("192.0.2.1", CERTIFICATES.trust_root()), True),
        (Unverifying, False),
    ],
)
def test_a_context_of_the_users_counts_as_verified_where_it_verifies(
    context: Callable[[], Any], shown: bool
) -> None:
    network = Network()
    sink = Sink(network, users={USER: PASSWORD}, mechanisms=["PLAIN"], starttls=CERTIFICATES.server_context())
    own = PipeliningESMTPClient(
        None, context(), b"me.example", credentials=Credentials(USER, PASSWORD), reactor=network
    )
    outcome = Outcome(own.deliver(Envelope("a@x", ["b@x"]), Content(MESSAGE)))
    own.finish()
    network.join(own, sink.buildProtocol(None))
    network.elapse(10)
    if shown:
        assert outcome.value.all_ok
    else:
        assert "on a connection whose certificate does not verify" in str(outcome.error)
        assert sink.sessions[0].attempts == []
    network.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("terms_of_it", "shown"),
    [
        ({"host": HOST}, True),
        ({"host": "mail.example", "tls_name": HOST}, True),
        ({"host": "mail.example"}, False),
        ({"host": HOST, "tls_name": "mail.example"}, False),
        ({"host": "unix:/run/smtp", "tls": TLSMode.TRY}, True),
        # Nobody has named the server, so there is nothing to hold it against.
        (None, True),
    ],
)
def test_where_it_looks_at_the_chain_alone_the_name_is_held_against_the_certificate(
    terms_of_it: dict[str, Any] | None, shown: bool
) -> None:
    network = Network()
    sink = Sink(network, users={USER: PASSWORD}, mechanisms=["PLAIN"], starttls=CERTIFICATES.server_context())
    auth = Credentials(USER, PASSWORD)
    server = None if terms_of_it is None else Server(**{"tls": TLSMode.DEPEND, "auth": auth, **terms_of_it})
    own = PipeliningESMTPClient(
        None,
        CertificateOptions(trustRoot=CERTIFICATES.trust_root()),
        b"me.example",
        server=server,
        credentials=auth,
        reactor=network,
    )
    outcome = Outcome(own.deliver(Envelope("a@x", ["b@x"]), Content(MESSAGE)))
    own.finish()
    network.join(own, sink.buildProtocol(None))
    network.elapse(10)
    if shown:
        assert outcome.value.all_ok
    else:
        assert "on a connection whose certificate does not verify" in str(outcome.error)
        assert sink.sessions[0].attempts == []
    network.assert_nothing_is_left()


# Channel bindings.


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        (SSL.TLS1_3_VERSION, ["tls-exporter", "tls-server-end-point"]),
        (SSL.TLS1_2_VERSION, ["tls-unique", "tls-server-end-point"]),
    ],
)
def test_both_ends_of_a_connection_know_what_it_is_bound_to(version: int, kinds: list[str]) -> None:
    here, there = joined(version)
    ours = channel_of(here, None)
    assert (ours.secure, ours.verified) == (True, False)
    assert [binding.kind for binding in ours.bindings] == kinds
    if version == SSL.TLS1_3_VERSION:
        exported = there.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        assert ours.bindings[0].data == exported
    else:
        assert ours.bindings[0].data == there.get_peer_finished()
    assert f"sha256:{ours.bindings[1].data.hex()}" == CERTIFICATES.fingerprint
    assert channel_of(here, True).verified


@pytest.mark.parametrize(
    ("signed_with", "digest"),
    [("md5", "sha256"), ("sha1", "sha256"), ("sha256", "sha256"), ("sha384", "sha384")],
)
def test_the_end_point_is_hashed_as_its_certificate_is_signed_or_by_sha_256_where_that_is_weak(
    signed_with: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5929 section 4.1."""

    class Parsed:
        signature_hash_algorithm = type("Algorithm", (), {"name": signed_with})

        def public_bytes(self, encoding: object) -> bytes:
            return b"the certificate"

    class Shown:
        def to_cryptography(self) -> Parsed:
            return Parsed()

    here, _ = joined(SSL.TLS1_3_VERSION)
    monkeypatch.setattr(here, "get_peer_certificate", Shown)
    bound = channel_of(here, True).bindings[1]
    assert bound == ("tls-server-end-point", hashlib.new(digest, b"the certificate").digest())


def joined(version: int) -> tuple[SSL.Connection, SSL.Connection]:
    """Two ends of a TLS connection over memory, its handshake done."""
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client_context.set_max_proto_version(version)
    here = SSL.Connection(client_context, None)
    there = SSL.Connection(CERTIFICATES.server_context().getContext(), None)
    here.set_connect_state()
    there.set_accept_state()
    for _ in range(4):
        for end, other in ((here, there), (there, here)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    return here, there


def test_a_transport_that_does_not_show_its_tls_has_nothing_to_bind_to() -> None:
    assert channel_of(object(), None) == Channel(secure=True)
    assert channel_of(object(), True) == Channel(secure=True, verified=True)


# Mechanisms of the user's own.


def own_session(secret: object, *authenticators: Any, **options: Any) -> Session:
    """A session on loopback, by Twisted's own interface."""
    made = client(secret=secret, **options)
    for authenticator in authenticators:
        made.registerAuthenticator(authenticator)  # type: ignore[no-untyped-call]  # the base's
    return Session(client=made, address=IPv4Address("TCP", "127.0.0.1", 25))


@pytest.mark.parametrize("secret", [b"hunter2", "hunter2"])
def test_twisteds_authenticators_log_in(secret: object) -> None:
    session = own_session(secret, CramMD5ClientAuthenticator(b"tim"), PLAINAuthenticator(b"tim"))
    assert session.open(b"AUTH PLAIN CRAM-MD5 LOGIN") == b"AUTH CRAM-MD5\r\n"
    assert session.say(b"504 no") == b"AUTH PLAIN\r\n"
    assert session.say(b"334 ") == b64encode(b"\0tim\0hunter2") + b"\r\n"
    session.say(b"235 welcome")
    assert session.ready.value is session.client


def test_a_login_authenticator_that_was_used_before_gives_the_name_first() -> None:
    used = LOGINAuthenticator(b"tim")
    used.challengeResponse(b"hunter2", b"Username:")
    session = own_session(b"hunter2", used)
    session.open(b"AUTH LOGIN")
    assert session.say(b"334 " + b64encode(b"Username:")) == b64encode(b"tim") + b"\r\n"
    assert session.say(b"334 " + b64encode(b"Password:")) == b64encode(b"hunter2") + b"\r\n"


def test_they_are_tried_beside_those_of_the_credentials() -> None:
    session = own_session(b"other", LOGINAuthenticator(b"tim"), credentials=Credentials("anna", "hunter2"))
    assert session.open(b"AUTH PLAIN LOGIN") == SHOWN
    assert session.say(b"534 no") == b"AUTH LOGIN\r\n"
    assert session.say(b"334 ") == b64encode(b"tim") + b"\r\n"


@implementer(IClientAuthentication)
class Odd:
    """A mechanism of the user's, which does what it is told."""

    def __init__(self, name: bytes, response: Any) -> None:
        self.name = name
        self.response = response
        self.seen: list[object] = []

    def getName(self) -> bytes:
        return self.name

    def challengeResponse(self, secret: object, challenge: bytes) -> Any:
        self.seen.append(secret)
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


def test_one_that_is_not_known_here_is_taken_for_one_that_shows_the_secret() -> None:
    for name, said in ((b"X-OWN", b"QUIT\r\n"), (b"GSSAPI", b"AUTH GSSAPI\r\n")):
        made = client(secret=b"hunter2")
        made.registerAuthenticator(Odd(name, b"yes"))  # type: ignore[no-untyped-call]  # the base's
        assert Session(client=made).open(b"AUTH X-OWN GSSAPI") == said


def test_a_secret_that_is_no_text_is_given_as_it_is() -> None:
    ticket = object()
    authenticator = Odd(b"X-OWN", b"yes")
    session = own_session(ticket, authenticator)
    session.open(b"AUTH X-OWN")
    assert session.say(b"334 ") == b64encode(b"yes") + b"\r\n"
    assert authenticator.seen == [ticket]


@pytest.mark.parametrize("response", ["text", None, RuntimeError("it broke")])
def test_one_that_breaks_ends_the_session_and_no_mail_goes(response: Any, logged_failures: Any) -> None:
    session = own_session(b"hunter2", Odd(b"X-OWN", response))
    session.open(b"AUTH X-OWN")
    session.say(b"334 ")
    assert isinstance(session.ready.error, InternalError)
    assert logged_failures.flush(TypeError, RuntimeError)
    assert session.over


@pytest.mark.parametrize(
    "prepare",
    [{"secret": b"hunter2"}, {"requireAuthentication": True}],
    ids=lambda prepare: next(iter(prepare)),
)
def test_a_login_that_is_asked_for_and_cannot_be_is_no_mail(prepare: dict[str, Any]) -> None:
    made = client()
    vars(made).update(prepare)
    session = Session(client=made, address=IPv4Address("TCP", "127.0.0.1", 25))
    _, outcome = session.deliver()
    assert session.open(b"PIPELINING", b"AUTH PLAIN") == b"QUIT\r\n"
    assert isinstance(outcome.error, ExtensionUnsupported)
    assert b"hunter2" not in session.script.all


# What is told.


def logged_in(password: str = "hunter2") -> Session:
    session = Session(terms(auth=Credentials("anna", password, mechanisms=["PLAIN"])))
    session.open(b"AUTH PLAIN", b"PIPELINING")
    session.say(b"235 welcome")
    assert session.ready.value is session.client
    return session


def test_a_secret_in_the_verdict_on_a_mail_is_hidden() -> None:
    session = logged_in()
    _, outcome = session.deliver("a@x", "b@x")
    encoded = b64encode(b"\0anna\0hunter2")
    session.say(b"250 ok", b"250 ok", b"550-5.1.1 no b for hunter2", b"550 5.1.1 " + encoded, b"354 go")
    session.say(b"250 2.0.0 queued for hunter2, logged in by " + encoded)
    taken, refused = outcome.value.recipients
    assert taken.response == "250 2.0.0 queued for ***, logged in by ***"
    assert refused.response == "550-5.1.1 no b for ***\n550 5.1.1 ***"


@pytest.mark.parametrize("said", [b"hunter2?\r\n", b"250 hunter2\nx\r\n", b"999 hunter2\r\n"])
def test_what_is_no_reply_is_not_quoted_once_there_is_a_secret(said: bytes) -> None:
    session = logged_in()
    _, outcome = session.deliver()
    session.send(said)
    assert isinstance(outcome.error, ProtocolError)
    assert "hunter2" not in str(outcome.error)
    early = Session(terms(auth=PLAIN))
    early.open(b"AUTH PLAIN")
    early.send(said)
    assert isinstance(early.ready.error, ProtocolError)
    assert "hunter2" not in str(early.ready.error)


def test_what_is_no_reply_is_quoted_before_where_it_has_nothing_of_a_secret() -> None:
    for said, told in ((b"* OK IMAP4rev1", "'* OK IMAP4rev1'"), (b"* hunter2", ""), (b"* hunt", "")):
        session = Session(terms(auth=PLAIN))
        session.say(said)
        assert str(session.ready.error) == (f"not a reply: {told}" if told else "not a reply")


@pytest.mark.parametrize("line", [b"220 hello hunter2", b"220-hello\r\n220 hunter2"])
def test_what_it_says_of_a_secret_before_the_login_is_in_no_transcript(line: bytes) -> None:
    session = Session(terms(auth=PLAIN))
    session.say(line)
    session.say(b"250-mx.example hunter2", b"250-X-SEEN hunter2 AGFubmEAaHVudGVyMg==", b"250 AUTH PLAIN")
    assert session.say(b"334 " + b64encode(b"hunter2")) == b"*\r\n"
    session.say(b"501 no hunter2")
    told = [line for _, line in session.client.chronicle.transcript.lines]
    assert "hunter2" not in repr(told)
    assert "AGFu" not in repr(told)
    assert "250-X-SEEN *** ***" in told
    assert "501 no ***" in told
    assert session.client.handshake is not None
    assert session.client.handshake.greeting is not None
    assert "hunter2" not in session.client.handshake.greeting.text


def test_a_password_that_is_named_like_an_extension_takes_it_away_from_nobody() -> None:
    session = Session(terms(auth=Credentials("anna", "PIPELINING", mechanisms=["PLAIN"])))
    session.open(b"AUTH PLAIN", b"PIPELINING")
    session.say(b"235 welcome")
    assert session.client.uses("PIPELINING")


def test_a_challenge_may_be_long() -> None:
    session = own_session(b"hunter2", Odd(b"X-OWN", b"yes"))
    session.open(b"AUTH X-OWN")
    assert session.say(b"334 " + b64encode(b"x" * 9216)) == b64encode(b"yes") + b"\r\n"


# A broken exchange.


def given_up(*said: bytes) -> Session:
    """A session whose server said what is no challenge; it was told ``*``."""
    session = Session(terms(auth=PLAIN))
    session.open(b"AUTH PLAIN")
    assert session.say(b"334 !!", *said) == (b"*\r\n" if not said else b"")
    return session


def blames_the_challenge(session: Session) -> bool:
    error = session.ready.error
    return type(error) is ProtocolError and str(error) == "AUTH: a challenge that is not base64"


def test_a_server_that_closes_then_was_at_fault_before() -> None:
    session = given_up()
    session.hang_up()
    assert blames_the_challenge(session)
    assert session.over


def test_one_that_says_no_more_is_not_waited_for_long() -> None:
    session = given_up()
    session.network.elapse(4.9)
    assert session.ready.came == 0
    session.network.elapse(0.2)
    assert blames_the_challenge(session)
    assert session.over


@pytest.mark.parametrize("behind", [b"421 too many errors", b"501 what", b"hm", b"250-x"])
def test_whatever_it_says_with_it_it_was_at_fault_before(behind: bytes) -> None:
    session = Session(terms(auth=PLAIN))
    session.open(b"AUTH PLAIN")
    session.say(b"334 !!", behind)
    assert blames_the_challenge(session)
    assert session.over


def test_nor_is_garbage_in_answer_to_the_cancel_another_fault() -> None:
    session = given_up()
    session.say(b"hm")
    assert isinstance(session.ready.error, ProtocolError)
    assert session.over


@pytest.mark.parametrize("first", [b"235 welcome", b"334 "])
@pytest.mark.parametrize("second", [b"334 " + b64encode(b"hunter2"), b"250 hunter2", b"250-hunter2"])
def test_what_comes_too_early_is_an_error_that_shows_no_secret(first: bytes, second: bytes) -> None:
    session = Session(terms(auth=PLAIN))
    session.open(b"AUTH PLAIN")
    session.say(first, second)
    assert isinstance(session.ready.error, ProtocolError)
    assert "hunter2" not in str(session.ready.error)
    assert b64encode(b"hunter2").decode() not in str(session.ready.error)
    assert session.over


def test_a_reply_that_was_read_before_is_not_kept_with_its_secret_hidden() -> None:
    """Short replies are made once for all sessions."""
    for session, shown in ((logged_in("Ok then"), "250 2.1.5 ***"), (logged_in(), "250 2.1.5 Ok then")):
        _, outcome = session.deliver("a@x")
        session.say(b"250 ok", b"550 5.1.1 no", b"354 go")
        assert outcome.came == 0
        session.say(b"554 no valid recipients")
        assert outcome.came == 1
        _, outcome = session.deliver("a@x")
        session.say(b"250 ok", b"250 ok", b"250 ok", b"354 go")
        session.say(b"250 2.1.5 Ok then")
        assert outcome.value.recipients[0].response == shown


def test_the_server_that_says_421_to_auth_is_hung_up_on() -> None:
    session = Session(terms(auth=PLAIN))
    session.open(b"AUTH PLAIN")
    assert session.say(b"421 too many of you") == b""
    error = session.ready.error
    assert isinstance(error, Refused)
    assert (error.command, error.code, error.temporary) == ("AUTH", 421, True)


def test_a_refused_login_ends_in_order() -> None:
    session = Session(terms(auth=PLAIN))
    _, outcome = session.deliver()
    session.open(b"AUTH PLAIN")
    assert session.say(b"535 5.7.8 no") == b"QUIT\r\n"
    assert isinstance(outcome.error, Refused)
    assert outcome.error.recipients == ()


# Sharing connections.


def test_mails_of_the_same_credentials_share_a_connection_and_others_do_not() -> None:
    here = Submission(users={USER: PASSWORD, "bert": "x"})
    for auth in (Credentials(USER, PASSWORD), Credentials(USER, PASSWORD), Credentials("bert", "x")):
        assert here.submit(auth).value.all_ok
    assert [attempt.mechanism for attempt in here.attempts] == ["SCRAM-SHA-256"] * 2
    here.end()


# Tokens that are asked for.


class Provider:
    """Gives tokens in turn; a Deferred of one where ``late``."""

    def __init__(self, *tokens: Any) -> None:
        self.tokens = list(tokens)
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        token = self.tokens.pop(0)
        if isinstance(token, Exception):
            raise token
        return token


def by(provider: Any, **more: Any) -> Credentials:
    return Credentials(USER, token=provider, **more)


@pytest.mark.parametrize("token", [TOKEN, succeed(TOKEN)], ids=["str", "Deferred"])
def test_a_provider_is_asked_before_a_connection_is_opened(token: Any) -> None:
    here, provider = Submission(), Provider(token)
    assert here.submit(by(provider)).value.all_ok
    assert provider.asked == 1
    assert here.submit(by(provider)).value.all_ok
    # The same connection.
    assert (provider.asked, len(here.attempts)) == (1, 1)
    here.end()


def test_a_coroutine_is_as_good() -> None:
    async def provider() -> str:
        return TOKEN

    here = Submission()
    assert here.submit(by(provider)).value.all_ok
    here.end()


def test_nothing_is_connected_to_before_the_token_is_there() -> None:
    here, waiting = Submission(), Deferred[str]()
    outcome = Outcome(here.deliver(auth=by(Provider(waiting)), tls=TLSMode.NO))
    here.network.settle()
    assert here.network.attempts == []
    waiting.callback(TOKEN)
    here.network.settle()
    assert outcome.value.all_ok
    here.end()


def test_it_is_asked_once_more_after_a_535() -> None:
    here, provider = Submission(), Provider("stale", TOKEN)
    assert here.submit(by(provider)).value.all_ok
    assert provider.asked == 2
    assert len(here.sink.sessions) == 2
    here.end()


def test_and_then_no_more() -> None:
    here, provider = Submission(), Provider("stale", "staler", TOKEN)
    error = here.submit(by(provider)).error
    assert isinstance(error, Refused)
    assert (error.command, error.code, provider.asked) == ("AUTH", 535, 2)
    here.end()


def test_a_token_that_was_refused_is_not_shown_again() -> None:
    here, provider = Submission(), Provider("stale", "stale")
    assert isinstance(here.submit(by(provider)).error, Refused)
    assert (provider.asked, len(here.attempts)) == (2, 1)
    here.end()


def test_another_refusal_is_no_reason_to_ask_again() -> None:
    here, provider = Submission(faults=[Fault("AUTH", "REPLY", b"454 4.7.0 later\r\n")]), Provider(TOKEN)
    error = here.submit(by(provider)).error
    assert isinstance(error, Refused)
    assert (error.code, error.temporary, provider.asked) == (454, True, 1)
    here.end()


@pytest.mark.parametrize(
    "token",
    [RuntimeError("the key is geheim"), fail(RuntimeError("the key is geheim"))],
    ids=["raises", "fails"],
)
def test_a_provider_that_fails_is_a_failure_to_connect(token: Any) -> None:
    here = Submission()
    error = here.submit(by(Provider(token))).error
    assert isinstance(error, ConnectionFailed)
    assert error.temporary
    assert str(error) == "the token provider failed: RuntimeError"
    assert isinstance(error.__cause__, RuntimeError)
    assert here.network.attempts == []
    here.end()


def test_a_provider_may_give_the_same_deferred_again_and_again() -> None:
    token = succeed(TOKEN)
    here = Submission()
    for _ in range(3):
        assert here.submit(by(lambda: token)).value.all_ok
    assert token.result == TOKEN
    here.end()


def test_one_deferred_may_be_waited_for_by_many() -> None:
    waiting = Deferred[str]()
    here = Submission(users={USER: PASSWORD, "bert": "x"}, tokens={USER: TOKEN, "bert": TOKEN})
    auths = [Credentials(name, token=lambda: waiting) for name in (USER, "bert")]
    outcomes = [Outcome(here.deliver(auth=auth, tls=TLSMode.NO)) for auth in auths]
    here.network.settle()
    waiting.callback(TOKEN)
    here.network.settle()
    assert [outcome.value.all_ok for outcome in outcomes] == [True, True]
    here.end()


def test_a_deferred_that_has_failed_fails_whoever_asks_and_is_logged_by_nobody(logged_failures: Any) -> None:
    failed: Deferred[Any] = fail(RuntimeError("the key is geheim"))
    here = Submission()
    for _ in range(2):
        error = here.submit(by(Provider(failed))).error
        assert str(error) == "the token provider failed: RuntimeError"
    here.end()
    del failed, error
    gc.collect()
    assert logged_failures.flush(RuntimeError) == []


def test_the_token_that_was_refused_is_not_shown_by_who_repeats_it_to_the_next() -> None:
    stale = "ya29.stale-but-secret"
    here = Submission(faults=[Fault("AUTH", "REPLY", f"535 5.7.8 before {stale}\r\n".encode(), nth=2)])
    error = here.submit(by(Provider(stale, TOKEN), mechanisms=["XOAUTH2"])).error
    assert isinstance(error, Refused)
    assert error.response == "535 5.7.8 before ***"
    here.end()


def test_an_error_of_ours_that_it_raises_stays_what_it_is() -> None:
    here = Submission()
    assert str(here.submit(by(Provider(Cancelled("not today")))).error) == "not today"
    here.end()


@pytest.mark.parametrize("token", [None, b"token", "", "two words", "a\r\nRSET"])
def test_what_is_no_token_is_told_by_its_field(token: Any) -> None:
    here = Submission()
    error = here.submit(by(Provider(token))).error
    assert isinstance(error, InvalidRequest)
    assert error.field == "auth.token"
    assert here.network.attempts == []
    here.end()


def test_one_that_takes_too_long_is_cancelled() -> None:
    here, waiting = Submission(), Deferred[str]()
    outcome = here.submit(by(Provider(waiting)), bound=3.0, connection_timeout=2.0)
    assert isinstance(outcome.error, ConnectionTimeout)
    assert str(outcome.error) == "no token within 2 s"
    assert waiting.called
    here.end()


def test_an_agent_that_is_closed_does_not_wait_for_it() -> None:
    here, waiting = Submission(), Deferred[str]()
    outcome = Outcome(here.deliver(auth=by(Provider(waiting)), tls=TLSMode.NO))
    here.network.settle()
    here.end()
    assert isinstance(outcome.error, ShuttingDown)
    assert waiting.called


def test_the_mails_that_wait_for_one_token_all_go_with_it() -> None:
    here, waiting = Submission(), Deferred[str]()
    auth = by(Provider(waiting, waiting, waiting))
    here.agent._dispatch.pool.limit = 1
    outcomes = [Outcome(here.deliver(auth=auth, tls=TLSMode.NO)) for _ in range(3)]
    here.network.settle()
    waiting.callback(TOKEN)
    here.network.settle()
    assert [outcome.value.all_ok for outcome in outcomes] == [True] * 3
    assert len(here.attempts) == 1
    here.end()


def test_where_starttls_fails_and_is_only_tried_the_token_is_not_shown_in_clear() -> None:
    post = Post(starttls=object(), tokens={USER: TOKEN}, faults=[Fault("STARTTLS", "REPLY", b"421 no\r\n")])
    provider = Provider(TOKEN, TOKEN)
    error = post.delivered(auth=by(provider), tls=TLSMode.TRY, bound=10).error
    assert isinstance(error, ExtensionUnsupported | Refused)
    assert all(not session.attempts for session in post.sink.sessions)
    # The connection in clear is a part of the same attempt.
    assert provider.asked == 1
    post.close()


def test_a_single_session_takes_a_token_and_no_provider() -> None:
    with pytest.raises(InvalidRequest, match=r"auth\.token: a provider is asked by a DeliveryAgent"):
        PipeliningESMTPClient(server=terms(auth=by(Provider())), reactor=Network())
    resolved = Credentials(USER, token=TOKEN, mechanisms=["XOAUTH2"])
    session = Session(
        client=PipeliningESMTPClient(
            server=terms(auth=by(Provider())), credentials=resolved, reactor=Network()
        )
    )
    assert session.open(b"AUTH XOAUTH2").startswith(b"AUTH XOAUTH2 ")


def test_an_agent_shows_its_certificate_to_who_asks_for_it() -> None:
    here = Submission(TLSMode.DEPEND, certificate=True)
    assert here.submit(Credentials.external()).value.all_ok
    assert here.attempt.mechanism == "EXTERNAL"
    here.end()


def test_an_agents_repr_shows_no_secret() -> None:
    agent = DeliveryAgent(Network())
    agent.deliver(terms(auth=PLAIN), Envelope("a@x", ["b@x"]), Content(MESSAGE)).addErrback(lambda _: None)
    assert "hunter2" not in repr(agent)
    assert "hunter2" not in repr(list(agent._dispatch.pool.states()))
    agent.close()
