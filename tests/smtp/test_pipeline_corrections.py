"""
Tests of the course corrections: what follows when a server refuses.
"""

from __future__ import annotations

import pytest

from tests.smtp.script import LARGE, Script, error, known, reply, verdicts
from twisted_smtpclient.errors import ConnectionLost, ProtocolError
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import Status

BOTH = "PIPELINING CHUNKING"
WAYS = [BOTH, "PIPELINING", "CHUNKING", ""]
NEXT = b"RSET\r\nMAIL FROM:<s2@x>\r\nRCPT TO:<r2@x>\r\n"


# MAIL refused, or each RCPT, and DATA not yet written.


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", ["CHUNKING", ""])
def test_in_lock_step_a_refused_mail_has_no_further_command(offers: str, lmtp: bool) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail("a@x", "b@x")
    script.flight()
    assert script.exchange(550) == [b""]
    assert verdicts(mail) == [(550, "MAIL"), (550, "MAIL")]
    assert script.pipeline.accepts
    script.mail()
    assert script.exchange() == []
    assert script.flight() == b"RSET\r\n"


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", ["CHUNKING", ""])
def test_in_lock_step_a_mail_with_each_recipient_refused_has_no_content(offers: str, lmtp: bool) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail("a@x", "b@x")
    script.flight()
    assert script.exchange(250, 550, 450) == [b"RCPT TO:<a@x>\r\n", b"RCPT TO:<b@x>\r\n", b""]
    assert verdicts(mail) == [(550, "RCPT"), (450, "RCPT")]
    assert script.pipeline.end is End.OPEN


@pytest.mark.parametrize("codes", [(550, 503), (250, 550)])
def test_a_large_content_is_not_begun_for_nobody(codes: tuple[int, ...]) -> None:
    script = Script()
    script.mail(content=LARGE)
    script.mail()
    script.flight()
    assert script.exchange(*codes)[-1].startswith(NEXT)


def test_where_mail_is_refused_the_rest_of_a_long_envelope_is_not_written() -> None:
    script = Script()
    mail = script.mail(*[f"r{number}@x" for number in range(10000)])
    first = script.pipeline.output()
    script.say(550)
    assert script.flight() == b""
    for _ in range(first.count(b"RCPT")):
        assert mail.outcome is None
        script.say(503)
    assert verdicts(mail) == [(550, "MAIL")] * 10000


# The same, DATA answered with 354.


@pytest.mark.parametrize("codes", [(550, 503), (250, 550)])
@pytest.mark.parametrize("dot", [554, 250, 421])
def test_a_lone_dot_follows_354_where_nobody_was_accepted(codes: tuple[int, ...], dot: int) -> None:
    script = Script("PIPELINING")
    mail = script.mail()
    script.flight()
    assert script.exchange(*codes, 354) == [b"", b"", b".\r\n"]
    assert mail.outcome is None
    behind = script.mail()
    assert script.flight() == NEXT + b"DATA\r\n"
    script.say(dot)
    assert verdicts(mail) == [(550, "MAIL" if codes[0] == 550 else "RCPT")]
    if dot == 421:
        assert script.pipeline.end is End.LINGER
    else:
        script.say(250, 250, 250, 354)
        script.flight()
        script.say(250)
        assert verdicts(behind) == [(250, ".")]


@pytest.mark.parametrize("codes", [(550, 503), (250, 550)])
def test_over_lmtp_354_with_nobody_accepted_ends_the_connection(codes: tuple[int, ...]) -> None:
    script = Script("PIPELINING", lmtp=True)
    mail = script.mail()
    behind = script.mail()
    script.flight()
    assert script.exchange(*codes, 354)[-1] == b""
    assert script.pipeline.end is End.ABORT
    assert verdicts(mail) == [(550, "MAIL" if codes[0] == 550 else "RCPT")]
    assert behind.untouched


