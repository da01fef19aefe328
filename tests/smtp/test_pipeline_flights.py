"""
Tests of what goes in one write, to the octet.
"""

from __future__ import annotations

import pytest

from tests.smtp.script import LARGE, TEXT, Script, verdicts
from twisted_smtpclient.errors import ExtensionUnsupported, MessageTooLarge
from twisted_smtpclient.smtp.content import BLOCK, Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.sender import WRITE
from twisted_smtpclient.smtp.transaction import Transaction

ENVELOPE = b"MAIL FROM:<s%d@x>\r\nRCPT TO:<r%d@x>\r\n"
BDAT = b"BDAT 7 LAST\r\nhello\r\n"


def envelope(number: int) -> bytes:
    return ENVELOPE % (number, number)


def chunked(number: int) -> bytes:
    """What the nth mail is over PIPELINING and CHUNKING."""
    return (b"RSET\r\n" if number > 1 else b"") + envelope(number) + BDAT


# PIPELINING and CHUNKING.


def test_one_mail_goes_in_one_write() -> None:
    script = Script()
    script.mail("a@x", "b@x", "a@x")
    assert script.writes() == [
        b"MAIL FROM:<s1@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<a@x>\r\n" + BDAT
    ]


def test_many_mails_go_in_one_write_to_the_depth_with_rset_before_each_mail_but_the_first() -> None:
    script = Script(depth=3)
    for _ in range(5):
        script.mail()
    assert script.writes() == [chunked(1) + chunked(2) + chunked(3)]
    assert script.pipeline.under_way == 5
    script.say(250, 250, 250)
    assert script.writes() == [chunked(4)]
    script.say(250, 250, 250, 250)
    assert script.writes() == [chunked(5)]


def test_no_rset_stands_behind_a_mail_that_is_known_to_have_ended_well() -> None:
    script = Script()
    script.mail()
    script.flight()
    script.say(250, 250, 250)
    script.mail()
    assert script.flight() == envelope(2) + BDAT


@pytest.mark.parametrize(
    "codes", [(550, 503, 503), (250, 550, 554), (250, 250, 550), (250, 250, 450), (250, 550, 250)]
)
def test_rset_stands_behind_a_mail_that_did_not_end_well(codes: tuple[int, ...]) -> None:
    script = Script()
    script.mail()
    script.flight()
    script.say(*codes)
    script.mail()
    assert script.flight() == chunked(2)


def test_rset_is_decided_by_the_last_mail_begun_not_by_the_one_heard_last() -> None:
    script = Script(depth=2)
    for _ in range(3):
        script.mail()
    script.flight()
    # The first ended well; the second, behind it, is not known to have.
    script.say(250, 250, 250)
    assert script.flight() == chunked(3)


def test_quit_rides_behind_the_last_content() -> None:
    script = Script()
    script.mail()
    script.mail()
    script.pipeline.finish()
    assert script.writes() == [chunked(1) + chunked(2) + b"QUIT\r\n"]
    script.say(250, 250, 250, 250, 250, 250, 250)
    assert all(verdicts(mail) == [(250, "BDAT")] for mail in script.mails)
    assert script.pipeline.end is End.OPEN
    script.say(221)
    assert script.pipeline.end is End.CLOSE
    assert script.flight() == b""


def test_quit_is_written_once_where_nothing_is_under_way() -> None:
    script = Script()
    script.pipeline.finish()
    assert script.writes() == [b"QUIT\r\n"]
    assert not script.pipeline.accepts


# PIPELINING only.


def test_the_content_goes_behind_354() -> None:
    script = Script("PIPELINING")
    script.mail("a@x", "b@x")
    assert script.writes() == [b"MAIL FROM:<s1@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"]
    assert script.exchange(250, 250, 250) == [b"", b"", b""]
    script.say(354)
    assert script.writes() == [b"hello\r\n.\r\n"]


