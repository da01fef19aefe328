"""
Tests of a session up to its first mail: greeting, EHLO, HELO, LHLO, and the name that is given.
"""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, Session, envelope, terms
from twisted_smtpclient import (
    ConnectionLost,
    Content,
    ExtensionUnsupported,
    InvalidRequest,
    Mode,
    PipeliningESMTPClient,
    Protocol,
    ProtocolError,
    Refused,
    ResponseTimeout,
    Timeouts,
)

GREETING = b"220 server.example ESMTP"
#: TLS 1.2's alert "handshake failure", as a server says it that wants TLS from the first octet.
TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


# Greetings.


def test_a_greeting_is_answered_with_ehlo() -> None:
    session = Session(terms(helo="me.example"))
    assert session.say(GREETING) == b"EHLO me.example\r\n"


def test_nothing_is_said_before_the_greeting() -> None:
    session = Session()
    session.network.elapse(10)
    assert session.script.all == b""


def test_nagles_algorithm_is_off() -> None:
    assert Session().end.no_delay


def test_a_greeting_of_many_lines_is_one_greeting() -> None:
    session = Session(terms(helo="me.example"))
    assert session.say(b"220-server.example ESMTP") == b""
    assert session.say(b"220-no spam", b"220 please") == b"EHLO me.example\r\n"
    assert session.client.handshake is not None
    greeting = session.client.handshake.greeting
    assert greeting is not None
    assert greeting.text == "220-server.example ESMTP\n220-no spam\n220 please"


def test_a_greeting_split_octet_by_octet_is_answered_once() -> None:
    session = Session(terms(helo="me.example"))
    assert session.octet_by_octet(b"220-server.example", GREETING) == b"EHLO me.example\r\n"
    assert session.octet_by_octet(b"250-server.example", b"250-PIPELINING", b"250 SIZE 10") == b""
    assert session.ready.value is session.client
    assert session.client.handshake is not None
    assert dict(session.client.handshake.extensions) == {"PIPELINING": (), "SIZE": ("10",)}


@pytest.mark.parametrize(
    ("reply", "temporary"), [(b"554 no service here", False), (b"450 not now", True), (b"521 never", False)]
)
def test_a_server_that_refuses_the_session_is_told_quit(reply: bytes, temporary: bool) -> None:
    session = Session()
    _, outcome = session.deliver()
    assert session.say(reply) == b"QUIT\r\n"
    for error in (session.ready.error, outcome.error):
        assert isinstance(error, Refused)
        assert (error.command, error.code, error.response) == ("CONNECT", int(reply[:3]), reply.decode())
        assert error.temporary is temporary
        assert error.recipients == ()
    assert not session.over
    session.say(b"221 bye")
    assert session.over


def test_a_server_that_refuses_the_session_and_does_not_answer_quit_is_left_after_its_bound() -> None:
    session = Session()
    session.say(b"554 no service here")
    session.network.elapse(4.9)
    assert not session.over
    session.network.elapse(0.2)
    assert session.over


def test_a_server_that_greets_with_421_is_told_nothing() -> None:
    session = Session()
    _, outcome = session.deliver()
    assert session.say(b"421 too busy") == b""
    assert isinstance(outcome.error, Refused)
    assert (outcome.error.command, outcome.error.code) == ("CONNECT", 421)
    assert outcome.error.temporary
    assert session.over


@pytest.mark.parametrize(
    "octets",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"+OK POP3 ready\r\n",
        b"* OK IMAP4rev1\r\n",
        TLS_ALERT + b"\r\n",
        b"\xff" * 5000,
        b"220 hi\n",
        b"\r\n",
        b"220\x00hi\r\n",
        b"999 hi\r\n",
        b"220_hi\r\n",
        b"220-one\r\n250 other\r\n",
        b"354 go ahead\r\n",
        b"250 fine\r\n",
        b"235 logged in\r\n",
    ],
)
def test_what_is_no_greeting_ends_the_session_as_a_protocol_error(octets: bytes) -> None:
    session = Session()
    _, outcome = session.deliver()
    assert session.send(octets) == b""
    assert type(outcome.error) is ProtocolError
    assert session.over