# DATA refused.


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", ["PIPELINING", ""])
def test_a_refused_data_is_the_verdict_of_all_that_were_accepted(offers: str, lmtp: bool) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail("a@x", "b@x", "c@x")
    behind = script.mail()
    script.flight()
    written = script.exchange(250, 250, 550, 250, 451)[-1]
    assert written == (NEXT + b"DATA\r\n" if offers else b"RSET\r\n")
    assert verdicts(mail) == [(451, "DATA"), (550, "RCPT"), (451, "DATA")]
    assert behind.outcome is None


@pytest.mark.parametrize("lmtp", [False, True])
def test_503_to_data_behind_refusals_changes_nothing(lmtp: bool) -> None:
    script = Script("PIPELINING", lmtp=lmtp)
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.say(250, 550, 450, 503)
    assert verdicts(mail) == [(550, "RCPT"), (450, "RCPT")]
    assert script.pipeline.end is End.OPEN
    assert script.pipeline.broken is None


# A content refused before its end.


@pytest.mark.parametrize("code", [452, 552, 421])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", WAYS)
def test_a_refusal_in_mid_content_is_the_verdict_and_ends_the_connection(
    offers: str, lmtp: bool, code: int
) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail("a@x", "b@x", "c@x", content=b"x" * 1000000)
    behind = script.mail()
    script.flight()
    chunked = "CHUNKING" in offers
    for answer in (250, 250, 550):
        script.say(answer)
        script.flight()
    script.say(250, *([] if chunked else [354] if offers else []))
    if not offers:
        script.flight()
        script.say(354)
    assert len(script.pipeline.output()) < 1000000
    script.say(code)
    name = "BDAT" if chunked else "."
    assert verdicts(mail) == [(code, name), (550, "RCPT"), (code, name)]
    assert script.pipeline.end is End.ABORT
    assert script.flight() == b""
    assert behind.untouched
    assert isinstance(behind.outcome, ConnectionLost)


@pytest.mark.parametrize("code", [200, 250, 354])
@pytest.mark.parametrize("offers", WAYS)
def test_a_positive_reply_in_mid_content_is_never_ok(offers: str, code: int) -> None:
    script = Script(offers)
    mail = script.mail(content=b"x" * 1000000)
    script.flight()
    for answer in (250, 250) if "CHUNKING" in offers else (250, 250, 354):
        script.say(answer)
        if offers != "PIPELINING" or answer == 354:
            script.pipeline.output()
    script.say(code)
    assert isinstance(error(mail), ProtocolError)
    assert not error(mail).in_doubt
    assert not mail.untouched
    assert script.pipeline.end is End.ABORT


@pytest.mark.parametrize("code", [250, 452, 552])
def test_a_reply_behind_354_before_any_octet_of_the_content_is_a_protocol_error(code: int) -> None:
    script = Script("PIPELINING")
    mail = script.mail()
    script.flight()
    script.say(250, 250, 354, code)
    assert isinstance(error(mail), ProtocolError)
    assert not error(mail).in_doubt
    assert script.flight() == b""


def test_421_behind_354_before_any_octet_of_the_content_is_the_verdict() -> None:
    script = Script("PIPELINING")
    mail = script.mail()
    script.flight()
    script.say(250, 250, 354, 421)
    assert verdicts(mail) == [(421, ".")]


# BDAT is not known.


@pytest.mark.parametrize("code", [500, 502])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", [BOTH, "CHUNKING"])
@pytest.mark.parametrize("content", [b"hi\r\n", LARGE])
def test_a_server_that_does_not_know_bdat_is_believed_nothing_more(
    offers: str, lmtp: bool, code: int, content: bytes
) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail(content=content)
    behind = [script.mail() for _ in range(3)]
    script.flight()
    for answer in (250, 250):
        script.say(answer)
        script.flight()
    script.say(code, 250, 250, 250, 250)
    assert script.pipeline.end is End.ABORT
    assert script.pipeline.broken == "CHUNKING"
    assert isinstance(error(mail), ProtocolError)
    assert f"{code} text" in str(error(mail))
    for each in [mail, *behind]:
        assert each.untouched
        assert not error(each).in_doubt
    assert script.flight() == b""