def test_the_next_envelope_rides_behind_the_content() -> None:
    script = Script("PIPELINING")
    for _ in range(3):
        script.mail()
    assert script.writes() == [envelope(1) + b"DATA\r\n"]
    script.say(250, 250, 354)
    assert script.writes() == [b"hello\r\n.\r\nRSET\r\n" + envelope(2) + b"DATA\r\n"]
    script.say(250, 250, 250, 250, 354)
    assert script.writes() == [b"hello\r\n.\r\nRSET\r\n" + envelope(3) + b"DATA\r\n"]
    script.pipeline.finish()
    script.say(250, 250, 250, 250, 354)
    assert script.writes() == [b"hello\r\n.\r\nQUIT\r\n"]
    script.say(250, 221)
    assert [verdicts(mail) for mail in script.mails] == [[(250, ".")]] * 3
    assert script.pipeline.end is End.CLOSE


# Lock step.


def test_lock_step_with_bdat_writes_a_command_at_a_time_and_bdat_with_its_content() -> None:
    script = Script("CHUNKING")
    script.mail("a@x", "b@x")
    script.mail()
    script.pipeline.finish()
    assert script.flight() == b"MAIL FROM:<s1@x>\r\n"
    assert script.exchange(250, 250, 250, 250) == [
        b"RCPT TO:<a@x>\r\n",
        b"RCPT TO:<b@x>\r\n",
        BDAT,
        b"MAIL FROM:<s2@x>\r\n",
    ]
    assert script.exchange(250, 250, 250) == [b"RCPT TO:<r2@x>\r\n", BDAT, b"QUIT\r\n"]


@pytest.mark.parametrize(("offers", "grouped"), [("", None), ("PIPELINING", False)])
def test_lock_step_with_data_writes_a_command_at_a_time(offers: str, grouped: bool | None) -> None:
    script = Script(offers, grouped=grouped)
    script.mail("a@x", "b@x")
    script.pipeline.finish()
    assert script.flight() == b"MAIL FROM:<s1@x>\r\n"
    assert script.exchange(250, 250, 250, 354, 250) == [
        b"RCPT TO:<a@x>\r\n",
        b"RCPT TO:<b@x>\r\n",
        b"DATA\r\n",
        b"hello\r\n.\r\n",
        b"QUIT\r\n",
    ]


def test_rset_is_a_command_of_its_own_in_lock_step() -> None:
    script = Script("")
    script.mail()
    script.mail()
    script.flight()
    assert script.exchange(550, 250) == [b"RSET\r\n", b"MAIL FROM:<s2@x>\r\n"]


# Large contents.


def test_a_large_content_goes_behind_the_replies_to_its_envelope() -> None:
    script = Script()
    script.mail("a@x", "b@x", content=LARGE)
    script.mail()
    assert script.writes() == [b"MAIL FROM:<s1@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n"]
    assert script.exchange(250, 250) == [b"", b""]
    script.say(550)
    written = script.flight()
    assert written == b"BDAT %d LAST\r\n" % len(LARGE) + LARGE + chunked(2)


def test_a_large_content_goes_in_blocks_that_the_transport_may_refuse() -> None:
    script = Script("PIPELINING")
    message = b".\r\n" * 200000
    script.mail(content=message)
    script.flight()
    script.say(250, 250, 354)
    blocks = script.writes()
    assert len(blocks) > 4
    # At most a block of 128 KiB, each of its dots doubled, above the bound.
    assert max(map(len, blocks)) <= WRITE + 2 * BLOCK
    assert b"".join(blocks) == b"..\r\n" * 200000 + b".\r\n"


@pytest.mark.parametrize("offers", ["", "CHUNKING"])
def test_a_large_content_is_sent_in_lock_step_as_well(offers: str) -> None:
    script = Script(offers)
    script.mail(content=LARGE)
    script.flight()
    written = b"".join(script.exchange(250, 250))
    if not offers:
        assert written == b"RCPT TO:<r1@x>\r\nDATA\r\n"
        script.say(354)
        assert script.flight() == LARGE + b".\r\n"
    else:
        assert written == b"RCPT TO:<r1@x>\r\nBDAT %d LAST\r\n" % len(LARGE) + LARGE
    script.say(250)
    assert verdicts(script.mails[0]) == [(250, "BDAT" if offers else ".")]


