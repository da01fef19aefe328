"""
Tests of logging in: which mechanism, what is said, what is believed.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.script import reply
from twisted_smtpclient import (
    Credentials,
    ExtensionUnsupported,
    Protocol,
    ProtocolError,
    Refused,
    Reply,
    Server,
    TLSMode,
)
from twisted_smtpclient.smtp.credentials import Secret
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.handshake import Action, Handshake, State
from twisted_smtpclient.smtp.login import MAX_CHALLENGES, MAX_COMMAND, MAX_LINE, Channel, LogIn, Offer
from twisted_smtpclient.smtp.sasl import MAX_DETAIL, CramMD5, Mechanism
from twisted_smtpclient.smtp.scram import Binding

ANNA = Credentials("anna", "hunter2")
TOKEN = Credentials("anna", token="ya29.token")
ALL = "SCRAM-SHA-1 LOGIN PLAIN CRAM-MD5 SCRAM-SHA-256"
PLUS = f"{ALL} SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS"

EXPORTED = Binding("tls-exporter", b"x" * 32)
END_POINT = Binding("tls-server-end-point", b"y" * 32)

CLEAR = Channel()
UNVERIFIED = Channel(secure=True, bindings=(EXPORTED, END_POINT))
VERIFIED = Channel(secure=True, verified=True, bindings=(EXPORTED, END_POINT))
UNBOUND = Channel(secure=True, verified=True)


def challenge(octets: bytes) -> Reply:
    return Reply(334, (b"334 " + b64encode(octets),))


def offering(mechanisms: str | None, *keywords: str) -> Reply:
    lines = ["mx.example", *([f"AUTH {mechanisms}"] if mechanisms is not None else []), *keywords]
    last = len(lines) - 1
    return Reply(250, tuple(f"250{'-' if n < last else ' '}{line}".encode() for n, line in enumerate(lines)))


class Session:
    """
    A handshake whose EHLO was written; what it says next.

    :ivar said: the last of it.
    """

    def __init__(
        self,
        credentials: Credentials | None = ANNA,
        channel: Channel = VERIFIED,
        *,
        tls: TLSMode = TLSMode.TRY,
        protocol: Protocol = Protocol.SMTP,
        host: str = "mx.example",
        **login: Any,
    ) -> None:
        server = Server(host=host, tls=tls, protocol=protocol)
        self.login = LogIn(server, credentials, lambda: channel, **login)
        self.handshake = Handshake(server, "me.example", secure=channel.secure, login=self.login)
        self.handshake.receive(reply(220))
        self.said: bytes | Action = b""

    def offered(self, mechanisms: str | None = ALL, *keywords: str) -> bytes | Action:
        self.said = self.handshake.receive(offering(mechanisms, *keywords))
        return self.said

    def hear(self, code: int, text: str = "text") -> bytes | Action:
        self.said = self.handshake.receive(reply(code, text))
        return self.said

    def asked(self, octets: bytes = b"") -> bytes:
        """What a challenge is answered with, decoded."""
        said = self.handshake.receive(challenge(octets))
        assert isinstance(said, bytes)
        self.said = said
        assert said.endswith(b"\r\n")
        return said[:-2] if said == b"*\r\n" else b64decode(said, validate=False)

    @property
    def mechanism(self) -> str:
        """The one that was named last."""
        assert isinstance(self.said, bytes)
        return self.said.split()[1].decode()


def unsupported(session: Session, *offers: str | None) -> str:
    with pytest.raises(ExtensionUnsupported) as caught:
        session.offered(*offers)  # type: ignore[arg-type]  # the first may be None, the rest may not
    assert session.handshake.state is State.AUTH
    return str(caught.value)


def tried(session: Session, offers: str) -> list[str]:
    """The mechanisms that are tried where the server says 504 to each."""
    session.offered(offers)
    names = [session.mechanism]
    while True:
        try:
            session.hear(504)
        except Refused:
            return names
        names.append(session.mechanism)


# The walks.


def test_auth_stands_between_ehlo_and_ready() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["PLAIN"]))
    assert session.offered() == b"AUTH PLAIN AGFubmEAaHVudGVyMg==\r\n"
    assert (session.handshake.state, session.handshake.command) == (State.AUTH, "AUTH")
    assert not session.handshake.authenticated
    assert session.hear(235, "2.7.0 welcome") is Action.READY
    assert session.handshake.authenticated
    assert session.handshake.state is State.READY


def test_without_credentials_nobody_logs_in() -> None:
    handshake = Handshake(Server(host="mx.example"), "me.example")
    handshake.receive(reply(220))
    assert handshake.receive(offering(ALL)) is Action.READY
    assert not handshake.authenticated
    assert handshake.redaction is None


def test_a_challenge_is_answered_until_the_server_is_content() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN"]))
    assert session.offered() == b"AUTH LOGIN\r\n"
    assert session.asked(b"Username:") == b"anna"
    assert session.asked(b"Password:") == b"hunter2"
    assert session.hear(235) is Action.READY


def test_a_success_is_believed_whenever_the_mechanism_has_no_more_to_hear() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN"]))
    session.offered()
    assert session.hear(235) is Action.READY


def test_lmtp_logs_in_too() -> None:
    session = Session(protocol=Protocol.LMTP)
    session.offered("CRAM-MD5")
    assert session.mechanism == "CRAM-MD5"


def test_under_starttls_only_what_is_offered_there_counts() -> None:
    channels = [VERIFIED]
    server = Server(host="mx.example", auth=ANNA)
    assert server.tls is TLSMode.DEPEND
    login = LogIn(server, ANNA, lambda: channels[0])
    handshake = Handshake(server, "me.example", login=login)
    handshake.receive(reply(220))
    assert handshake.receive(offering("CRAM-MD5", "STARTTLS")) == b"STARTTLS\r\n"
    assert handshake.receive(reply(220)) is Action.START_TLS
    handshake.tls_established()
    said = handshake.receive(offering("PLAIN"))
    assert isinstance(said, bytes)
    assert said.startswith(b"AUTH PLAIN ")


def test_a_refused_starttls_that_is_only_tried_is_followed_by_what_may_be_said_in_clear() -> None:
    session = Session(channel=CLEAR)
    assert session.offered("PLAIN CRAM-MD5", "STARTTLS") == b"STARTTLS\r\n"
    assert session.hear(454) == b"AUTH CRAM-MD5\r\n"
    # It is the login's fault from here on, and no reason to do without TLS.
    assert not session.handshake.tls_may_be_at_fault


def test_without_ehlo_there_is_no_login_and_helo_is_not_said() -> None:
    session = Session()
    with pytest.raises(ExtensionUnsupported, match="does not know EHLO, so it has no AUTH"):
        session.hear(502)
    assert session.handshake.state is State.EHLO


# Which mechanism.


def test_the_strongest_that_is_offered_is_first() -> None:
    assert tried(Session(channel=CLEAR, local=True), ALL) == [
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]


def test_under_tls_bound_ones_are_before_those_that_are_not() -> None:
    assert tried(Session(channel=VERIFIED), PLUS) == [
        # One for each type of binding.
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]
    assert tried(Session(channel=UNBOUND), PLUS)[0] == "SCRAM-SHA-256"


def test_tokens_have_mechanisms_of_their_own() -> None:
    assert tried(Session(TOKEN), f"{ALL} XOAUTH2 OAUTHBEARER") == ["OAUTHBEARER", "XOAUTH2"]


def test_the_named_ones_are_tried_in_their_order_and_no_other() -> None:
    chosen = Credentials("anna", "hunter2", mechanisms=["PLAIN", "SCRAM-SHA-256-PLUS", "CRAM-MD5"])
    assert tried(Session(chosen, UNBOUND), ALL) == ["PLAIN", "CRAM-MD5"]


@pytest.mark.parametrize("offers", ["plain", "Plain LOGIN", "X-OTHER PLAIN", "PLAIN PLAIN"])
def test_an_offer_counts_however_it_is_spelt(offers: str) -> None:
    session = Session(channel=UNBOUND)
    session.offered(offers)
    assert session.mechanism == "PLAIN"


@pytest.mark.parametrize("password", ["\U0001f600", "\u0627\u0031"])
def test_a_password_that_scram_cannot_have_goes_by_another(password: str) -> None:
    session = Session(Credentials("anna", password))
    session.offered()
    assert session.mechanism == "CRAM-MD5"
    assert "has no form by SASLprep" in unsupported(Session(Credentials("anna", password)), "SCRAM-SHA-1")


@pytest.mark.parametrize("channel", [CLEAR, UNVERIFIED])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_password_is_not_shown_where_nobody_vouches_for_the_server(
    channel: Channel, mechanism: str
) -> None:
    where = "whose certificate does not verify" if channel.secure else "in clear"
    told = unsupported(Session(channel=channel), mechanism)
    assert f"{mechanism} (it would show the password on a connection {where})" in told


@pytest.mark.parametrize("channel", [CLEAR, UNVERIFIED])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_nor_is_a_token(channel: Channel, mechanism: str) -> None:
    assert f"{mechanism} (it would show the token" in unsupported(Session(TOKEN, channel), mechanism)


@pytest.mark.parametrize("allowed", [{"local": True}, {"in_clear": True}])
@pytest.mark.parametrize("channel", [CLEAR, UNVERIFIED])
def test_it_is_shown_to_this_machine_and_where_somebody_chose_to(
    allowed: dict[str, Any], channel: Channel
) -> None:
    for credentials, mechanism in ((ANNA, "PLAIN"), (ANNA, "LOGIN"), (TOKEN, "XOAUTH2")):
        session = Session(credentials, channel, **allowed)
        session.offered(mechanism)
        assert session.mechanism == mechanism


@pytest.mark.parametrize("channel", [CLEAR, UNVERIFIED])
@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_what_does_not_show_it_may_be_said_anywhere(channel: Channel, mechanism: str) -> None:
    session = Session(channel=channel)
    session.offered(f"PLAIN {mechanism}")
    assert session.mechanism == mechanism
    with pytest.raises(Refused):
        session.hear(504)


@pytest.mark.parametrize(
    ("channel", "local", "usable"),
    [(CLEAR, False, False), (CLEAR, True, True), (UNVERIFIED, False, True), (VERIFIED, False, True)],
)
def test_external_needs_something_outside(channel: Channel, local: bool, usable: bool) -> None:
    session = Session(Credentials.external(), channel, local=local)
    if usable:
        assert session.offered("EXTERNAL") == b"AUTH EXTERNAL =\r\n"
    else:
        assert "EXTERNAL (there is no TLS)" in unsupported(session, "EXTERNAL")


def test_external_names_whom_to_act_as() -> None:
    assert Session(Credentials.external("anna")).offered("EXTERNAL") == b"AUTH EXTERNAL YW5uYQ==\r\n"


def test_without_md5_there_is_no_cram_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ValueError("unsupported")

    monkeypatch.setattr("hashlib.new", refuse)
    session = Session(channel=UNBOUND)
    session.offered("CRAM-MD5 PLAIN")
    assert session.mechanism == "PLAIN"
    assert "CRAM-MD5 (there is no MD5 on this machine)" in unsupported(Session(channel=UNBOUND), "CRAM-MD5")


# Nothing fits.


def test_no_auth_at_all_is_an_error_before_any_mail() -> None:
    assert unsupported(Session(), None) == "the server does not offer AUTH, and there are credentials"


def test_no_auth_in_clear_tells_of_the_starttls_that_is_not_wanted() -> None:
    session = Session(channel=CLEAR, tls=TLSMode.NO)
    assert unsupported(session, None, "STARTTLS").endswith("; it offers STARTTLS, and tls is NO")


def test_the_error_says_of_each_why_it_does_not_fit() -> None:
    told = unsupported(Session(channel=CLEAR), "GSSAPI PLAIN SCRAM-SHA-1-PLUS XOAUTH2")
    assert told == (
        "no mechanism to log in with; the server offers"
        " GSSAPI (not one that these credentials go with),"
        " PLAIN (it would show the password on a connection in clear),"
        " SCRAM-SHA-1-PLUS (there is no TLS to bind to),"
        " XOAUTH2 (not one that these credentials go with)"
    )


def test_what_the_credentials_leave_out_is_told_as_that() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN", "SCRAM-SHA-1"]), channel=CLEAR)
    told = unsupported(session, "SCRAM-SHA-256 LOGIN XOAUTH2")
    assert told.endswith(
        " SCRAM-SHA-256 (mechanisms leaves it out),"
        " LOGIN (it would show the password on a connection in clear),"
        " XOAUTH2 (not one that these credentials go with)"
    )


def test_names_that_are_none_are_not_told_and_others_only_so_many() -> None:
    names = " ".join(f"X-{number}" for number in range(100))
    told = unsupported(Session(), f"\x1b[2J {'X' * 21} {names}")
    assert "\x1b" not in told
    assert "X-17 " in told
    assert "X-18" not in told
    assert unsupported(Session(), "") == "no mechanism to log in with; the server offers none"


# The initial response.


def padded(length: int) -> Session:
    """PLAIN by a password of that many octets, and nothing else."""
    session = Session(Credentials("anna", "x" * length, mechanisms=["PLAIN"]))
    session.offered()
    return session


def test_it_goes_with_the_command_up_to_the_command_lines_limit() -> None:
    # 512 less "AUTH PLAIN " and CRLF leaves 499 characters, so 372 octets.
    session = padded(372 - len(b"\0anna\0"))
    assert isinstance(session.said, bytes)
    assert MAX_COMMAND - 4 < len(session.said) <= MAX_COMMAND


def test_beyond_that_it_is_the_answer_to_an_empty_challenge() -> None:
    session = padded(373 - len(b"\0anna\0"))
    assert session.said == b"AUTH PLAIN\r\n"
    assert session.asked() == b"\0anna\0" + b"x" * 367
    assert session.hear(235) is Action.READY


def test_a_server_that_did_not_take_it_is_given_it_once_more() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["PLAIN"]))
    session.offered()
    assert session.asked() == b"\0anna\0hunter2"
    assert session.asked() == b"*"


def test_a_long_one_is_not_given_for_a_challenge_that_is_not_empty() -> None:
    session = padded(1000)
    assert session.asked(b"Password:") == b"*"


@pytest.mark.parametrize("line", [b"334", b"334 "])
def test_an_empty_challenge_may_do_without_its_space(line: bytes) -> None:
    session = padded(1000)
    assert session.handshake.receive(Reply(334, (line,))) != b"*\r\n"


def test_the_longest_secrets_fit_a_line_within_the_exchange() -> None:
    credentials = Credentials("," * 255, token="x" * 8000)
    session = Session(credentials, host="h" * 63 + ".example")
    session.offered("OAUTHBEARER")
    session.asked()
    assert isinstance(session.said, bytes)
    assert len(session.said) <= MAX_LINE


# Challenges that are none.


@pytest.mark.parametrize(
    "line",
    [
        b"334 !",
        b"334 YQ",
        b"334 YQ=",
        b"334 YQ==YQ==",
        b"334 Y Q==",
        b"334 YQ== ",
        b"334  YQ==",
        b"334 YR==",
        b"334 Y-_=",
        b"334 =",
        b"334 *",
        b"334 Username:",
        b"334 \xff\xff\xff\xff",
    ],
)
def test_a_challenge_that_is_not_base64_ends_the_exchange_and_the_session(line: bytes) -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN"]))
    session.offered()
    assert session.handshake.receive(Reply(334, (line,))) == b"*\r\n"
    assert (session.handshake.state, session.handshake.command) == (State.CANCELED, "AUTH")
    with pytest.raises(ProtocolError, match="a challenge that is not base64"):
        session.hear(501)


def test_nor_is_one_of_more_than_one_line() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN"]))
    session.offered()
    assert session.handshake.receive(Reply(334, (b"334-YQ==", b"334 YQ=="))) == b"*\r\n"


@pytest.mark.parametrize("code", [235, 250, 334, 354, 421, 501, 535])
def test_whatever_a_cancelled_exchange_is_answered_with_the_fault_is_told(code: int) -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["CRAM-MD5"]))
    session.offered()
    assert session.asked() == b"*"
    with pytest.raises(ProtocolError, match="AUTH CRAM-MD5: a challenge that"):
        session.hear(code)
    assert not session.handshake.authenticated


def test_challenges_without_end_are_cancelled() -> None:
    class Patient(CramMD5):
        def step(self, challenge: bytes) -> bytes:
            return b"yes"

    session = Session(None, own=[Offer("X-PATIENT", lambda: named(Patient(ANNA), "X-PATIENT"), False)])
    session.offered("X-PATIENT")
    for _ in range(MAX_CHALLENGES):
        assert session.asked(b"?") == b"yes"
    assert session.asked(b"?") == b"*"


def test_a_response_that_is_no_line_is_not_written() -> None:
    class Verbose(CramMD5):
        def step(self, challenge: bytes) -> bytes:
            return b"x" * MAX_LINE

    session = Session(None, own=[Offer("X-VERBOSE", lambda: named(Verbose(ANNA), "X-VERBOSE"), False)])
    session.offered("X-VERBOSE")
    assert session.asked(b"?") == b"*"
    with pytest.raises(ProtocolError, match=f"a response over {MAX_LINE} octets"):
        session.hear(501)


@given(st.binary(max_size=50).filter(lambda octets: b"\r" not in octets and b"\n" not in octets))
def test_any_line_behind_334_has_a_response_or_ends_the_exchange(octets: bytes) -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["CRAM-MD5"]))
    session.offered()
    said = session.handshake.receive(Reply(334, (b"334 " + octets,)))
    assert isinstance(said, bytes)
    assert said.count(b"\r\n") == 1
    assert (said == b"*\r\n") is (session.handshake.state is State.CANCELED)


# Refusals.


@pytest.mark.parametrize("code", [421, 432, 454, 500, 501, 503, 530, 535, 538, 550])
def test_a_refusal_is_not_followed_by_another_attempt(code: int) -> None:
    session = Session(channel=UNBOUND)
    session.offered()
    with pytest.raises(Refused) as caught:
        session.hear(code, "5.7.8 no")
    error = caught.value
    assert (error.command, error.code, error.response) == ("AUTH", code, f"{code} 5.7.8 no")
    assert error.temporary is (code < 500)
    assert error.detail == ""
    assert str(error) == f"AUTH refused: {code} 5.7.8 no"


@pytest.mark.parametrize("code", [504, 534])
def test_the_next_one_is_tried_where_the_server_does_not_do_this_one(code: int) -> None:
    session = Session(channel=UNBOUND)
    session.offered("CRAM-MD5 PLAIN")
    assert session.mechanism == "CRAM-MD5"
    session.hear(code)
    assert session.mechanism == "PLAIN"
    with pytest.raises(Refused) as caught:
        session.hear(code)
    assert caught.value.code == code


def test_each_attempt_begins_anew() -> None:
    session = Session(channel=UNBOUND)
    session.offered("CRAM-MD5 LOGIN")
    session.asked(b"<1@x>")
    session.hear(534)
    assert session.asked(b"Username:") == b"anna"


@pytest.mark.parametrize("code", [220, 250, 251, 354])
def test_another_success_is_none(code: int) -> None:
    session = Session()
    session.offered()
    with pytest.raises(ProtocolError, match="unexpected reply to AUTH"):
        session.hear(code)
    assert not session.handshake.authenticated


@pytest.mark.parametrize(("mechanism", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\x01")])
def test_why_a_token_will_not_do_is_told(mechanism: str, answer: bytes) -> None:
    session = Session(TOKEN)
    session.offered(mechanism)
    assert session.asked(b'{"status":"invalid_token"}') == answer
    with pytest.raises(Refused) as caught:
        session.hear(535, "5.7.8 no")
    assert caught.value.response == "535 5.7.8 no"
    assert caught.value.detail == '{"status":"invalid_token"}'
    assert str(caught.value) == 'AUTH refused: 535 5.7.8 no ({"status":"invalid_token"})'


# SCRAM.


def test_a_success_before_the_server_has_proved_itself_is_not_believed() -> None:
    session = Session()
    session.offered("SCRAM-SHA-256")
    with pytest.raises(ProtocolError, match="AUTH SCRAM-SHA-256: a success before its time"):
        session.hear(235)
    assert not session.handshake.authenticated


def first_message(session: Session) -> bytes:
    """The one that AUTH bore."""
    assert isinstance(session.said, bytes)
    return b64decode(session.said.split()[2])


@pytest.mark.parametrize(
    ("channel", "offers", "mechanisms", "flag"),
    [
        (CLEAR, ALL, None, b"n,,"),
        (UNBOUND, PLUS, None, b"n,,"),
        (VERIFIED, ALL, None, b"y,,"),
        (UNVERIFIED, ALL, None, b"y,,"),
        (VERIFIED, PLUS, None, b"p=tls-exporter,,"),
        (UNVERIFIED, PLUS, None, b"p=tls-exporter,,"),
        # Who leaves -PLUS out does not support it; "y" would be refused.
        (VERIFIED, PLUS, ["SCRAM-SHA-256"], b"n,,"),
        (VERIFIED, ALL, ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], b"y,,"),
        # Who is offered -PLUS and says "y" is taken for one to whom it was hidden.
        (VERIFIED, PLUS, ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], b"n,,"),
        (VERIFIED, PLUS, ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"], b"n,,"),
    ],
)
def test_the_server_is_told_whether_we_would_have_bound_the_channel(
    channel: Channel, offers: str, mechanisms: Sequence[str] | None, flag: bytes
) -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=mechanisms), channel)
    session.offered(offers)
    assert first_message(session).startswith(flag)


@pytest.mark.parametrize("code", [501, 535, 550])
def test_a_binding_that_the_server_does_not_know_is_followed_by_the_next(code: int) -> None:
    session = Session()
    session.offered(PLUS)
    session.hear(code)
    assert session.mechanism == "SCRAM-SHA-256-PLUS"
    assert first_message(session).startswith(b"p=tls-server-end-point,,")
    # To do without would be what an attacker wants.
    with pytest.raises(Refused):
        session.hear(code)


def test_a_binding_that_is_refused_within_the_exchange_is_followed_by_the_next_too() -> None:
    session = Session()
    session.offered(PLUS)
    assert session.asked(b"e=unsupported-channel-binding-type") == b""
    session.hear(535)
    assert first_message(session).startswith(b"p=tls-server-end-point,,")
    session.asked(b"e=unsupported-channel-binding-type")
    with pytest.raises(Refused, match=r"535 text \(unsupported-channel-binding-type\)"):
        session.hear(535)


def test_a_server_that_is_busy_is_not_asked_for_another_binding() -> None:
    session = Session()
    session.offered(PLUS)
    with pytest.raises(Refused) as caught:
        session.hear(454)
    assert caught.value.temporary


def test_a_password_that_was_tried_is_not_tried_with_another_binding() -> None:
    session = Session()
    session.offered(PLUS)
    nonce = first_message(session).rpartition(b"r=")[2]
    session.asked(b"r=" + nonce + b"theirs,s=QSXCR+Q6sek8bf92,i=4096")
    with pytest.raises(Refused):
        session.hear(535)


def test_a_bound_mechanism_that_is_not_done_after_all_is_followed_by_one_that_says_so() -> None:
    session = Session()
    session.offered("SCRAM-SHA-256 SCRAM-SHA-256-PLUS")
    session.hear(504)
    session.hear(504)
    assert session.mechanism == "SCRAM-SHA-256"
    # A server that does have it sees that somebody said otherwise.
    assert first_message(session).startswith(b"y,,")


# Tokens.


@pytest.mark.parametrize(
    ("host", "where"),
    [("mx.example", b"host=mx.example\x01port=25\x01"), ("unix:/run/smtp", b"")],
)
def test_oauthbearer_says_where_it_logs_in(host: str, where: bytes) -> None:
    session = Session(TOKEN, host=host)
    session.offered("OAUTHBEARER")
    assert first_message(session) == b"n,a=anna,\x01" + where + b"auth=Bearer ya29.token\x01\x01"


# Mechanisms of the user's own.


def named(mechanism: Any, name: str) -> Mechanism:
    mechanism.name = name
    made: Mechanism = mechanism
    return made


def own(name: str, shows_secret: bool = False) -> Offer:
    return Offer(name, lambda: named(CramMD5(ANNA), name), shows_secret)


def test_a_mechanism_of_the_users_is_tried_beside_ours_by_its_strength() -> None:
    session = Session(channel=UNBOUND, own=[own("LOGIN"), own("X-THEIRS"), own("SCRAM-SHA-1")])
    assert tried(session, f"{ALL} X-THEIRS") == [
        "X-THEIRS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ]


def test_it_replaces_ours_of_its_name() -> None:
    session = Session(channel=UNBOUND, own=[own("PLAIN")])
    assert session.offered("PLAIN") == b"AUTH PLAIN\r\n"


def test_the_credentials_say_which_are_tried_also_of_theirs() -> None:
    chosen = Credentials("anna", "hunter2", mechanisms=["PLAIN", "CRAM-MD5"])
    assert tried(Session(chosen, UNBOUND, own=[own("X"), own("CRAM-MD5")]), f"{ALL} X") == [
        "PLAIN",
        "CRAM-MD5",
    ]


def test_one_that_shows_the_secret_is_held_to_the_same_rule() -> None:
    session = Session(None, CLEAR, own=[own("X-SHOWS", shows_secret=True)])
    assert "X-SHOWS (it would show the secret on a connection in clear)" in unsupported(session, "X-SHOWS")
    assert Session(None, VERIFIED, own=[own("X-SHOWS", shows_secret=True)]).offered("X-SHOWS")


def test_nothing_to_log_in_with_is_an_error_where_a_login_is_required() -> None:
    assert "PLAIN (not one that" in unsupported(Session(None), "PLAIN")


# What may be told.


@pytest.mark.parametrize(
    "said",
    [
        "5.7.8 hunter2 is wrong",
        "5.7.8 AGFubmEAaHVudGVyMg== is wrong",
        "5.7.8 aHVudGVyMg== is wrong",
        f"5.7.8 {b64encode(b'xhunter2').decode()} is wrong",
    ],
)
@pytest.mark.parametrize("code", [535, 250, 421])
def test_a_secret_that_the_server_repeats_is_in_no_error(said: str, code: int) -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["PLAIN"]))
    session.offered()
    with pytest.raises((Refused, ProtocolError)) as caught:
        session.hear(code, said)
    assert "5.7.8 *** is wrong" in str(caught.value)
    if isinstance(caught.value, Refused):
        assert caught.value.response == f"{code} 5.7.8 *** is wrong"


def test_nor_is_one_that_it_repeats_within_the_exchange() -> None:
    session = Session(TOKEN)
    session.offered("XOAUTH2")
    session.asked(b'{"status":"401","token":"ya29.token"}')
    with pytest.raises(Refused) as caught:
        session.hear(535)
    assert caught.value.detail == '{"status":"401","token":"***"}'


LONG = Credentials("anna", token="ya29." + "".join(f"{n:x}_" for n in range(400)))


@pytest.mark.parametrize(
    ("credentials", "before", "escaped"),
    [
        (LONG, "", False),
        # Octet 500, where an error's text is cut, is within it.
        (TOKEN, "x" * 458, False),
        (Credentials("anna", token="ya29/a/b/c"), "", True),
        (Credentials("anna", token="ya29\\a\\b\\c"), "line\n", False),
    ],
)
def test_nor_is_one_that_would_be_cut_or_escaped_in_the_errors_text(
    credentials: Credentials, before: str, escaped: bool
) -> None:
    assert credentials.token is not None
    said = json.dumps({"status": "401", "more": before, "bad": credentials.token.text})
    session = Session(credentials)
    session.offered("XOAUTH2")
    session.handshake.receive(reply(334, ""))
    session.asked((said.replace("/", "\\/") if escaped else said).encode())
    with pytest.raises(Refused) as caught:
        session.hear(535)
    assert "ya29" not in str(caught.value)
    assert '"***"' in caught.value.detail
    assert len(caught.value.detail) <= 2 * MAX_DETAIL


def test_nor_is_one_in_a_challenge_that_a_fault_quotes() -> None:
    class Quoting(CramMD5):
        def step(self, challenge: bytes) -> bytes:
            raise ProtocolError(f"AUTH X: it says {challenge.decode()}")

    session = Session(ANNA, own=[Offer("CRAM-MD5", lambda: Quoting(ANNA), False)])
    session.offered("CRAM-MD5")
    assert session.asked(b"hunter2\x1b") == b"*"
    with pytest.raises(ProtocolError, match=r"^AUTH X: it says \*\*\*\\x1b$"):
        session.hear(501)


@pytest.mark.parametrize("code", [554, 421, 354])
def test_nor_is_one_that_it_knew_before(code: int) -> None:
    handshake = Handshake(Server(host="mx"), "me", login=LogIn(Server(host="mx"), ANNA))
    with pytest.raises((Refused, ProtocolError)) as caught:
        handshake.receive(reply(code, "5.7.1 go away, hunter2"))
    assert "go away, ***" in str(caught.value)
    handshake = Handshake(Server(host="mx"), "me", login=LogIn(Server(host="mx"), ANNA))
    handshake.receive(reply(220, "hello hunter2"))
    assert handshake.greeting == reply(220, "hello ***")
    with pytest.raises((Refused, ProtocolError)) as caught:
        handshake.receive(reply(code, "no hunter2"))
    assert "no ***" in str(caught.value)


def test_what_is_offered_is_told_without_a_secret_and_read_with_it() -> None:
    session = Session(Credentials("anna", "XHUNTER2", mechanisms=["LOGIN"]))
    assert "PLAIN (" in unsupported(session, "XHUNTER2 PLAIN", "X-XHUNTER2")
    assert "XHUNTER2" not in unsupported(Session(Credentials("anna", "XHUNTER2")), "XHUNTER2")
    assert session.handshake.extensions["AUTH"] == ("XHUNTER2", "PLAIN")
    assert dict(session.handshake.told_extensions) == {"AUTH": ("***", "PLAIN")}
    fresh = Handshake(Server(host="mx"), "me")
    assert dict(fresh.told_extensions) == {}


def test_what_was_offered_in_clear_is_not_told_behind_tls() -> None:
    session = Session(channel=CLEAR)
    session.offered("PLAIN", "STARTTLS")
    session.handshake.receive(reply(220))
    session.handshake.tls_established()
    assert dict(session.handshake.told_extensions) == {}


def test_a_token_that_was_refused_before_this_one_is_a_secret_too() -> None:
    credentials = TOKEN.with_token(Secret("ya29.fresh-one"), spent=Secret("ya29.stale-one"))
    session = Session(credentials)
    session.offered("XOAUTH2")
    with pytest.raises(Refused, match=r"535 before \*\*\*, now \*\*\*$"):
        session.hear(535, "before ya29.stale-one, now ya29.fresh-one")


def test_a_name_is_no_secret() -> None:
    session = Session(Credentials("anna", "hunter2", mechanisms=["LOGIN"]))
    session.offered()
    session.asked(b"Username:")
    with pytest.raises(Refused, match="535 no anna here"):
        session.hear(535, "no anna here")


def test_a_secret_of_the_users_own_mechanism_is_one_too() -> None:
    session = Session(None, own=[own("X")], secrets=[Secret(b"\xffgeheim")])
    session.offered("X")
    with pytest.raises(Refused, match=r"535 \*\*\*!"):
        session.handshake.receive(Reply(535, (b"535 \xffgeheim!",)))


def test_what_is_said_before_the_login_is_read_as_it_stands() -> None:
    """A password of LOGIN takes nothing away from what is offered."""
    session = Session(Credentials("anna", "LOGIN", mechanisms=["LOGIN"]))
    assert session.offered("LOGIN") == b"AUTH LOGIN\r\n"


def test_it_shows_nothing_itself() -> None:
    assert repr(LogIn(Server(host="mx"), ANNA)) == "<LogIn <Credentials 'anna'>>"
    assert "AUTH" not in Extensions()
