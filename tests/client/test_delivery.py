"""
Tests of one delivery's way through as many transactions as it takes.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.memory import Outcome
from twisted_smtpclient import (
    ConnectionLost,
    ConnectionRefused,
    Content,
    DeliveryError,
    DeliveryResult,
    Envelope,
    ExtensionUnsupported,
    RecipientStatus,
    ResponseTimeout,
    Server,
    Status,
)
from twisted_smtpclient.client.delivery import Delivery, DeliveryCancelled, Share
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.result import VERDICTS

ADDRESSES = ["a@x.de", "b@x.de", "c@x.de", "d@x.de"]
TOO_MANY = "452 4.5.3 too many recipients"


class Owner:
    def __init__(self) -> None:
        self.cancelled: list[DeliveryError] = []
        self.ended_with: list[Delivery] = []

    def cancel(self, delivery: Delivery, error: DeliveryError) -> None:
        self.cancelled.append(error)
        for share in list(delivery.shares):
            delivery.settle(share, error)

    def ended(self, delivery: Delivery) -> None:
        self.ended_with.append(delivery)


class Desk:
    def __init__(self, *addresses: str) -> None:
        self.owner = Owner()
        envelope = Envelope("me@x.de", addresses or ADDRESSES)
        self.delivery = Delivery(self.owner, Server(host="mx.example"), envelope, Content(b""))
        self.outcome: Outcome[DeliveryResult] = Outcome(self.delivery.result)
        self.share = self.delivery.shares[0]

    def settle(self, share: Share, *told: str | None) -> Share | None:
        return self.delivery.settle(share, DeliveryResult("me@x.de", statuses(share, *told)))

    def fail(self, share: Share, error: DeliveryError, *told: str | None) -> Share | None:
        return self.delivery.settle(share, error.concerning(statuses(share, *told)) if told else error)

    @property
    def error(self) -> DeliveryError:
        error = self.outcome.error
        assert isinstance(error, DeliveryError)
        return error

    def texts(self) -> list[str | None]:
        value = self.outcome.value
        assert [entry.recipient for entry in value.recipients] == self.addresses()
        return [entry.response for entry in value.recipients]

    def addresses(self) -> list[str]:
        return [recipient.address for recipient in self.delivery.envelope.recipients]


def addresses(share: Share) -> list[str]:
    return [recipient.address for recipient in share.envelope.recipients]


def statuses(share: Share, *told: str | None) -> list[RecipientStatus]:
    """A reply for each recipient: 250 to the content, else to RCPT or as named; None is in doubt."""
    entries = []
    for address, text in zip(addresses(share), told, strict=True):
        if text is None:
            entries.append(RecipientStatus(address, Status.UNKNOWN, in_doubt=True))
            continue
        command, _, text = text.rpartition("|")
        reply = Reply(int(text[:3]), (text.encode(),))
        command = command or ("." if text.startswith("2") else "RCPT")
        entries.append(RecipientStatus(address, VERDICTS[reply.code // 100], reply, command))
    return entries


# One transaction


def test_a_delivery_in_one_transaction_has_that_outcome_as_it_is() -> None:
    desk = Desk()
    result = DeliveryResult("me@x.de", statuses(desk.share, "250 ok", "550 no", "250 ok", "450 later"))
    assert desk.delivery.settle(desk.share, result) is None
    assert desk.outcome.value is result
    assert desk.owner.ended_with == [desk.delivery]
    assert desk.delivery.shares == []


def test_an_error_of_one_transaction_is_the_delivery_s() -> None:
    desk = Desk()
    error = ConnectionLost("gone")
    assert desk.fail(desk.share, error) is None
    assert desk.outcome.error is error


def test_the_envelope_of_a_whole_share_is_the_delivery_s() -> None:
    desk = Desk()
    assert desk.share.envelope is desk.delivery.envelope


def test_a_share_has_one_outcome_whatever_comes_later() -> None:
    desk = Desk()
    desk.settle(desk.share, *["250 ok"] * 4)
    assert desk.settle(desk.share, *["550 no"] * 4) is None
    assert desk.fail(desk.share, ConnectionLost("gone")) is None
    assert desk.outcome.came == 1
    assert desk.texts() == ["250 ok"] * 4
    assert desk.owner.ended_with == [desk.delivery]


# Splitting, as LIMITS asks for it


def test_a_split_share_keeps_the_first_and_gives_the_rest() -> None:
    desk = Desk()
    rest = desk.share.split(3)
    assert addresses(desk.share) == ADDRESSES[:3]
    assert addresses(rest) == ADDRESSES[3:]
    assert rest.delivery is desk.delivery
    assert desk.delivery.shares == [desk.share, rest]


def test_a_part_may_be_split_again() -> None:
    desk = Desk()
    second = desk.share.split(1)
    third = second.split(2)
    assert [addresses(share) for share in (desk.share, second, third)] == [
        ["a@x.de"], ["b@x.de", "c@x.de"], ["d@x.de"],
    ]  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_verdicts_are_merged_in_the_request_s_order_whichever_ends_first(order: tuple[int, ...]) -> None:
    desk = Desk()
    second = desk.share.split(1)
    shares = [desk.share, second, second.split(2)]
    told = [["250 first"], ["250 second", "550 no"], ["250 third"]]
    for place in order:
        assert desk.outcome.came == 0
        assert desk.settle(shares[place], *told[place]) is None
    assert desk.texts() == ["250 first", "250 second", "550 no", "250 third"]
    assert desk.outcome.value.sender == "me@x.de"
    assert desk.outcome.came == 1


def test_a_recipient_that_is_named_twice_keeps_both_verdicts() -> None:
    desk = Desk("a@x.de", "b@x.de", "a@x.de")
    rest = desk.share.split(2)
    desk.settle(rest, "550 no more")
    desk.settle(desk.share, "250 ok", "250 ok")
    assert desk.texts() == ["250 ok", "250 ok", "550 no more"]


# 452


def test_recipients_that_were_too_many_are_continued_with() -> None:
    desk = Desk()
    rest = desk.settle(desk.share, "250 one", "550 no", TOO_MANY, TOO_MANY)
    assert rest is not None
    assert addresses(rest) == ["c@x.de", "d@x.de"]
    assert desk.outcome.came == 0
    further = desk.settle(rest, "250 two", TOO_MANY)
    assert further is not None
    assert addresses(further) == ["d@x.de"]
    assert desk.settle(further, "250 three") is None
    assert desk.texts() == ["250 one", "550 no", "250 two", "250 three"]
    assert desk.outcome.came == 1


def test_a_part_of_a_split_delivery_is_continued_with_too() -> None:
    desk = Desk()
    second = desk.share.split(1)
    rest = desk.settle(second, "250 b", "452 too many", "250 d")
    assert rest is not None
    assert addresses(rest) == ["c@x.de"]
    desk.settle(desk.share, "250 a")
    desk.settle(rest, "550 c")
    assert desk.texts() == ["250 a", "250 b", "550 c", "250 d"]


@pytest.mark.parametrize(
    ("text", "continues"),
    [
        ("452 4.5.3 too many recipients", True),
        ("452 too many recipients", True),
        ("452 5.5.3 a class that contradicts is none", True),
        ("452 4.2.2 mailbox full", False),
        ("452 4.3.1 no space", False),
        ("451 4.5.3 too many", False),
        ("450 later", False),
        ("552 5.5.3 too many", False),
        ("DATA|452 4.5.3 too many", False),
        (".|452 4.5.3 too many", False),
    ],
)
def test_only_a_452_to_rcpt_with_4_5_3_or_no_code_continues(text: str, continues: bool) -> None:
    desk = Desk("a@x.de", "b@x.de")
    rest = desk.settle(desk.share, "250 ok", text)
    assert (rest is not None) is continues
    assert desk.outcome.came == (0 if continues else 1)


@pytest.mark.parametrize(
    "told", [(TOO_MANY, "550 no"), (TOO_MANY, TOO_MANY), (TOO_MANY, "MAIL|250 ok"), (TOO_MANY, "250 ok")]
)
def test_a_452_before_any_was_accepted_is_a_verdict(told: tuple[str, str]) -> None:
    desk = Desk("a@x.de", "b@x.de")
    assert desk.settle(desk.share, *told) is None
    assert [entry.code for entry in desk.outcome.value.recipients] == [
        int(text.rpartition("|")[2][:3]) for text in told
    ]


def test_a_452_to_the_only_recipient_is_a_verdict() -> None:
    desk = Desk("a@x.de")
    assert desk.settle(desk.share, TOO_MANY) is None
    assert desk.texts() == [TOO_MANY]


def test_a_further_transaction_that_accepts_nobody_is_the_last() -> None:
    desk = Desk()
    rest = desk.settle(desk.share, "250 ok", TOO_MANY, TOO_MANY, TOO_MANY)
    assert rest is not None
    assert desk.settle(rest, TOO_MANY) is None
    assert desk.texts() == ["250 ok", TOO_MANY, TOO_MANY, TOO_MANY]


def test_a_further_transaction_offers_as_many_as_the_one_before_took() -> None:
    desk = Desk(*(f"{name}@x.de" for name in "abcdefg"))
    rest = desk.settle(desk.share, "250 ok", "550 no", "250 ok", *[TOO_MANY] * 4)
    assert rest is not None
    assert addresses(rest) == ["d@x.de", "e@x.de", "f@x.de"]
    # It takes fewer now: those that are left are offered so many, in their order.
    rest = desk.settle(rest, "250 two", TOO_MANY, TOO_MANY)
    assert rest is not None
    assert addresses(rest) == ["e@x.de"]
    rest = desk.settle(rest, "250 three")
    assert rest is not None
    assert addresses(rest) == ["f@x.de"]
    rest = desk.settle(rest, "250 four")
    assert rest is not None
    assert addresses(rest) == ["g@x.de"]
    assert desk.settle(rest, "250 five") is None
    assert desk.texts() == ["250 ok", "550 no", "250 ok", "250 two", "250 three", "250 four", "250 five"]


def test_a_recipient_whose_content_was_refused_was_accepted_at_rcpt() -> None:
    desk = Desk("a@x.de", "b@x.de")
    rest = desk.settle(desk.share, ".|451 later", TOO_MANY)
    assert rest is not None
    desk.settle(rest, "250 ok")
    assert desk.texts() == ["451 later", "250 ok"]


# Errors with partial knowledge


def test_an_error_before_mail_in_one_part_keeps_what_the_others_know() -> None:
    desk = Desk()
    rest = desk.share.split(2)
    desk.settle(desk.share, "250 ok", "550 no")
    error = ConnectionLost("gone")
    desk.fail(rest, error)
    told = desk.outcome.error
    assert isinstance(told, ConnectionLost)
    assert str(told) == "gone"
    assert [entry.status for entry in told.recipients] == [
        Status.OK, Status.PERMANENT_ERROR, Status.UNKNOWN, Status.UNKNOWN,
    ]  # fmt: skip
    assert [entry.recipient for entry in told.recipients] == ADDRESSES
    assert not told.in_doubt
    assert error.recipients == ()


def test_doubt_in_one_part_is_told_of_the_whole() -> None:
    desk = Desk()
    rest = desk.share.split(2)
    desk.fail(desk.share, ResponseTimeout("late"), None, "550 no")
    desk.settle(rest, "250 ok", "250 ok")
    told = desk.outcome.error
    assert isinstance(told, ResponseTimeout)
    assert told.in_doubt
    assert [entry.in_doubt for entry in told.recipients] == [True, False, False, False]


def test_of_several_errors_the_first_is_told() -> None:
    desk = Desk()
    rest = desk.share.split(2)
    desk.fail(rest, ResponseTimeout("late"))
    desk.fail(desk.share, ConnectionLost("gone"))
    assert isinstance(desk.outcome.error, ResponseTimeout)


def test_errors_from_before_mail_tell_of_no_recipient() -> None:
    desk = Desk()
    rest = desk.share.split(2)
    desk.fail(rest, ExtensionUnsupported("no DSN"))
    desk.fail(desk.share, ExtensionUnsupported("no DSN"))
    assert desk.error.recipients == ()


def test_once_a_share_has_moved_an_error_from_before_mail_tells_of_each_recipient() -> None:
    desk = Desk()
    desk.delivery.moves(desk.share)
    desk.fail(desk.share, ConnectionRefused("nobody"))
    assert [entry.status for entry in desk.error.recipients] == [Status.UNKNOWN] * 4
    assert not desk.error.in_doubt


def test_and_a_result_is_that_of_where_it_went() -> None:
    desk = Desk("a@x.de", "b@x.de")
    desk.delivery.moves(desk.share)
    desk.settle(desk.share, "250 ok", "550 no")
    assert desk.texts() == ["250 ok", "550 no"]


def test_an_error_that_knows_every_verdict_leaves_a_result() -> None:
    desk = Desk()
    rest = desk.share.split(2)
    desk.fail(desk.share, ConnectionLost("gone"), "550 no", "550 no")
    desk.settle(rest, "250 ok", "250 ok")
    assert desk.texts() == ["550 no", "550 no", "250 ok", "250 ok"]


def test_where_nothing_further_is_known_the_452_is_the_verdict() -> None:
    desk = Desk("a@x.de", "b@x.de")
    rest = desk.settle(desk.share, "250 ok", TOO_MANY)
    assert rest is not None
    desk.fail(rest, ConnectionLost("gone"))
    assert desk.texts() == ["250 ok", TOO_MANY]


def test_doubt_behind_a_452_outranks_it() -> None:
    desk = Desk("a@x.de", "b@x.de")
    rest = desk.settle(desk.share, "250 ok", TOO_MANY)
    assert rest is not None
    desk.fail(rest, ConnectionLost("gone"), None)
    told = desk.outcome.error
    assert isinstance(told, ConnectionLost)
    assert [(entry.status, entry.in_doubt) for entry in told.recipients] == [
        (Status.OK, False),
        (Status.UNKNOWN, True),
    ]


# Cancelling


def test_cancelling_ends_every_share_and_is_told_once() -> None:
    desk = Desk()
    rest = desk.share.split(1)
    further = rest.split(1)
    desk.settle(rest, "250 ok")
    desk.delivery.result.cancel()
    (error,) = desk.owner.cancelled
    assert isinstance(error, DeliveryCancelled)
    assert desk.outcome.came == 1
    told: Any = desk.outcome.error
    assert isinstance(told, DeliveryCancelled)
    assert [entry.status for entry in told.recipients] == [
        Status.UNKNOWN, Status.OK, Status.UNKNOWN, Status.UNKNOWN,
    ]  # fmt: skip
    assert desk.delivery.shares == []
    assert desk.settle(further, "250 late", "250 late") is None
    assert desk.outcome.came == 1
    assert desk.owner.ended_with == [desk.delivery]


def test_a_delivery_remembers_whether_it_may_share_connections() -> None:
    envelope = Envelope(None, ["a@x.de"])
    server = Server(host="mx.example")
    assert Delivery(Owner(), server, envelope, Content(b"")).reuse is True
    assert Delivery(Owner(), server, envelope, Content(b""), reuse=False).reuse is False