@pytest.mark.parametrize(("offers", "codes"), [("PIPELINING", (354,)), ("PIPELINING CHUNKING", ())])
def test_a_content_is_whole_with_its_last_octet_whether_or_not_more_is_asked_for(
    offers: str, codes: tuple[int, ...]
) -> None:
    # A transport that is full asks for nothing more, and the server may
    # answer what it was given all the same.
    script = Script(offers)
    content = b"x" * (3 * BLOCK - 2) + b"\r\n"
    mail = script.mail(content=content)
    script.flight()
    script.say(250, 250, *codes)
    left = len(content) + (len(".\r\n") if codes else len(f"BDAT {len(content)} LAST\r\n"))
    while left:
        left -= len(script.pipeline.output())
    script.say(250)
    assert verdicts(mail) == [(250, "." if codes else "BDAT")]


def test_a_content_of_256_kib_still_goes_with_its_envelope() -> None:
    script = Script()
    content = LARGE[1:]
    script.mail(content=content)
    assert script.flight() == envelope(1) + b"BDAT 262144 LAST\r\n" + content


@pytest.mark.parametrize("offers", ["PIPELINING", "PIPELINING CHUNKING"])
def test_no_content_at_all_is_a_content(offers: str) -> None:
    script = Script(offers)
    script.mail(content=b"")
    if "CHUNKING" in offers:
        assert script.flight() == envelope(1) + b"BDAT 0 LAST\r\n"
    else:
        script.flight()
        script.say(250, 250, 354)
        assert script.flight() == b".\r\n"


def test_many_recipients_go_in_writes_of_bounded_size() -> None:
    script = Script()
    recipients = [f"recipient-{number:06}@example.org" for number in range(20000)]
    script.mail(*recipients)
    writes = script.writes()
    assert max(map(len, writes)) <= 2 * WRITE
    commands = b"".join(b"RCPT TO:<%b>\r\n" % recipient.encode() for recipient in recipients)
    assert b"".join(writes) == b"MAIL FROM:<s1@x>\r\n" + commands + BDAT


# A connection that has been idle.


def test_behind_idleness_no_octet_of_the_content_goes_before_mail_is_answered() -> None:
    script = Script()
    script.pipeline.rest()
    script.mail()
    script.mail()
    assert script.writes() == [envelope(1)]
    # All that waited goes with it: the connection lives.
    assert script.exchange(250) == [BDAT + chunked(2)]


def test_behind_idleness_the_reply_to_rset_does_not_do_for_mails() -> None:
    script = Script()
    script.mail()
    script.flight()
    script.say(550, 503, 503)
    script.pipeline.rest()
    script.mail()
    assert script.flight() == b"RSET\r\n" + envelope(2)
    assert script.exchange(250, 250) == [b"", BDAT]


def test_behind_idleness_a_refused_mail_gets_no_content() -> None:
    script = Script()
    script.pipeline.rest()
    script.mail()
    script.mail()
    script.flight()
    assert script.exchange(550, 503) == [b"", b"RSET\r\n" + envelope(2)]
    assert verdicts(script.mails[0]) == [(550, "MAIL")]


def test_a_connection_with_a_mail_under_way_is_not_idle() -> None:
    script = Script(depth=1)
    script.mail()
    script.flight()
    script.mail()
    script.pipeline.rest()
    script.say(250, 250, 250)
    assert script.flight() == envelope(2) + BDAT


def test_behind_idleness_data_goes_with_its_envelope() -> None:
    script = Script("PIPELINING")
    script.pipeline.rest()
    script.mail()
    assert script.flight() == envelope(1) + b"DATA\r\n"


# The MAIL command.


def mail_of(offers: str, message: bytes, sender: str | None = "s@x", recipient: str = "r@x") -> bytes:
    script = Script(offers, grouped=False)
    envelope = Envelope(sender, [recipient], parameters={"MT-PRIORITY": "3"})
    script.pipeline.submit(Transaction(envelope, Content(message)))
    return script.flight()


