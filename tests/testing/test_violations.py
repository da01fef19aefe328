"""What the client does wrong, by name."""

from __future__ import annotations

import pytest

from tests.testing.driving import ENVELOPE, Driven


def told(driven: Driven) -> str:
    (violation,) = driven.session.violations
    return violation


@pytest.mark.parametrize("behind", [b"EHLO x", b"NOOP", b"VRFY x", b"HELP", b"XYZZY"])
def test_what_must_be_last_of_a_group_has_nothing_behind_it(behind: bytes) -> None:
    driven = Driven().begin()
    driven.say(behind, b"RSET")
    assert "which must be last of a group" in told(driven)


def test_a_refused_data_has_nothing_behind_it_either() -> None:
    driven = Driven().begin()
    assert driven.say(b"DATA", b"RSET") == [503, 250]
    assert told(driven) == "RSET was sent before the reply to DATA, which must be last of a group"


def test_there_is_an_end_to_what_is_told_of_one_session() -> None:
    driven = Driven().begin()
    driven.send(b"NOOP\n" * 2000)
    assert len(driven.session.violations) == 1000


def test_content_waits_for_354() -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert told(driven) == "content was sent before the reply to DATA"


def test_content_waits_for_a_354_that_is_held_back() -> None:
    driven = Driven(delay=1.0)
    driven.clock.advance(1)
    driven.send(b"EHLO x\r\n")
    driven.clock.advance(1)
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send(b"x\r\n")
    driven.send(b".\r\n")
    assert told(driven) == "content was sent before the reply to DATA"


def test_pipelining_that_is_not_offered() -> None:
    driven = Driven(pipelining=False).begin()
    driven.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>")
    assert told(driven) == "RCPT was sent before the reply to MAIL; PIPELINING is not offered"


def test_pipelining_is_not_offered_by_helo_nor_before_ehlo() -> None:
    driven = Driven().begin(b"HELO x")
    driven.say(b"RSET", b"RSET")
    assert "PIPELINING is not offered" in told(driven)


def test_one_chunk_and_its_command_are_no_pipelining_but_what_follows_is() -> None:
    driven = Driven(pipelining=False).begin()
    for line in ENVELOPE.splitlines():
        driven.say(line)
    driven.send(b"BDAT 1\r\nx")
    assert driven.session.violations == []
    driven.send(b"BDAT 1 LAST\r\nxQUIT\r\n")
    assert told(driven) == "QUIT was sent before the reply to BDAT; PIPELINING is not offered"


def test_commands_before_the_greeting() -> None:
    driven = Driven(delay=1.0)
    driven.say(b"EHLO x")
    assert told(driven) == "EHLO was sent before the reply to the greeting, which must be last of a group"


def test_with_pipelining_one_mail_may_follow_another() -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send(b"x\r\n.\r\nRSET\r\n" + ENVELOPE + b"BDAT 1 LAST\r\nxRSET\r\n" + ENVELOPE + b"DATA\r\n")
    driven.send(b"x\r\n.\r\nQUIT\r\n")
    assert len(driven.sink.mails) == 3
    assert driven.session.violations == []


def test_octets_behind_quit() -> None:
    driven = Driven().begin()
    assert driven.say(b"QUIT", b"RSET") == [221]
    driven.send(b"NOOP\r\n")
    assert driven.session.violations == ["octets behind QUIT"]
    assert driven.session.commands[-1] == b"QUIT"


def test_octets_behind_starttls() -> None:
    driven = Driven(starttls=object()).begin()
    started: list[object] = []
    driven.transport.startTLS = started.append  # type: ignore[attr-defined]
    assert driven.say(b"STARTTLS", b"EHLO evil") == [220]
    assert told(driven) == "octets behind STARTTLS before the handshake"
    assert driven.session.commands == [b"EHLO client.example", b"STARTTLS"]
    assert len(started) == 1


def test_starttls_that_is_not_offered() -> None:
    driven = Driven().begin()
    assert driven.say(b"STARTTLS") == [502]
    assert told(driven) == "STARTTLS, which was not offered"


