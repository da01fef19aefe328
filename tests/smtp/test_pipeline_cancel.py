"""
Tests of cancelling: it ends one mail, and not its neighbors.
"""

from __future__ import annotations

import pytest

from tests.smtp.script import LARGE, Script, error, known, verdicts
from tests.smtp.ten_mails import MAILS, WAYS, Session, Way, check_that_each_outcome_is_true, replies_of
from twisted_smtpclient.errors import Cancelled, ConnectionLost, ResponseTimeout
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import DeliveryResult, Status

BOTH = "PIPELINING CHUNKING"


def cancelled() -> Cancelled:
    return Cancelled("cancelled")


# Where a mail is when it is cancelled.


def test_a_mail_that_was_not_begun_leaves_no_trace() -> None:
    script = Script(depth=1)
    script.mail()
    mail = script.mail()
    last = script.mail()
    script.flight()
    script.pipeline.cancel(mail, cancelled())
    assert isinstance(error(mail), Cancelled)
    assert error(mail).recipients == ()
    assert script.pipeline.under_way == 2
    script.say(250, 250, 250)
    assert script.flight().startswith(b"MAIL FROM:<s3@x>\r\n")
    script.say(250, 250, 250)
    assert verdicts(last) == [(250, "BDAT")]


@pytest.mark.parametrize("heard", [0, 1, 2])
def test_an_envelope_without_content_is_left_to_the_next_rset(heard: int) -> None:
    script = Script()
    mail = script.mail("a@x", "b@x", content=LARGE)
    script.flight()
    script.say(*[250, 550][:heard])
    script.pipeline.cancel(mail, cancelled())
    assert [entry.status for entry in known(mail)] == [
        Status.PERMANENT_ERROR if heard == 2 else Status.UNKNOWN,
        Status.UNKNOWN,
    ]
    assert not error(mail).in_doubt
    assert script.pipeline.accepts
    behind = script.mail()
    assert script.flight() == b"RSET\r\nMAIL FROM:<s2@x>\r\nRCPT TO:<r2@x>\r\nBDAT 7 LAST\r\nhello\r\n"
    script.say(*[250, 550, 250][heard:], 250, 250, 250, 250)
    assert verdicts(behind) == [(250, "BDAT")]
    assert not mail.untouched
    assert script.pipeline.finished == [mail, behind]


@pytest.mark.parametrize("offers", ["", "CHUNKING"])
def test_in_lock_step_a_mail_is_cut_between_its_commands(offers: str) -> None:
    script = Script(offers)
    mail = script.mail("a@x", "b@x")
    script.mail()
    script.flight()
    # All that was written is answered, and nothing was written since.
    script.say(250)
    script.pipeline.cancel(mail, cancelled())
    assert script.pipeline.under_way == 1
    assert script.flight() == b"RSET\r\n"


def test_a_mail_of_which_only_rset_was_written_is_cut_there() -> None:
    script = Script("")
    script.mail()
    mail = script.mail()
    script.mail()
    script.flight()
    assert script.exchange(550) == [b"RSET\r\n"]
    script.pipeline.cancel(mail, cancelled())
    assert error(mail).recipients == ()
    assert script.exchange(250) == [b"RSET\r\n"]
    assert script.exchange(250) == [b"MAIL FROM:<s3@x>\r\n"]


def test_a_refused_rset_ends_the_connection_though_its_mail_was_cut_there() -> None:
    script = Script("")
    script.mail()
    mail = script.mail()
    waiting = script.mail()
    script.flight()
    assert script.exchange(550) == [b"RSET\r\n"]
    script.pipeline.cancel(mail, cancelled())
    # The envelope before it may be open yet: no further mail is to meet it.
    assert script.exchange(550) == [b""]
    assert script.pipeline.end is End.ABORT
    assert waiting.untouched


@pytest.mark.parametrize("at_once", [True, False])
def test_a_mail_that_waits_for_354_is_never_ended_and_the_connection_is_given_up(at_once: bool) -> None:
    script = Script("PIPELINING")
    first = script.mail()
    mail = script.mail()
    waiting = script.mail()
    script.flight()
    if at_once:
        script.say(250, 250, 354)
        script.flight()
    else:
        script.exchange(250, 250, 354)
    script.pipeline.cancel(mail, cancelled())
    assert not error(mail).in_doubt
    assert not script.pipeline.accepts
    assert script.pipeline.end is End.OPEN
    assert script.flight() == b""
    # The mail ahead is heard out.
    script.say(250)
    assert verdicts(first) == [(250, ".")]
    assert script.pipeline.end is End.ABORT
    assert waiting.untouched
    assert not mail.untouched


def test_a_part_written_content_is_never_ended_and_the_connection_is_given_up() -> None:
    script = Script("PIPELINING")
    mail = script.mail(content=b"x" * 1000000)
    waiting = script.mail()
    script.flight()
    script.say(250, 250, 354)
    assert len(script.pipeline.output()) < 1000000
    script.pipeline.cancel(mail, cancelled())
    assert not error(mail).in_doubt
    assert script.pipeline.end is End.ABORT
    assert script.flight() == b""
    assert waiting.untouched


