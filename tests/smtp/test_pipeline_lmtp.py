"""
Tests of LMTP: one final reply for each accepted recipient (RFC 2033).
"""

from __future__ import annotations

import pytest

from tests.smtp.script import LARGE, Script, error, known, verdicts
from twisted_smtpclient.errors import ConnectionLost, ProtocolError
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import Status

BOTH = "PIPELINING CHUNKING"
WAYS = [BOTH, "PIPELINING", "CHUNKING", ""]


def sent(offers: str, envelope: tuple[int, ...], *, content: bytes = b"hi\r\n") -> Script:
    """A script whose one mail was written whole, its envelope answered."""
    script = Script(offers, lmtp=True)
    script.mail(*[f"r{number}@x" for number in range(1, len(envelope))], content=content)
    script.flight()
    script.exchange(*envelope, *(() if "CHUNKING" in offers else (354,)))
    return script


def name_of(offers: str) -> str:
    return "BDAT" if "CHUNKING" in offers else "."


@pytest.mark.parametrize("content", [b"hi\r\n", LARGE])
@pytest.mark.parametrize("offers", WAYS)
def test_each_accepted_recipient_has_its_own_final_reply(offers: str, content: bytes) -> None:
    script = sent(offers, (250, 250, 550, 250, 450, 250), content=content)
    mail = script.mails[0]
    script.say(250, 452)
    assert mail.outcome is None
    script.say(554)
    name = name_of(offers)
    assert verdicts(mail) == [(250, name), (550, "RCPT"), (452, name), (450, "RCPT"), (554, name)]


@pytest.mark.parametrize("offers", [BOTH, "PIPELINING"])
def test_the_replies_of_the_next_mail_follow_the_last_of_its_own(offers: str) -> None:
    script = Script(offers, lmtp=True)
    first, second = script.mail("a@x", "b@x"), script.mail("c@x", "d@x")
    script.flight()
    data = () if "CHUNKING" in offers else (354,)
    script.exchange(250, 250, 250, *data)
    script.say(250, 250, 250)
    script.exchange(250, 250, 550, *data)
    name = name_of(offers)
    assert verdicts(first) == [(250, name), (250, name)]
    assert second.outcome is None
    script.say(451)
    assert verdicts(second) == [(451, name), (550, "RCPT")]


def test_duplicates_each_have_their_reply() -> None:
    script = Script(BOTH, lmtp=True)
    mail = script.mail("a@x", "a@x")
    script.flight()
    script.say(250, 250, 250, 250, 550)
    assert verdicts(mail) == [(250, "BDAT"), (550, "BDAT")]
    assert [entry.recipient for entry in known(mail)] == ["a@x", "a@x"]


@pytest.mark.parametrize("offers", WAYS)
def test_a_lost_connection_leaves_the_recipients_without_a_final_reply_in_doubt(offers: str) -> None:
    script = sent(offers, (250, 250, 250, 550))
    mail = script.mails[0]
    script.say(250)
    script.pipeline.lost(ConnectionLost("gone"))
    assert [(entry.status, entry.in_doubt) for entry in known(mail)] == [
        (Status.OK, False),
        (Status.UNKNOWN, True),
        (Status.PERMANENT_ERROR, False),
    ]
    assert error(mail).in_doubt
    assert not mail.untouched


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("before", [(), (250,), (450,), (250, 550)])
@pytest.mark.parametrize("offers", WAYS)
def test_421_as_a_final_reply_is_that_of_the_recipients_behind_it(
    offers: str, before: tuple[int, ...], first: bool
) -> None:
    # Or a mail that some have got would move, and they would get it twice.
    script = Script(offers, lmtp=True)
    if not first:
        script.mail()
        script.flight()
        script.exchange(550, *({BOTH: (503,), "PIPELINING": (503, 503)}.get(offers, ())))
    mail = script.mail("a@x", "b@x", "c@x")
    script.flight()
    script.exchange(*(() if first else (250,)), 250, 250, 250, 250, *(() if "CHUNKING" in offers else (354,)))
    script.say(*before, 421)
    script.pipeline.lost(ConnectionLost("gone"))
    codes = (*before, 421, 421, 421)[:3]
    assert verdicts(mail) == [(code, name_of(offers)) for code in codes]
    assert not mail.untouched