@pytest.mark.parametrize("code", [500, 502])
def test_a_server_that_took_a_bdat_knows_it_and_means_the_mail(code: int) -> None:
    script = Script()
    mails = [script.mail() for _ in range(3)]
    script.flight()
    script.say(250, 250, 250)
    script.say(250, 250, 250, code)
    assert verdicts(mails[1]) == [(code, "BDAT")]
    script.say(250, 250, 250, 250)
    assert verdicts(mails[2]) == [(250, "BDAT")]
    assert script.pipeline.broken is None


def test_over_lmtp_500_behind_another_recipients_reply_is_a_verdict() -> None:
    # Moved, the mail would come to the first recipient twice.
    script = Script(lmtp=True)
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.say(250, 250, 250, 250, 500)
    assert verdicts(mail) == [(250, "BDAT"), (500, "BDAT")]
    assert script.pipeline.broken is None


def test_over_lmtp_500_to_the_first_of_many_leaves_the_others_in_doubt() -> None:
    # What comes next may be their replies, or those to lines of the content.
    script = Script(lmtp=True)
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.say(250, 250, 250, 500, 250)
    assert isinstance(error(mail), ProtocolError)
    assert [(entry.code, entry.in_doubt) for entry in known(mail)] == [(500, False), (None, True)]
    assert not mail.untouched
    assert script.pipeline.end is End.ABORT
    assert script.pipeline.broken == "CHUNKING"


def test_a_cancelled_mail_whose_bdat_is_not_known_stays_cancelled() -> None:
    script = Script()
    mail = script.mail()
    script.flight()
    script.pipeline.cancel(mail, ConnectionLost("cancelled"))
    script.say(250, 250, 502)
    assert str(error(mail)) == "cancelled"
    assert not mail.untouched
    assert script.pipeline.broken == "CHUNKING"


def test_other_refusals_of_bdat_are_about_the_mail() -> None:
    script = Script()
    mail = script.mail()
    script.flight()
    script.say(250, 250, 554)
    assert verdicts(mail) == [(554, "BDAT")]
    assert script.pipeline.broken is None
    assert script.pipeline.accepts


# RSET refused.


def test_where_rset_is_refused_the_mail_behind_it_moves_and_the_next_are_heard_out() -> None:
    script = Script()
    mails = [script.mail() for _ in range(4)]
    script.flight()
    script.say(250, 250, 250)
    assert script.exchange(554) == [b""]
    assert script.pipeline.end is End.LINGER
    script.say(503, 503, 503)
    assert mails[1].untouched
    assert isinstance(mails[1].outcome, ConnectionLost)
    assert not error(mails[1]).in_doubt
    script.say(250, 250, 250, 250)
    assert verdicts(mails[2]) == [(250, "BDAT")]
    script.pipeline.lost(ConnectionLost("gone"))
    assert error(mails[3]).in_doubt


@pytest.mark.parametrize("offers", ["", "CHUNKING", "PIPELINING"])
def test_where_rset_is_refused_and_nothing_else_is_owed_the_connection_ends(offers: str) -> None:
    script = Script(offers)
    script.mail()
    mail = script.mail()
    waiting = script.mail()
    script.flight()
    script.exchange(550, *([503, 503] if offers == "PIPELINING" else []))
    script.exchange(554, *([503, 503, 503] if offers == "PIPELINING" else []))
    assert script.pipeline.end is End.ABORT
    assert mail.untouched
    assert waiting.untouched
    if offers != "PIPELINING":
        assert error(mail).recipients == ()
        assert str(error(waiting)) == "the server refused RSET: 554 text"