@pytest.mark.parametrize(
    "behind",
    [
        b"250 server.example\r\n",
        b"220 again\r\n",
        b"2",
        b"250-server",
        b"354 go ahead\r\n250 queued\r\n",
        b"\x00garbage\r\n",
        b"not a reply\r\n",
        b"\n",
    ],
)
def test_a_greeting_with_more_behind_it_is_not_believed(behind: bytes) -> None:
    session = Session()
    _, outcome = session.deliver()
    session.send(GREETING + b"\r\n" + behind)
    assert session.end.writes == []
    assert type(outcome.error) is ProtocolError
    assert session.over


def test_a_greeting_with_421_behind_it_is_a_refusal() -> None:
    session = Session()
    _, outcome = session.deliver()
    assert session.say(GREETING, b"421 too busy after all") == b""
    assert isinstance(outcome.error, Refused)
    assert (outcome.error.command, outcome.error.code) == ("CONNECT", 421)
    assert session.over


def test_a_server_that_closes_before_it_greets_is_a_lost_connection() -> None:
    session = Session()
    _, outcome = session.deliver()
    session.hang_up()
    assert isinstance(outcome.error, ConnectionLost)
    assert str(outcome.error).startswith("connection lost, no greeting")
    assert session.over


def test_a_server_that_closes_after_ehlo_is_a_lost_connection() -> None:
    session = Session()
    session.say(GREETING)
    session.hang_up()
    assert str(session.ready.error).startswith("connection lost, no reply to EHLO")
    assert session.over


# EHLO, HELO, LHLO.


@pytest.mark.parametrize("code", [500, 502, 504])
def test_ehlo_that_is_not_known_is_followed_by_helo_once(code: int) -> None:
    session = Session(terms(helo="me.example"))
    session.say(GREETING)
    assert session.say(b"%d what?" % code) == b"HELO me.example\r\n"
    session.say(b"250 hello")
    assert session.ready.value is session.client
    assert session.client.handshake is not None
    assert dict(session.client.handshake.extensions) == {}


@pytest.mark.parametrize("code", [500, 502, 504])
def test_helo_that_is_refused_as_well_is_the_end(code: int) -> None:
    session = Session()
    session.say(GREETING)
    session.say(b"500 what?")
    assert session.say(b"%d what now?" % code) == b"QUIT\r\n"
    error = session.ready.error
    assert isinstance(error, Refused)
    assert (error.command, error.code) == ("HELO", code)


@pytest.mark.parametrize("code", [421, 450, 451, 501, 503, 530, 550, 554])
def test_ehlo_that_is_refused_for_another_reason_is_not_followed_by_helo(code: int) -> None:
    session = Session()
    session.say(GREETING)
    assert session.say(b"%d no" % code) == (b"" if code == 421 else b"QUIT\r\n")
    error = session.ready.error
    assert isinstance(error, Refused)
    assert (error.command, error.code, error.temporary) == ("EHLO", code, code < 500)


@pytest.mark.parametrize("code", [200, 220, 251, 334, 354])
def test_ehlo_answered_with_another_success_is_a_protocol_error(code: int) -> None:
    session = Session()
    session.say(GREETING)
    assert session.say(b"%d fine" % code) == b""
    assert type(session.ready.error) is ProtocolError
    assert session.over


def test_an_ehlo_reply_with_a_reply_behind_it_is_not_believed() -> None:
    session = Session()
    session.deliver()
    session.say(GREETING)
    assert session.say(b"250 server.example", b"250 sender ok") == b""
    assert type(session.ready.error) is ProtocolError
    assert session.over


@pytest.mark.parametrize("behind", [b"2", b"garbage\r\n", b"250-"])
def test_an_ehlo_reply_with_a_piece_of_more_behind_it_is_not_believed(behind: bytes) -> None:
    session = Session()
    session.deliver()
    session.say(GREETING)
    session.send(b"250 server.example\r\n" + behind)
    assert len(session.end.writes) == 1
    assert type(session.ready.error) is ProtocolError
    assert session.over


def test_lmtp_says_lhlo_and_never_helo() -> None:
    session = Session(terms(helo="me.example", protocol=Protocol.LMTP))
    assert session.say(GREETING) == b"LHLO me.example\r\n"
    assert session.say(b"500 what?") == b"QUIT\r\n"
    error = session.ready.error
    assert isinstance(error, Refused)
    assert error.command == "LHLO"


