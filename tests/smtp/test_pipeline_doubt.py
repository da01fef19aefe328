"""
Tests of the honest end: what is said of ten mails when their connection dies.

The server is a model that knows what it took, so that no rule of the
pipeline's own is needed to tell what is true.
"""

from __future__ import annotations

import pytest

from tests.smtp.model import Said, yes
from tests.smtp.script import Script, known, reply
from tests.smtp.ten_mails import WAYS, Session, Way, check_that_each_outcome_is_true, replies_of
from twisted_smtpclient.errors import ConnectionLost, DeliveryError, ProtocolError, ResponseTimeout
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import DeliveryResult, Status
from twisted_smtpclient.smtp.transaction import Transaction


class FourTwoOneAt:
    """A server that takes everything, but answers one command with 421."""

    def __init__(self, position: int) -> None:
        self.left = position

    def __call__(self, verb: str, mail: int, recipient: str | None) -> int:
        self.left -= 1
        return 421 if self.left == -1 else yes(verb, mail, recipient)


def finals(session: Session, number: int) -> list[Said]:
    """The replies to the content of a mail that were delivered."""
    return [said for said in session.delivered if said.mail == number and said.verb in (".", "BDAT")]


def check_doubt(session: Session, mail: Transaction, number: int, *, hung_up: bool) -> None:
    """In doubt is what was whole, has no final reply, and stands behind no 421."""
    whole = number in session.server.whole
    answered = finals(session, number)
    entries = known(mail)
    if isinstance(mail.outcome, DeliveryResult):
        return
    for position, entry in enumerate(entries):
        missing = position >= len(answered) if session.script.lmtp else not answered
        assert entry.in_doubt is (whole and missing and not hung_up)
        assert entry.status is Status.UNKNOWN or not entry.in_doubt
    if not entries:
        assert not whole


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_connection_lost_at_any_reply_leaves_each_mail_with_what_is_true(way: Way) -> None:
    for position in range(replies_of(way)):
        session = Session(way)
        session.deliver_up_to(position)
        session.script.pipeline.lost(ConnectionLost("gone"))
        session.turn()
        check_that_each_outcome_is_true(session)
        for number, mail in enumerate(session.script.mails, 1):
            check_doubt(session, mail, number, hung_up=False)
            expected = 2 if way.lmtp else 1
            assert isinstance(mail.outcome, DeliveryResult) is (len(finals(session, number)) == expected)
            in_doubt = isinstance(mail.outcome, DeliveryError) and mail.outcome.in_doubt
            assert mail.untouched is (isinstance(mail.outcome, ConnectionLost) and not in_doubt)