def test_behind_a_refused_rset_a_lost_connection_leaves_a_whole_content_in_doubt() -> None:
    # The envelope before may still be open, and the server take it for that.
    script = Script()
    script.mail()
    mail = script.mail()
    script.flight()
    script.say(250, 250, 250, 554)
    script.pipeline.lost(ConnectionLost("gone"))
    assert error(mail).in_doubt
    assert not mail.untouched


# Contradictions.


@pytest.mark.parametrize(
    ("offers", "codes"),
    [
        (BOTH, (550, 250)),
        (BOTH, (550, 503, 250)),
        ("PIPELINING", (550, 250)),
    ],
)
@pytest.mark.parametrize("lmtp", [False, True])
def test_a_2xx_behind_a_refused_mail_is_a_protocol_error(
    offers: str, codes: tuple[int, ...], lmtp: bool
) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail()
    script.flight()
    script.say(*codes)
    if lmtp and len(codes) == 3:
        # The mail was done with the replies before.
        assert verdicts(mail) == [(550, "MAIL")]
    else:
        assert isinstance(error(mail), ProtocolError)
        assert error(mail).in_doubt is (offers == BOTH)
        assert [entry.status for entry in known(mail)] == [Status.UNKNOWN]
        assert not mail.untouched
    assert script.pipeline.end is End.ABORT


@pytest.mark.parametrize("codes", [(250, 250), (503, 250), (503, 503, 250)])
def test_a_2xx_behind_a_refused_rset_is_a_protocol_error(codes: tuple[int, ...]) -> None:
    script = Script()
    script.mail()
    mail = script.mail()
    script.flight()
    script.say(250, 250, 250, 554, *codes)
    assert isinstance(error(mail), ProtocolError)
    assert error(mail).in_doubt
    assert not mail.untouched


def test_354_behind_a_refused_rset_gets_no_content_and_the_mail_moves() -> None:
    script = Script("PIPELINING")
    script.mail()
    mail = script.mail()
    script.flight()
    script.exchange(250, 250, 354)
    assert script.exchange(250, 554, 503, 503, 354) == [b""] * 5
    assert script.pipeline.end is End.ABORT
    assert mail.untouched
    assert not error(mail).in_doubt


def test_a_2xx_behind_a_mail_refused_with_421_is_a_protocol_error_without_doubt() -> None:
    script = Script()
    mail = script.mail()
    script.flight()
    script.say(421, 250)
    assert isinstance(error(mail), ProtocolError)
    assert not error(mail).in_doubt


@pytest.mark.parametrize(
    ("offers", "codes", "in_doubt"),
    [
        (BOTH, (354,), True),
        (BOTH, (250, 354), True),
        (BOTH, (250, 250, 354), True),
        ("PIPELINING", (354,), False),
        ("PIPELINING", (250, 354), False),
        ("PIPELINING", (250, 250, 250), False),
        ("PIPELINING", (250, 250, 300), False),
        ("", (300,), False),
        ("", (250, 334), False),
        ("", (250, 250, 250), False),
        ("", (250, 250, 354, 354), True),
        ("CHUNKING", (250, 250, 354), True),
    ],
)
def test_a_3xx_or_2xx_where_it_has_no_place_is_a_protocol_error(
    offers: str, codes: tuple[int, ...], in_doubt: bool
) -> None:
    script = Script(offers)
    mail = script.mail()
    script.flight()
    script.exchange(*codes)
    assert isinstance(error(mail), ProtocolError)
    assert "unexpected reply to" in str(error(mail))
    assert error(mail).in_doubt is in_doubt
    assert script.pipeline.end is End.ABORT


# A reply that nobody is owed.


@pytest.mark.parametrize("code", [220, 250, 354, 450, 550])
def test_a_reply_that_nobody_asked_for_ends_the_connection(code: int) -> None:
    script = Script()
    script.mail()
    script.flight()
    script.say(250, 250, 250)
    waiting = script.mail()
    script.say(code)
    assert script.pipeline.end is End.ABORT
    # Nothing of it was written.
    assert waiting.untouched
    assert not script.pipeline.accepts


