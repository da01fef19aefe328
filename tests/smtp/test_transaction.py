"""
Tests of one mail's verdicts: which reply is whose, and what it means.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.script import Script, error, known, verdicts
from twisted_smtpclient.errors import ConnectionLost, ProtocolError
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Timeouts
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.result import DeliveryResult, Status
from twisted_smtpclient.smtp.steps import COMMANDS, Awaited
from twisted_smtpclient.smtp.transaction import Transaction

BOTH = "PIPELINING CHUNKING"
WAYS = [BOTH, "PIPELINING", "CHUNKING", ""]


def outcome_of(offers: str, recipients: int, *codes: int) -> Transaction:
    """A mail whose replies were these, as far as they were asked for."""
    script = Script(offers)
    mail = script.mail(*[f"r{number}@x" for number in range(recipients)])
    script.flight()
    script.exchange(*codes)
    return mail


def end_of(offers: str) -> tuple[int, ...]:
    """What comes between the envelope and the final reply."""
    return () if "CHUNKING" in offers else (354,)


def name_of(offers: str) -> str:
    return "BDAT" if "CHUNKING" in offers else "."


def test_a_transaction_has_no_outcome_before_it_has_one() -> None:
    transaction = Transaction(Envelope("s@x", ["r@x"]), Content(b""))
    assert transaction.outcome is None
    assert not transaction.untouched
    assert transaction.on_settled is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (200, Status.OK),
        (250, Status.OK),
        (259, Status.OK),
        (400, Status.TEMPORARY_ERROR),
        (452, Status.TEMPORARY_ERROR),
        (550, Status.PERMANENT_ERROR),
        (559, Status.PERMANENT_ERROR),
    ],
)
@pytest.mark.parametrize("offers", WAYS)
def test_the_final_reply_is_the_verdict_of_each_accepted_recipient(
    offers: str, code: int, status: Status
) -> None:
    mail = outcome_of(offers, 2, 250, 250, 251, *end_of(offers), code)
    assert verdicts(mail) == [(code, name_of(offers))] * 2
    assert [entry.status for entry in known(mail)] == [status] * 2


@pytest.mark.parametrize("offers", WAYS)
def test_each_refusal_is_that_of_its_recipient(offers: str) -> None:
    mail = outcome_of(offers, 5, 250, 550, 250, 451, 252, 553, *end_of(offers), 250)
    name = name_of(offers)
    assert verdicts(mail) == [(550, "RCPT"), (250, name), (451, "RCPT"), (250, name), (553, "RCPT")]


@pytest.mark.parametrize("offers", WAYS)
def test_refused_recipients_keep_their_reply_where_the_mail_is_refused_later(offers: str) -> None:
    mail = outcome_of(offers, 2, 250, 550, 250, *end_of(offers), 451)
    assert verdicts(mail) == [(550, "RCPT"), (451, name_of(offers))]


@pytest.mark.parametrize("offers", WAYS)
@pytest.mark.parametrize("code", [450, 552])
def test_a_refused_mail_command_is_the_verdict_of_all(offers: str, code: int) -> None:
    rest = {BOTH: (503, 503, 503), "PIPELINING": (503, 503, 503)}.get(offers, ())
    mail = outcome_of(offers, 2, code, *rest)
    assert verdicts(mail) == [(code, "MAIL")] * 2


@pytest.mark.parametrize("offers", [BOTH, "PIPELINING"])
def test_a_verdict_is_told_with_the_last_reply_and_not_before(offers: str) -> None:
    script = Script(offers)
    mail = script.mail()
    script.flight()
    script.say(550, 503)
    assert mail.outcome is None
    script.say(503)
    assert script.pipeline.finished == [mail]


def test_order_and_duplicates_are_kept() -> None:
    script = Script()
    mail = script.mail("b@x", "a@x", "b@x")
    script.flight()
    script.say(250, 550, 250, 250, 250)
    assert isinstance(mail.outcome, DeliveryResult)
    assert mail.outcome.sender == "s1@x"
    assert [(entry.recipient, entry.code) for entry in mail.outcome.recipients] == [
        ("b@x", 550),
        ("a@x", 250),
        ("b@x", 250),
    ]


def test_a_reply_is_kept_whole() -> None:
    script = Script()
    mail = script.mail()
    script.flight()
    script.say(250, 250)
    final = Reply(250, (b"250-2.0.0 ok", b"250 queued as 1"))
    script.pipeline.receive(final)
    assert known(mail)[0].reply is final
    assert known(mail)[0].response == "250-2.0.0 ok\n250 queued as 1"


def long_reply(code: int) -> Reply:
    """As long as a reply may be."""
    return Reply(code, (*[b"%d-" % code + b"x" * 250] * 250, b"%d last" % code))


@pytest.mark.parametrize(
    "codes",
    [
        [550, *[503] * 201],
        [250, *[550] * 200, 503],
        [250, *[250] * 200, 451],
        [250, *[250] * 200, 250],
    ],
    ids=["MAIL", "RCPT", "the content refused", "the content accepted"],
)
def test_of_long_replies_to_many_recipients_each_has_the_beginning(codes: list[int]) -> None:
    script = Script()
    mail = script.mail(*[f"r{number}@x" for number in range(200)])
    script.flight()
    script.pipeline.take(list(map(long_reply, codes)))
    entries = known(mail)
    told = [entry.response or "" for entry in entries]
    assert all(text.endswith("(the rest is left out)") for text in told)
    assert sum(map(len, told)) <= 200 * 1100
    assert sum(entry.reply.octets for entry in entries if entry.reply is not None) <= 200 * 1100


def test_of_accepted_recipients_no_reply_is_held() -> None:
    script = Script()
    mail = script.mail(*[f"r{number}@x" for number in range(200)])
    script.flight()
    script.pipeline.take([long_reply(250)] * 100)
    assert len(set(map(id, mail._rcpt_replies))) == 1


@pytest.mark.parametrize("offers", WAYS)
def test_a_2xx_to_the_content_of_a_mail_for_nobody_is_nobodys_verdict(offers: str) -> None:
    codes = {BOTH: (250,), "PIPELINING": (354, 250)}.get(offers, ())
    mail = outcome_of(offers, 2, 250, 550, 450, *codes)
    assert verdicts(mail) == [(550, "RCPT"), (450, "RCPT")]


@pytest.mark.parametrize("offers", WAYS)
def test_a_final_reply_that_cannot_be_understood_leaves_the_accepted_in_doubt(offers: str) -> None:
    mail = outcome_of(offers, 2, 250, 550, 250, *end_of(offers), 354)
    assert isinstance(error(mail), ProtocolError)
    assert not error(mail).temporary
    assert [(entry.code, entry.in_doubt) for entry in known(mail)] == [(550, False), (None, True)]


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("offers", WAYS)
def test_fewer_replies_than_owed_are_no_verdict(offers: str, missing: int) -> None:
    codes = (250, 250, *end_of(offers), 250)
    script = Script(offers)
    mail = script.mail()
    script.flight()
    script.exchange(*codes[:-missing])
    assert mail.outcome is None
    script.pipeline.lost(ConnectionLost("gone"))
    whole = missing == 1 or offers == BOTH
    assert error(mail).in_doubt is whole
    assert mail.untouched is not whole


def test_each_awaited_reply_has_its_bound_and_its_words() -> None:
    assert set(COMMANDS) == set(Awaited)
    for command in COMMANDS.values():
        assert getattr(Timeouts(), command.timeout) > 0
        assert command.phrase.startswith("no reply to ")


@given(
    envelope=st.lists(st.sampled_from([250, 251, 450, 550, 553]), min_size=1, max_size=8),
    final=st.sampled_from([250, 451, 554]),
    offers=st.sampled_from(WAYS),
)
def test_each_recipient_has_the_one_reply_that_decided_it(
    envelope: list[int], final: int, offers: str
) -> None:
    accepted = any(code < 300 for code in envelope)
    rest = (*end_of(offers), final) if accepted else {BOTH: (554,), "PIPELINING": (503,)}.get(offers, ())
    mail = outcome_of(offers, len(envelope), 250, *envelope, *rest)
    assert verdicts(mail) == [(final, name_of(offers)) if code < 300 else (code, "RCPT") for code in envelope]