@pytest.mark.parametrize("goes_on", [False, True], ids=["421-then-closed", "421-then-the-rest"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_421_at_any_reply_leaves_nothing_behind_it_in_doubt(way: Way, goes_on: bool) -> None:
    for position in range(replies_of(way)):
        session = Session(way, FourTwoOneAt(position), goes_on=goes_on)
        session.deliver_up_to(position + 1)
        blow = session.delivered[-1]
        assert blow.reply.code == 421
        while session.server.says and session.open:
            session.deliver()
        session.script.pipeline.lost(ConnectionLost("gone"))
        check_that_each_outcome_is_true(session)
        for number, mail in enumerate(session.script.mails, 1):
            check_doubt(session, mail, number, hung_up=number >= blow.mail)
            if number == blow.mail:
                check_what_421_means(mail, blow, finals(session, number), first=number == 1)
            elif number > blow.mail and not finals(session, number):
                assert mail.untouched
            else:
                assert isinstance(mail.outcome, DeliveryResult)


def check_what_421_means(mail: Transaction, blow: Said, answered: list[Said], *, first: bool) -> None:
    """
    It is the verdict of a connection's first mail, and at the end of a
    content; before that it ends the connection, and the mail moves.
    """
    taken = [said for said in answered if said.reply.code == 250]
    if first or blow.verb in (".", "BDAT") or taken:
        assert isinstance(mail.outcome, DeliveryResult)
        codes = [entry.code for entry in mail.outcome.recipients]
        assert 421 in codes
        assert set(codes) <= {421, 250, 503}
        for entry in mail.outcome.recipients:
            if entry.code == 421:
                assert entry.command == blow.verb
    else:
        assert isinstance(mail.outcome, ConnectionLost)
        assert mail.untouched


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_replies_in_one_read_come_to_the_same_as_one_by_one(way: Way) -> None:
    for position in range(replies_of(way)):
        ends = []
        for at_once in (False, True):
            session = Session(way, FourTwoOneAt(position), goes_on=True)
            while session.server.says and session.open:
                replies = [said.reply for said in session.server.says]
                session.server.says.clear()
                if at_once:
                    session.script.pipeline.take(replies)
                else:
                    for each in replies:
                        session.script.pipeline.receive(each)
                session.turn()
            mails = session.script.mails
            known_of = [mail.outcome and (str(mail.outcome), known(mail), mail.untouched) for mail in mails]
            ends.append((session.script.pipeline.end, known_of))
        assert ends[0] == ends[1]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_reply_that_does_not_come_in_time_costs_the_mail_that_waits_for_it(way: Way) -> None:
    for position in range(replies_of(way)):
        session = Session(way)
        session.deliver_up_to(position)
        head = session.server.says[0].mail
        session.script.pipeline.fail(ResponseTimeout("late"))
        assert session.script.pipeline.end is End.ABORT
        session.turn()
        check_that_each_outcome_is_true(session)
        for number, mail in enumerate(session.script.mails, 1):
            check_doubt(session, mail, number, hung_up=False)
            if number == head:
                assert isinstance(mail.outcome, ResponseTimeout)
                assert not mail.untouched
            elif number > head:
                assert isinstance(mail.outcome, ConnectionLost)
                assert mail.untouched is not mail.outcome.in_doubt


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nonsense_at_any_reply_costs_the_mail_that_it_is_said_to(way: Way) -> None:
    for position in range(replies_of(way)):
        session = Session(way)
        session.deliver_up_to(position)
        said = session.server.says[0]
        session.script.pipeline.receive(reply(250 if said.verb == "DATA" else 354))
        assert session.script.pipeline.end is End.ABORT
        session.turn()
        check_that_each_outcome_is_true(session)
        for number, mail in enumerate(session.script.mails, 1):
            check_doubt(session, mail, number, hung_up=False)
            if number == said.mail:
                assert isinstance(mail.outcome, ProtocolError)
                assert not mail.untouched
            elif number > said.mail:
                assert isinstance(mail.outcome, ConnectionLost)
                assert mail.untouched is not mail.outcome.in_doubt


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_a_dead_server_says_afterwards_is_not_heard(way: Way) -> None:
    session = Session(way)
    session.script.pipeline.lost(ConnectionLost("gone"))
    outcomes = [mail.outcome for mail in session.script.mails]
    session.script.say(250, 250, 354, 421)
    session.script.pipeline.lost(ConnectionLost("again"))
    session.script.pipeline.fail(ResponseTimeout("late"))
    assert [mail.outcome for mail in session.script.mails] == outcomes
    assert session.script.flight() == b""
    assert session.script.pipeline.awaiting is None


def test_the_servers_last_reply_outranks_the_hang_up_behind_it() -> None:
    script = Script("")
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.exchange(250, 550)
    script.say(421)
    assert isinstance(mail.outcome, DeliveryResult)
    assert [(entry.code, entry.command) for entry in mail.outcome.recipients] == [
        (550, "RCPT"),
        (421, "RCPT"),
    ]


def test_an_error_says_what_is_known_of_each_recipient() -> None:
    script = Script("")
    mail = script.mail("a@x", "b@x")
    script.flight()
    script.exchange(250, 550)
    script.pipeline.lost(ConnectionLost("gone"))
    assert isinstance(mail.outcome, ConnectionLost)
    assert [(entry.code, entry.status) for entry in mail.outcome.recipients] == [
        (550, Status.PERMANENT_ERROR),
        (None, Status.UNKNOWN),
    ]


def test_the_end_is_told_in_the_servers_own_words() -> None:
    script = Script()
    script.mail()
    behind = script.mail()
    script.flight()
    script.pipeline.receive(reply(421, "too many mails"))
    for _ in range(2):
        script.pipeline.receive(reply(503, "what?"))
    script.pipeline.lost(ConnectionLost("gone"))
    queued = Script(depth=1)
    queued.mail()
    waiting = queued.mail()
    queued.flight()
    queued.pipeline.receive(reply(421, "too many mails"))
    queued.say(503, 503)
    assert str(waiting.outcome) == "the server closed the session: 421 too many mails"
    assert str(behind.outcome) == "gone"


def test_421_while_nothing_is_under_way_is_an_orderly_end() -> None:
    script = Script()
    script.say(421)
    assert script.pipeline.end is End.ABORT
    assert not script.pipeline.accepts
    queued = Script()
    mail = queued.mail()
    queued.say(421)
    assert mail.untouched
    assert isinstance(mail.outcome, ConnectionLost)
    assert not mail.outcome.recipients


def test_behind_421_nothing_more_is_written_or_taken() -> None:
    script = Script("PIPELINING")
    script.mail()
    script.mail()
    script.flight()
    assert script.exchange(250, 421) == [b"", b""]
    assert script.pipeline.end is End.LINGER
    assert not script.pipeline.accepts
    script.pipeline.finish()
    assert script.exchange(354) == [b""]
    assert script.pipeline.end is End.ABORT