def test_mail_has_the_parameters_that_are_needed_and_offered() -> None:
    offers = "SIZE 8BITMIME SMTPUTF8 MT-PRIORITY"
    assert mail_of("MT-PRIORITY", TEXT) == b"MAIL FROM:<s@x> MT-PRIORITY=3\r\n"
    assert mail_of("MT-PRIORITY", b"\xff\n") == b"MAIL FROM:<s@x> MT-PRIORITY=3\r\n"
    assert mail_of(offers, TEXT, None) == b"MAIL FROM:<> SIZE=7 MT-PRIORITY=3\r\n"
    assert mail_of(offers, b"\xff\n") == b"MAIL FROM:<s@x> SIZE=3 BODY=8BITMIME MT-PRIORITY=3\r\n"
    written = mail_of(offers, TEXT, "ö@x")
    assert written == "MAIL FROM:<ö@x> SIZE=7 SMTPUTF8 MT-PRIORITY=3\r\n".encode()


def test_a_mail_that_the_server_cannot_take_is_refused_before_mail_and_disturbs_nobody() -> None:
    script = Script("PIPELINING CHUNKING")
    script.mail()
    with pytest.raises(ExtensionUnsupported, match="SMTPUTF8"):
        script.pipeline.submit(Transaction(Envelope("s@x", ["ö@x"]), Content(TEXT)))
    assert script.flight() == chunked(1)
    small = Script("PIPELINING SIZE=7")
    small.mail()
    with pytest.raises(MessageTooLarge, match="8 octets, the server takes 7"):
        small.mail(content=b"hello!\n")
    assert small.flight() == b"MAIL FROM:<s1@x> SIZE=7\r\nRCPT TO:<r1@x>\r\nDATA\r\n"


def test_the_bound_of_the_server_is_not_exceeded_by_a_message_of_its_size() -> None:
    script = Script("SIZE=7")
    script.mail()
    assert script.flight() == b"MAIL FROM:<s1@x> SIZE=7\r\n"


# What is waited for.


def test_the_pipeline_tells_what_it_waits_for_and_by_which_bound() -> None:
    script = Script("")
    pipeline = script.pipeline
    assert pipeline.awaiting is None
    script.mail()
    assert pipeline.awaiting is None
    seen: list[tuple[str, str]] = []
    script.flight()
    for code in (550, 250, 250, 250, 354):
        assert pipeline.awaiting is not None
        seen.append((pipeline.awaiting.name, pipeline.awaiting.timeout))
        script.say(code)
        if code == 550:
            script.mail()
        script.flight()
    assert pipeline.awaiting is not None
    seen.append((pipeline.awaiting.name, pipeline.awaiting.timeout))
    assert seen == [
        ("MAIL", "mail"),
        ("RSET", "other"),
        ("MAIL", "mail"),
        ("RCPT", "rcpt"),
        ("DATA", "data_initiation"),
        (".", "data_termination"),
    ]
    script.say(250)
    assert pipeline.awaiting is None
    pipeline.finish()
    script.flight()
    assert pipeline.awaiting is not None
    assert pipeline.awaiting.timeout == "quit"


def test_while_a_content_is_written_the_transport_is_waited_for() -> None:
    script = Script()
    script.mail(content=b"x" * 1000000)
    script.flight()
    script.say(250, 250)
    script.pipeline.output()
    assert script.pipeline.awaiting is not None
    assert script.pipeline.awaiting.timeout == "data_block"
    script.flight()
    assert script.pipeline.awaiting.timeout == "bdat_last"


def test_what_is_under_way_can_be_read() -> None:
    script = Script(depth=1)
    mail = script.mail()
    script.mail()
    assert repr(mail) == "<Transaction QUEUED, 0 owed, next MAIL>"
    script.flight()
    assert repr(mail) == "<Transaction WHOLE, 3 owed, next MAIL>"
    assert repr(script.pipeline) == "<Pipeline OPEN, 1 outstanding, 1 queued, 1 begun>"