@pytest.mark.parametrize(("field", "keyword"), [("pipelining", "PIPELINING"), ("chunking", "CHUNKING")])
def test_an_extension_that_is_depended_on_and_not_offered_ends_the_session(field: str, keyword: str) -> None:
    session = Session(terms(**{field: Mode.DEPEND}))
    _, outcome = session.deliver()
    assert session.open(b"SIZE") == b"QUIT\r\n"
    assert isinstance(outcome.error, ExtensionUnsupported)
    assert keyword in str(outcome.error)
    session.say(b"221 bye")
    assert session.over


@pytest.mark.parametrize("field", ["pipelining", "chunking"])
def test_what_helo_cannot_offer_is_missed_before_helo_is_said(field: str) -> None:
    session = Session(terms(**{field: Mode.DEPEND}))
    session.say(GREETING)
    assert session.say(b"502 what?") == b"QUIT\r\n"
    assert isinstance(session.ready.error, ExtensionUnsupported)


# The name that is given.


def test_the_servers_terms_name_us_before_the_identity_does() -> None:
    session = Session(terms(helo="terms.example"), identity="identity.example")
    assert session.say(GREETING) == b"EHLO terms.example\r\n"


def test_the_identity_names_us_where_the_terms_do_not() -> None:
    session = Session(identity=b"identity.example")
    assert session.say(GREETING) == b"EHLO identity.example\r\n"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (IPv4Address("TCP", HOST, 25), b"[192.0.2.7]"),
        (IPv6Address("TCP", "2001:db8::1", 25), b"[IPv6:2001:db8::7]"),
        (UNIXAddress("/run/lmtp"), b"localhost"),
    ],
)
def test_a_nameless_client_gives_its_own_address_as_a_literal(
    address: IPv4Address | IPv6Address | UNIXAddress, name: bytes
) -> None:
    assert Session(address=address).say(GREETING) == b"EHLO " + name + b"\r\n"


def test_the_zone_of_a_link_local_address_is_no_part_of_its_literal() -> None:
    network = Network()
    client = PipeliningESMTPClient(server=terms(), reactor=network)
    session = Session(client=client)
    session.end._host = IPv6Address("TCP", "fe80::7%eth0", 25)
    client.connectionMade()
    assert session.say(GREETING) == b"EHLO [IPv6:fe80::7]\r\n"


