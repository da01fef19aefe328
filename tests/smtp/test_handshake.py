"""
Tests of what is said from the greeting to the first MAIL.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.smtp.script import reply
from twisted_smtpclient.errors import DeliveryError, ExtensionUnsupported, ProtocolError, Refused
from twisted_smtpclient.smtp.credentials import Credentials
from twisted_smtpclient.smtp.handshake import Action, Handshake, State
from twisted_smtpclient.smtp.login import LogIn
from twisted_smtpclient.smtp.policy import Mode, Protocol, Server, TLSMode
from twisted_smtpclient.smtp.reply import Reply


def terms(
    *,
    tls: TLSMode = TLSMode.TRY,
    protocol: Protocol = Protocol.SMTP,
    pipelining: Mode = Mode.TRY,
    chunking: Mode = Mode.TRY,
) -> Server:
    return Server(host="mx.example", tls=tls, protocol=protocol, pipelining=pipelining, chunking=chunking)


def offering(*keywords: str) -> Reply:
    """A positive reply to EHLO."""
    lines = ["mx.example", *keywords]
    last = len(lines) - 1
    return Reply(250, tuple(f"250{'-' if n < last else ' '}{line}".encode() for n, line in enumerate(lines)))


def greeted(server: Server | None = None, **switches: Any) -> Handshake:
    """A handshake whose EHLO or LHLO was written."""
    handshake = Handshake(server or terms(), "me.example", **switches)
    handshake.receive(reply(220))
    return handshake


def starting_tls(server: Server | None = None) -> Handshake:
    """A handshake whose STARTTLS was written."""
    handshake = greeted(server)
    assert handshake.receive(offering("STARTTLS", "PIPELINING")) == b"STARTTLS\r\n"
    return handshake


def secured(server: Server | None = None) -> Handshake:
    """A handshake whose EHLO was written under TLS."""
    handshake = starting_tls(server)
    assert handshake.receive(reply(220)) is Action.START_TLS
    handshake.tls_established()
    return handshake


def state_of(state: State) -> Handshake:
    """A handshake that waits for the reply of a state."""
    if state is State.GREETING:
        return Handshake(terms(), "me.example")
    if state is State.EHLO:
        return greeted()
    if state is State.LHLO:
        return greeted(terms(protocol=Protocol.LMTP))
    if state is State.HELO:
        handshake = greeted()
        handshake.receive(reply(502))
        return handshake
    if state is State.STARTTLS:
        return starting_tls()
    if state is State.TLS:
        handshake = starting_tls()
        handshake.receive(reply(220))
        return handshake
    if state in (State.AUTH, State.CANCELED):
        server = terms()
        handshake = greeted(server, login=LogIn(server, Credentials("anna", "hunter2"), local=True))
        handshake.receive(offering("AUTH PLAIN"))
        if state is State.CANCELED:
            assert handshake.receive(reply(334, "!")) == b"*\r\n"
        return handshake
    handshake = greeted()
    handshake.receive(offering())
    return handshake


ANSWERED = [State.GREETING, State.EHLO, State.LHLO, State.HELO, State.STARTTLS]
COMMANDS = {
    State.GREETING: "CONNECT",
    State.EHLO: "EHLO",
    State.LHLO: "LHLO",
    State.HELO: "HELO",
    State.STARTTLS: "STARTTLS",
    State.AUTH: "AUTH",
    State.CANCELED: "AUTH",
}


# The legal walks.


def test_the_greeting_is_answered_with_ehlo() -> None:
    handshake = Handshake(terms(), "me.example")
    assert handshake.state is State.GREETING
    assert handshake.greeting is None
    greeting = reply(220, "mx.example ESMTP")
    assert handshake.receive(greeting) == b"EHLO me.example\r\n"
    assert handshake.greeting == greeting


def test_ehlo_without_starttls_is_all_it_takes() -> None:
    handshake = greeted()
    assert handshake.receive(offering("PIPELINING", "SIZE 100")) is Action.READY
    assert handshake.state is State.READY
    assert dict(handshake.extensions) == {"PIPELINING": (), "SIZE": ("100",)}
    assert not handshake.secure


@pytest.mark.parametrize("code", [500, 502, 504])
def test_helo_follows_where_ehlo_is_not_known(code: int) -> None:
    handshake = greeted()
    assert handshake.receive(reply(code)) == b"HELO me.example\r\n"
    assert handshake.receive(reply(250)) is Action.READY
    assert len(handshake.extensions) == 0


def test_starttls_is_tried_where_it_is_offered() -> None:
    handshake = greeted()
    assert handshake.receive(offering("STARTTLS", "PIPELINING")) == b"STARTTLS\r\n"
    assert handshake.receive(reply(220)) is Action.START_TLS
    before = handshake.secure
    assert handshake.tls_established() == b"EHLO me.example\r\n"
    assert (before, handshake.secure) == (False, True)
    assert handshake.receive(offering("CHUNKING")) is Action.READY


def test_what_was_learnt_in_clear_is_forgotten_under_tls() -> None:
    handshake = secured()
    assert len(handshake.extensions) == 0
    handshake.receive(offering("CHUNKING"))
    assert list(handshake.extensions) == ["CHUNKING"]


def test_starttls_is_not_said_under_tls_however_often_it_is_offered() -> None:
    assert secured().receive(offering("STARTTLS")) is Action.READY
    implicit = greeted(terms(tls=TLSMode.IMPLICIT), secure=True)
    assert implicit.receive(offering("STARTTLS")) is Action.READY


@pytest.mark.parametrize("code", [454, 501, 502, 554])
def test_a_refused_starttls_is_no_matter_where_tls_is_only_tried(code: int) -> None:
    handshake = starting_tls()
    assert handshake.receive(reply(code)) is Action.READY
    assert list(handshake.extensions) == ["STARTTLS", "PIPELINING"]
    assert not handshake.secure


def test_lmtp_says_lhlo_before_and_under_tls() -> None:
    handshake = Handshake(terms(protocol=Protocol.LMTP), "me.example")
    assert handshake.receive(reply(220)) == b"LHLO me.example\r\n"
    assert handshake.receive(offering("STARTTLS")) == b"STARTTLS\r\n"
    assert handshake.receive(reply(220)) is Action.START_TLS
    assert handshake.tls_established() == b"LHLO me.example\r\n"
    assert handshake.receive(offering()) is Action.READY


def test_starttls_is_left_out_where_the_terms_or_the_caller_say_so() -> None:
    assert greeted(terms(tls=TLSMode.NO)).receive(offering("STARTTLS")) is Action.READY
    assert greeted(terms(), may_start_tls=False).receive(offering("STARTTLS")) is Action.READY


# What is not in the table.


def test_each_state_has_a_reply_to_wait_for_or_is_tls_or_ready() -> None:
    for state in State:
        handshake = state_of(state)
        assert handshake.state is state
        assert handshake.command == COMMANDS.get(state, state.name)
    assert set(COMMANDS) == set(State) - {State.TLS, State.READY}


@pytest.mark.parametrize("state", [State.TLS, State.READY])
@pytest.mark.parametrize("code", [220, 250, 354, 421, 554])
def test_a_reply_that_no_command_waits_for_is_a_protocol_error(state: State, code: int) -> None:
    with pytest.raises(ProtocolError, match="a reply "):
        state_of(state).receive(reply(code))


@pytest.mark.parametrize("state", ANSWERED)
@pytest.mark.parametrize("code", [200, 211, 251, 300, 334, 354])
def test_another_positive_reply_than_the_one_expected_is_a_protocol_error(state: State, code: int) -> None:
    with pytest.raises(ProtocolError, match=f"unexpected reply to {COMMANDS[state]}: '{code} text'"):
        state_of(state).receive(reply(code))


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.GREETING, 250), (State.EHLO, 220), (State.LHLO, 220), (State.HELO, 220), (State.STARTTLS, 250)],
)
def test_the_success_of_one_command_is_not_that_of_another(state: State, code: int) -> None:
    with pytest.raises(ProtocolError):
        state_of(state).receive(reply(code))


# Refusals.


@pytest.mark.parametrize("state", [State.GREETING, State.EHLO, State.LHLO, State.HELO])
@pytest.mark.parametrize("code", [421, 450, 554])
def test_a_refusal_names_the_command_and_what_was_said(state: State, code: int) -> None:
    with pytest.raises(Refused) as caught:
        state_of(state).receive(reply(code, "go away"))
    refused = caught.value
    assert (refused.command, refused.code, refused.response) == (COMMANDS[state], code, f"{code} go away")
    assert refused.temporary is (code < 500)


@pytest.mark.parametrize("state", [State.LHLO, State.HELO])
@pytest.mark.parametrize("code", [500, 502, 504])
def test_helo_is_never_said_twice_nor_to_lmtp(state: State, code: int) -> None:
    with pytest.raises(Refused):
        state_of(state).receive(reply(code))


@pytest.mark.parametrize("code", [501, 503, 530, 550, 554])
def test_any_other_refusal_of_ehlo_is_meant(code: int) -> None:
    with pytest.raises(Refused, match=f"EHLO refused: {code}"):
        greeted().receive(reply(code))


def test_helo_does_not_follow_where_the_caller_forbids_it() -> None:
    with pytest.raises(Refused, match="EHLO refused: 502"):
        greeted(helo_fallback=False).receive(reply(502))


@pytest.mark.parametrize("code", [500, 502, 504])
def test_helo_does_not_follow_where_ehlo_was_known_before_starttls(code: int) -> None:
    with pytest.raises(Refused, match=f"EHLO refused: {code}"):
        secured().receive(reply(code))


@pytest.mark.parametrize("code", [500, 502, 504])
def test_helo_may_follow_under_tls_from_the_first_octet(code: int) -> None:
    handshake = greeted(terms(tls=TLSMode.IMPLICIT), secure=True)
    assert handshake.receive(reply(code)) == b"HELO me.example\r\n"


@pytest.mark.parametrize(
    ("server", "what"),
    [
        (terms(tls=TLSMode.DEPEND), "STARTTLS, and tls is DEPEND"),
        (terms(pipelining=Mode.DEPEND), "PIPELINING, and pipelining is DEPEND"),
        (terms(chunking=Mode.DEPEND), "CHUNKING, and chunking is DEPEND"),
    ],
)
def test_where_something_is_required_helo_is_not_even_tried(server: Server, what: str) -> None:
    handshake = greeted(server)
    with pytest.raises(ExtensionUnsupported, match=what):
        handshake.receive(reply(502))
    assert handshake.state is State.EHLO


@pytest.mark.parametrize("tls", [TLSMode.TRY, TLSMode.DEPEND])
def test_421_to_starttls_ends_the_session_whatever_the_terms(tls: TLSMode) -> None:
    with pytest.raises(Refused, match="STARTTLS refused: 421"):
        starting_tls(terms(tls=tls)).receive(reply(421))


@pytest.mark.parametrize("code", [454, 502, 554])
def test_a_refused_starttls_is_an_error_where_tls_is_required(code: int) -> None:
    with pytest.raises(Refused, match=f"STARTTLS refused: {code}"):
        starting_tls(terms(tls=TLSMode.DEPEND)).receive(reply(code))


# What is required.


def test_required_tls_that_is_not_offered_is_an_error() -> None:
    with pytest.raises(ExtensionUnsupported, match="does not offer STARTTLS, and tls is DEPEND"):
        greeted(terms(tls=TLSMode.DEPEND)).receive(offering("PIPELINING"))


@pytest.mark.parametrize("tls", [TLSMode.DEPEND, TLSMode.IMPLICIT])
def test_a_caller_that_leaves_starttls_out_does_not_undo_terms_that_require_tls(tls: TLSMode) -> None:
    with pytest.raises(ExtensionUnsupported, match=f"tls is {tls.value}"):
        greeted(terms(tls=tls), may_start_tls=False).receive(offering("STARTTLS"))


@pytest.mark.parametrize("field", ["pipelining", "chunking"])
def test_a_required_extension_must_be_offered(field: str) -> None:
    server = terms(**{field: Mode.DEPEND})  # type: ignore[arg-type]  # one of two fields of one type
    others = {"PIPELINING", "CHUNKING"} - {field.upper()}
    with pytest.raises(ExtensionUnsupported, match=f"does not offer {field.upper()}, and {field} is DEPEND"):
        greeted(server).receive(offering(*others))
    assert greeted(server).receive(offering(field.upper())) is Action.READY


def test_an_extension_that_was_offered_in_clear_alone_is_not_offered() -> None:
    with pytest.raises(ExtensionUnsupported, match="PIPELINING"):
        secured(terms(pipelining=Mode.DEPEND)).receive(offering("CHUNKING"))


def test_an_extension_that_is_offered_under_tls_alone_is_offered() -> None:
    handshake = greeted(terms(chunking=Mode.DEPEND))
    assert handshake.receive(offering("STARTTLS")) == b"STARTTLS\r\n"
    assert handshake.receive(reply(220)) is Action.START_TLS
    handshake.tls_established()
    assert handshake.receive(offering("CHUNKING")) is Action.READY


def test_an_extension_that_the_terms_refuse_is_not_asked_for() -> None:
    server = terms(pipelining=Mode.NO, chunking=Mode.NO)
    assert greeted(server).receive(offering("PIPELINING", "CHUNKING")) is Action.READY


# Whose fault it is.


@pytest.mark.parametrize("state", list(State))
def test_only_starttls_and_its_handshake_may_be_the_fault_of_tls(state: State) -> None:
    assert state_of(state).tls_may_be_at_fault is (state in (State.STARTTLS, State.TLS))


def test_a_failure_leaves_the_state_as_it_was() -> None:
    handshake = starting_tls(terms(tls=TLSMode.DEPEND))
    with pytest.raises(DeliveryError):
        handshake.receive(reply(454))
    assert handshake.tls_may_be_at_fault