@pytest.mark.parametrize("offers", WAYS)
def test_a_recipient_behind_421_that_has_its_own_reply_keeps_it(offers: str) -> None:
    script = sent(offers, (250, 250, 250, 250))
    script.say(421, 250, 550)
    name = name_of(offers)
    assert verdicts(script.mails[0]) == [(421, name), (250, name), (550, name)]
    assert script.pipeline.end is End.ABORT


@pytest.mark.parametrize("offers", WAYS)
def test_one_final_reply_too_many_ends_the_connection(offers: str) -> None:
    script = sent(offers, (250, 250))
    script.say(250)
    assert verdicts(script.mails[0]) == [(250, name_of(offers))]
    script.say(250)
    assert script.pipeline.end is End.ABORT


@pytest.mark.parametrize("offers", WAYS)
def test_a_final_reply_that_cannot_be_understood_leaves_the_rest_in_doubt(offers: str) -> None:
    script = sent(offers, (250, 250, 250))
    mail = script.mails[0]
    script.say(250, 354)
    assert isinstance(error(mail), ProtocolError)
    assert [entry.in_doubt for entry in known(mail)] == [False, True]


# Nobody accepted.


def test_bdat_for_nobody_is_owed_no_reply() -> None:
    script = Script(BOTH, lmtp=True)
    mail = script.mail("a@x", "b@x")
    behind = script.mail()
    script.flight()
    script.say(250, 550, 450)
    assert verdicts(mail) == [(550, "RCPT"), (450, "RCPT")]
    script.say(250, 250, 250, 250)
    assert verdicts(behind) == [(250, "BDAT")]


@pytest.mark.parametrize("code", [503, 554])
@pytest.mark.parametrize("codes", [(550, 503, 503), (250, 550, 450)])
def test_a_server_that_refuses_bdat_for_nobody_all_the_same_costs_no_neighbor(
    code: int, codes: tuple[int, ...]
) -> None:
    script = Script(BOTH, lmtp=True)
    mail = script.mail("a@x", "b@x")
    behind = script.mail()
    script.flight()
    script.say(*codes)
    assert mail.outcome is not None
    script.say(code)
    script.say(250, 250, 250, 250)
    assert verdicts(behind) == [(250, "BDAT")]
    assert script.pipeline.accepts


def test_the_refusal_of_bdat_for_nobody_may_come_while_the_connection_is_idle() -> None:
    script = Script(BOTH, lmtp=True)
    script.mail()
    script.flight()
    script.say(250, 550)
    script.pipeline.rest()
    script.say(503)
    assert script.pipeline.accepts
    script.say(503)
    assert script.pipeline.end is End.ABORT


def test_the_refusal_of_bdat_for_nobody_is_not_the_reply_to_quit() -> None:
    script = Script(BOTH, lmtp=True)
    script.mail()
    script.pipeline.finish()
    script.flight()
    script.say(250, 550, 503)
    assert script.pipeline.end is End.OPEN
    script.say(221)
    assert script.pipeline.end is End.CLOSE


def test_any_other_reply_behind_bdat_for_nobody_is_that_of_rset() -> None:
    script = Script(BOTH, lmtp=True)
    script.mail()
    behind = script.mail()
    script.flight()
    script.say(250, 550)
    script.say(451)
    assert script.pipeline.end is End.LINGER
    script.say(503, 503)
    assert behind.untouched
    for code in (250, 354):
        unasked = Script(BOTH, lmtp=True)
        unasked.mail()
        unasked.flight()
        unasked.say(250, 550, code)
        assert unasked.pipeline.end is End.ABORT


def test_without_a_bdat_no_reply_too_many_is_forgiven() -> None:
    script = Script("CHUNKING", lmtp=True)
    script.mail()
    script.flight()
    script.exchange(250, 550)
    script.say(503)
    assert script.pipeline.end is End.ABORT