@pytest.mark.parametrize(
    "identity",
    [
        b"me\r\nMAIL FROM:<evil@example.org>",
        b"me.example\n",
        b"me\x00",
        b"a b",
        b"-",
        b"x" * 300,
        b"\xe4.example",
    ],
)
def test_an_identity_that_could_add_a_command_is_refused_at_once(identity: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        PipeliningESMTPClient(server=terms(), reactor=Network(), identity=identity)
    assert caught.value.field == "helo"


def test_an_identity_set_later_that_could_add_a_command_never_reaches_the_wire() -> None:
    client = PipeliningESMTPClient(server=terms(), reactor=Network())
    client.identity = b"me\r\nNOOP injected"
    outcome = Outcome(client.deliver(envelope(), Content(b"")))
    session = Session(client=client)
    assert session.end.writes == []
    assert isinstance(outcome.error, InvalidRequest)
    assert session.script.lost


# Time.


@pytest.mark.parametrize(
    ("said", "phrase", "bound"),
    [
        ((), "no greeting", 7),
        ((GREETING,), "no reply to EHLO", 11),
        ((GREETING, b"500 what?"), "no reply to HELO", 11),
    ],
)
def test_a_reply_that_does_not_come_ends_the_session_within_its_bound(
    said: tuple[bytes, ...], phrase: str, bound: int
) -> None:
    session = Session(terms(timeouts=Timeouts(greeting=7, other=11)))
    for line in said:
        session.say(line)
    _, outcome = session.deliver()
    session.network.elapse(bound - 0.5, 0.5)
    assert not outcome.came
    session.network.elapse(0.5, 0.5)
    assert isinstance(outcome.error, ResponseTimeout)
    assert str(outcome.error) == f"{phrase} within {bound} s"
    assert session.over


@pytest.mark.parametrize("before", [(), (GREETING,)])
def test_a_server_that_trickles_does_not_move_the_timer(before: tuple[bytes, ...]) -> None:
    session = Session(terms(timeouts=Timeouts.uniform(10)))
    for line in before:
        session.say(line)
    for _ in range(9):
        session.network.elapse(1)
        session.say(b"220-wait" if not before else b"250-wait")
        assert not session.ready.came
    session.network.elapse(1)
    assert isinstance(session.ready.error, ResponseTimeout)
    assert session.over


def test_a_server_that_floods_is_left_at_the_parsers_bound() -> None:
    session = Session()
    session.send(b"220-spam\r\n" * 300)
    assert type(session.ready.error) is ProtocolError
    assert session.over


# What may be asked before and after.


def test_a_session_is_nothing_before_it_is_connected() -> None:
    client = PipeliningESMTPClient(server=terms(), reactor=Network())
    assert client.handshake is None
    assert client.pipeline is None
    assert client.accepts


def test_when_ready_fires_also_for_who_asks_late() -> None:
    session = Session()
    session.open(b"PIPELINING")
    assert Outcome(session.client.when_ready()).value is session.client


def test_when_ready_errbacks_also_for_who_asks_late() -> None:
    session = Session()
    session.say(b"554 no")
    assert Outcome(session.client.when_ready()).error is session.ready.error


def test_when_gone_fires_also_for_who_asks_late() -> None:
    session = Session()
    session.hang_up()
    assert isinstance(session.ready.error, ConnectionLost)
    assert Outcome(session.client.when_gone()).value is None


def test_a_session_that_has_failed_takes_no_further_mail() -> None:
    session = Session()
    session.say(b"554 no")
    assert not session.client.accepts
    _, outcome = session.deliver()
    assert outcome.error is session.ready.error


def test_an_abort_in_the_handshake_is_the_outcome_of_each_mail_given() -> None:
    session = Session()
    outcomes = [session.deliver()[1] for _ in range(3)]
    error = ConnectionLost("enough")
    session.client.abort(error)
    session.network.settle()
    assert [outcome.error for outcome in outcomes] == [error] * 3
    assert session.ready.error is error
    assert session.over


def test_an_abort_ends_a_session_that_waits_for_the_reply_to_its_quit() -> None:
    session = Session()
    session.say(b"554 no")
    session.client.abort(ConnectionLost("enough"))
    session.network.settle()
    assert isinstance(session.ready.error, Refused)
    assert session.over


def test_a_session_that_is_finished_before_it_is_ready_still_sends_what_it_was_given() -> None:
    session = Session()
    result = session.client.deliver(envelope("a@example.net"), Content(b""))
    outcome = Outcome(result)
    session.client.finish()
    assert not session.client.accepts
    assert session.open(b"PIPELINING", b"CHUNKING").endswith(b"BDAT 0 LAST\r\nQUIT\r\n")
    session.say(b"250 1", b"250 2", b"250 3", b"221 bye")
    assert outcome.value.all_ok
    assert session.over


def test_a_session_that_is_finished_with_nothing_to_do_says_quit() -> None:
    session = Session()
    session.client.finish()
    assert session.open(b"PIPELINING") == b"QUIT\r\n"
    session.say(b"221 bye")
    assert session.over


@pytest.mark.parametrize("reply", [b"221-by", b"2", b"500 what?\r\n", b"\xff\n", b"221 bye\r\n221 bye\r\n"])
def test_whatever_answers_the_quit_of_a_refused_session_ends_it(reply: bytes) -> None:
    session = Session()
    session.say(b"554 no")
    session.send(reply)
    assert session.over


def test_a_server_that_talks_on_after_quit_and_does_not_read_is_left_after_quits_bound() -> None:
    session = Session()
    session.end.other.pauseProducing()
    session.end.other.write_raw(b"554 no\r\n")
    session.network.settle()
    for _ in range(4):
        session.end.other.write_raw(b"500 what?\r\n")
        session.network.elapse(1)
    assert not session.script.lost
    session.network.elapse(1.1)
    assert session.end.connected is False
    assert session.network.getDelayedCalls() == []