@pytest.mark.parametrize(
    ("octets", "named"),
    [
        (b"NOOP\n", "a command ended with a bare LF: b'NOOP'"),
        (b"\n", "a command ended with a bare LF: b''"),
        (b"NOOP a\rb\r\n", "a control character in NOOP: b'NOOP a\\rb'"),
        (b"NOOP \x00\r\n", "a control character in NOOP: b'NOOP \\x00'"),
        (b"NOOP \xc3\xa4\r\n", "octets over 127 in NOOP without SMTPUTF8: b'NOOP \\xc3\\xa4'"),
        (b"MAIL FROM:<\xc3\xa4@b.de>\r\n", "octets over 127 in MAIL without SMTPUTF8"),
        (b"EHLO \xc3\xa4 SMTPUTF8\r\n", "octets over 127 in EHLO without SMTPUTF8"),
        (b"EHLO\r\n", "EHLO without a name"),
        (b"MAIL FROM: <a@b.de>\r\n", "a space before the path of MAIL"),
        (b"MAIL FROM:a@b.de\r\n", "the syntax of MAIL: b'FROM:a@b.de'"),
        (b"MAIL FROM:<a@b.de> SIZE=\r\n", "the syntax of MAIL"),
        (b"MAIL FROM:<a@b.de> SIZE=1 size=1\r\n", "the syntax of MAIL"),
        (b"MAIL FROM:<a@b.de> SIZE=x\r\n", "a bad value of SIZE: 'x'"),
        (b"MAIL FROM:<a@b.de> SIZE\r\n", "a bad value of SIZE: None"),
        (b"MAIL FROM:<a@b.de> SMTPUTF8=1\r\n", "a bad value of SMTPUTF8: '1'"),
        (b"MAIL FROM:<a@b.de> RET=ALL\r\n", "a bad value of RET: 'ALL'"),
        (b"MAIL FROM:<a@b.de> ENVID=a+b\r\n", "a bad value of ENVID: 'a+b'"),
        (b"MAIL FROM:<a@b.de> BODY=9BIT\r\n", "a bad value of BODY: '9BIT'"),
        (b"MAIL FROM:<a@b.de> BODY=BINARYMIME\r\n", "BODY with MAIL, though BINARYMIME is not offered"),
        (b"MAIL FROM:<a@b.de> NOTIFY=NEVER\r\n", "NOTIFY with MAIL, where it has no place"),
        (b"MAIL FROM:<a@b.de> HOLDFOR=3\r\n", "HOLDFOR with MAIL, though FUTURERELEASE is not offered"),
        (b"BDAT -1 LAST\r\n", "BDAT with a bad argument: b'-1 LAST'"),
    ],
)
def test_commands_that_no_grammar_has(octets: bytes, named: str) -> None:
    driven = Driven().begin()
    driven.send(octets)
    assert named in told(driven)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        (b"SIZE=1", "SIZE with RCPT, where it has no place"),
        (b"NOTIFY=NEVER,DELAY", "a bad value of NOTIFY"),
        (b"NOTIFY=DELAY,delay", "a bad value of NOTIFY"),
        (b"ORCPT=c@d.de", "a bad value of ORCPT"),
    ],
)
def test_parameters_of_rcpt(parameters: bytes, named: str) -> None:
    driven = Driven().begin()
    driven.say(b"MAIL FROM:<>", b"RCPT TO:<c@d.de> " + parameters)
    assert named in told(driven)


def test_utf8_addresses_are_right_where_smtputf8_was_asked_for() -> None:
    driven = Driven().begin()
    driven.say("MAIL FROM:<ä@b.de> SMTPUTF8".encode(), "RCPT TO:<ö@b.de>".encode(), b"DATA")
    driven.say(b".")
    assert driven.mail.sender == "ä@b.de"
    assert driven.session.violations == []
    driven.say(b"MAIL FROM:<>", "RCPT TO:<ö@b.de>".encode())
    assert "octets over 127 in RCPT" in told(driven)


def test_eight_bit_content_is_to_be_announced_where_8bitmime_is_offered() -> None:
    for offered in (True, False):
        driven = Driven(eightbitmime=offered).begin()
        driven.send(ENVELOPE + b"BDAT 4 LAST\r\n\xc3\xa4\r\n")
        assert len(driven.session.violations) == offered