@pytest.mark.parametrize("offers", [BOTH, "PIPELINING", "CHUNKING", ""])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("final", [250, 550])
def test_a_whole_content_is_in_doubt_and_the_connection_lives_on(offers: str, lmtp: bool, final: int) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.exchange(250, 250, 550, *(() if "CHUNKING" in offers else (354,)))
    script.pipeline.cancel(mail, cancelled())
    assert [(entry.code, entry.in_doubt) for entry in known(mail)] == [(None, True), (550, False)]
    behind = script.mail()
    script.flight()
    outcome = mail.outcome
    script.say(final)
    assert mail.outcome is outcome
    script.pipeline.finish()
    written = script.flight()
    if not script.pipeline.grouped:
        assert written == (b"MAIL FROM:<s2@x>\r\n" if final == 250 else b"RSET\r\n")
    assert behind.outcome is None
    assert script.pipeline.finished == [mail]


def test_what_was_settled_stays_settled() -> None:
    script = Script()
    mail = script.mail()
    script.flight()
    script.say(250, 250, 250)
    outcome = mail.outcome
    script.pipeline.cancel(mail, cancelled())
    script.pipeline.cancel(mail, cancelled())
    assert mail.outcome is outcome
    assert script.pipeline.finished == [mail]


def test_a_cancelled_mail_stays_so_whatever_becomes_of_the_connection() -> None:
    script = Script()
    mails = [script.mail() for _ in range(3)]
    script.flight()
    for mail in mails:
        script.pipeline.cancel(mail, cancelled())
    script.pipeline.fail(ResponseTimeout("late"))
    for mail in mails:
        assert isinstance(error(mail), Cancelled)
        assert error(mail).in_doubt
        assert not mail.untouched
    assert script.pipeline.finished == mails


@pytest.mark.parametrize("offers", [BOTH, "PIPELINING"])
def test_a_mail_cancelled_before_any_reply_is_told_once_where_all_come_in_one_read(offers: str) -> None:
    script = Script(offers, depth=2)
    mail = script.mail()
    script.flight()
    if offers == "PIPELINING":
        script.say(250, 250, 354)
        script.flight()
    behind = script.mail()
    script.flight()
    script.pipeline.cancel(mail, cancelled())
    outcome = mail.outcome
    script.say(*(() if offers == "PIPELINING" else (250, 250)), 250)
    assert mail.outcome is outcome
    assert error(mail).in_doubt
    assert script.pipeline.finished == [mail]
    assert behind.outcome is None


def test_behind_421_a_cancelled_mail_is_not_in_doubt() -> None:
    script = Script()
    script.mail()
    mail = script.mail()
    script.flight()
    script.say(421)
    script.pipeline.cancel(mail, cancelled())
    assert not error(mail).in_doubt
    script.pipeline.lost(ConnectionLost("gone"))
    assert not mail.untouched


def test_over_lmtp_421_for_one_recipient_leaves_the_others_in_doubt_when_cancelled() -> None:
    # A server that passes on what it is told says 421 for one and goes on.
    script = Script(lmtp=True)
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.say(250, 250, 250, 421)
    script.pipeline.cancel(mail, cancelled())
    assert [(entry.code, entry.in_doubt) for entry in known(mail)] == [(421, False), (None, True)]
    script.say(250)
    assert script.pipeline.finished == [mail]


def test_a_whole_mail_behind_one_given_up_cannot_be() -> None:
    # Only the last mail begun can have a part of its content written.
    script = Script("PIPELINING")
    mails = [script.mail(content=LARGE) for _ in range(2)]
    script.flight()
    script.say(250, 250, 354)
    script.pipeline.output()
    script.pipeline.cancel(mails[0], cancelled())
    assert mails[1].untouched


# At every position.


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_mail_cancelled_at_any_reply_costs_its_neighbors_nothing(way: Way) -> None:
    for position in range(replies_of(way)):
        for number in range(1, MAILS + 1):
            session = Session(way)
            session.deliver_up_to(position)
            mail = session.script.mails[number - 1]
            already = mail.outcome
            whole = number in session.server.whole
            given_up = already is None and waits_for_354(session, number)
            session.script.pipeline.cancel(mail, cancelled())
            session.turn()
            while session.server.says and session.open:
                session.deliver()
            check_that_each_outcome_is_true(session)
            if already is None:
                assert isinstance(mail.outcome, Cancelled)
                assert mail.outcome.in_doubt is whole
                assert (number in session.server.whole) is whole
            else:
                assert mail.outcome is already
            for other, neighbor in enumerate(session.script.mails, 1):
                if other == number:
                    continue
                if given_up and other > number:
                    assert neighbor.untouched
                else:
                    assert isinstance(neighbor.outcome, DeliveryResult)
                    assert neighbor.outcome.all_ok


def waits_for_354(session: Session, number: int) -> bool:
    """Whether DATA of that mail was written and is not answered."""
    return any(said.verb == "DATA" and said.mail == number for said in session.server.says)