@pytest.mark.parametrize("code", [250, 550])
def test_a_reply_before_its_command_was_written_is_a_protocol_error(code: int) -> None:
    script = Script("")
    mail = script.mail()
    script.flight()
    script.say(250, code)
    assert isinstance(error(mail), ProtocolError)
    assert "before its command was complete" in str(error(mail))
    assert not error(mail).in_doubt


def test_421_before_the_next_command_was_written_is_the_verdict_of_a_first_mail() -> None:
    script = Script("")
    mail = script.mail()
    waiting = script.mail()
    script.flight()
    script.say(250, 421)
    assert verdicts(mail) == [(421, "RCPT")]
    assert waiting.untouched


@pytest.mark.parametrize("code", [221, 250, 421, 500])
def test_whatever_answers_quit_closes_the_connection(code: int) -> None:
    script = Script()
    script.pipeline.finish()
    script.flight()
    script.pipeline.receive(reply(code))
    assert script.pipeline.end is End.CLOSE


# Commands of a group that the server lost.


@pytest.mark.parametrize(
    ("offers", "codes"),
    [
        (BOTH, (250, 503, 503, 503)),
        (BOTH, (250, 250, 250, 503)),
        (BOTH, (250, 503, 250, 503)),
        ("PIPELINING", (250, 503, 503, 503)),
        ("PIPELINING", (250, 250, 503, 503)),
    ],
)
def test_a_server_that_lost_commands_of_a_group_gets_the_mail_again_without(
    offers: str, codes: tuple[int, ...]
) -> None:
    script = Script(offers)
    mail = script.mail("a@x", "b@x")
    waiting = script.mail()
    script.writes()
    script.say(*codes)
    script.flight()
    assert script.pipeline.broken == "PIPELINING"
    assert mail.untouched
    assert isinstance(error(mail), ProtocolError)
    assert not script.pipeline.accepts
    script.pipeline.lost(ConnectionLost("gone"))
    assert waiting.outcome is not None


def test_a_server_that_lost_the_recipients_of_a_large_mail_is_given_up_at_once() -> None:
    script = Script()
    mail = script.mail(content=LARGE)
    waiting = script.mail()
    script.flight()
    script.say(250, 503)
    assert script.flight() == b""
    assert mail.untouched
    assert waiting.untouched
    assert script.pipeline.end is End.ABORT
    assert script.pipeline.broken == "PIPELINING"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((550, 503, 503, 503), [(550, "MAIL"), (550, "MAIL")]),
        ((250, 550, 503, 503), [(550, "RCPT"), (503, "RCPT")]),
        ((250, 503, 250, 250), [(503, "RCPT"), (250, "BDAT")]),
        ((250, 503, 250, 550), [(503, "RCPT"), (550, "BDAT")]),
        ((250, 421, 503, 503), [(421, "RCPT"), (503, "RCPT")]),
        ((250, 503, 421, 503), [(503, "RCPT"), (421, "RCPT")]),
        ((250, 250, 421, 503), [(503, "BDAT"), (421, "RCPT")]),
    ],
)
def test_503_is_a_verdict_where_no_command_was_lost(
    codes: tuple[int, ...], expected: list[tuple[int, str]]
) -> None:
    script = Script()
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.say(*codes)
    assert verdicts(mail) == expected
    assert script.pipeline.broken is None


def test_in_lock_step_503_is_a_verdict() -> None:
    script = Script("")
    mail = script.mail()
    script.flight()
    script.exchange(250, 503)
    assert verdicts(mail) == [(503, "RCPT")]
    assert script.pipeline.broken is None


def test_behind_a_refused_rset_503_says_nothing_of_pipelining() -> None:
    script = Script()
    script.mail()
    mail = script.mail()
    script.flight()
    script.say(250, 250, 250, 503, 503, 503, 503)
    assert mail.untouched
    assert script.pipeline.broken is None
