"""
Tests that a mail goes in as many transactions as the server wants it in, and has one result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.client.departing import leaving as leaving
from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, terms
from twisted_smtpclient import ConnectionLost, ConnectionRefused, Content, DeliveryResult, Envelope, Status
from twisted_smtpclient.client.delivery import DeliveryCancelled
from twisted_smtpclient.testing import Action, Closed, Fault, Mail, Stage

OFFERS: list[dict[str, Any]] = [
    {},
    {"chunking": False},
    {"pipelining": False},
    {"pipelining": False, "chunking": False},
]
BYE = b"421 4.3.2 too much for today\r\n"


def recipients(count: int) -> list[str]:
    return [f"r{number}@example.net" for number in range(1, count + 1)]


def send(here: Post, *to: str, reuse: bool = True, **changes: Any) -> Deferred[DeliveryResult]:
    mail = Envelope("me@example.org", to)
    return here.agent.deliver(terms(**changes), mail, Content(MESSAGE), reuse=reuse)


def sent(here: Post, *to: str, **changes: Any) -> DeliveryResult:
    outcome: Outcome[DeliveryResult] = Outcome(send(here, *to, **changes))
    here.network.elapse(10)
    return outcome.value


def transactions(here: Post) -> list[list[str]]:
    """The recipients of each, in the order of the first."""
    return sorted((mail.addresses for mail in here.sink.mails), key=lambda each: (len(each[0]), each))


def check(result: DeliveryResult, to: list[str]) -> None:
    assert [entry.recipient for entry in result.recipients] == to


# LIMITS (RFC 9422).


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize("count", [1, 4, 5, 6, 10, 23])
def test_rcptmax_is_kept_and_the_rest_goes_in_further_transactions(
    count: int, offers: dict[str, Any]
) -> None:
    here = Post(extensions=["LIMITS RCPTMAX=5"], **offers)
    to = recipients(count)
    result = sent(here, *to)
    check(result, to)
    assert result.all_ok
    assert transactions(here) == [to[start : start + 5] for start in range(0, count, 5)]
    assert here.sink.violations == []
    here.close()


def test_rcptmax_of_one_is_a_transaction_for_each_recipient() -> None:
    here = Post(extensions=["LIMITS RCPTMAX=1"])
    to = recipients(50)
    assert sent(here, *to).all_ok
    assert transactions(here) == [[address] for address in to]
    here.close()


def test_rcptdomainmax_is_kept() -> None:
    here = Post(extensions=["LIMITS RCPTDOMAINMAX=2"])
    to = ["r1@a.example", "r2@b.example", "r3@A.example", "r4@c.example", "r5@b.example", "r6@a.example"]
    result = sent(here, *to)
    check(result, to)
    assert result.all_ok
    for mail in here.sink.mails:
        assert len({address.partition("@")[2].lower() for address in mail.addresses}) <= 2
    assert sorted(address for mail in here.sink.mails for address in mail.addresses) == to
    here.close()


def test_rcptmax_and_rcptdomainmax_and_mailmax_are_kept_together() -> None:
    here = Post(extensions=["LIMITS RCPTMAX=3 MAILMAX=2 RCPTDOMAINMAX=1"])
    to = [f"r{number}@{domain}.example" for number, domain in enumerate("aaaaabbbaacc", 1)]
    result = sent(here, *to)
    check(result, to)
    assert result.all_ok
    assert all(len(mail.addresses) <= 3 for mail in here.sink.mails)
    assert all(len({a.partition("@")[2] for a in mail.addresses}) == 1 for mail in here.sink.mails)
    assert all(len(session.mails) <= 2 for session in here.sink.sessions)
    here.close()


def test_verdicts_of_several_transactions_are_in_the_requests_order_with_duplicates() -> None:
    refuse = {f"r{number}@example.net": f"550 no {number}" for number in (2, 5, 9)}
    here = Post(
        extensions=["LIMITS RCPTMAX=3"],
        refuse=refuse,
        final_reply=lambda mail: "451 not now" if "r7@example.net" in mail.addresses else None,
    )
    names = recipients(10)
    to = [*names, names[1], names[0], names[0], names[8]]
    result = sent(here, *to)
    check(result, to)
    for entry in result.recipients:
        if entry.recipient in refuse:
            assert entry.response == refuse[entry.recipient]
            assert entry.command == "RCPT"
        elif entry.recipient in ("r7@example.net", "r8@example.net"):
            assert (entry.code, entry.command) == (451, "BDAT")
        else:
            assert entry.status is Status.OK
    here.close()


# 452 (RFC 5321 section 4.5.3.1.10).


class Crowded(Post):
    """
    One whose server says ``reply`` to each recipient of a transaction beyond
    so many.
    """

    def __init__(
        self, limit: int, reply: str, *, but: Mapping[str, str] = MappingProxyType({}), **sink: Any
    ) -> None:
        self._count = 0

        def begin(_: str) -> None:
            self._count = 0

        def judge(address: str) -> str | None:
            if address in but:
                return but[address]
            self._count += 1
            return reply if self._count > limit else None

        super().__init__(refuse=judge, refuse_sender=begin, agent={"connections_per_host": 1}, **sink)


@pytest.mark.parametrize("reply", ["452 4.5.3 Too many recipients", "452 Too many recipients"])
@pytest.mark.parametrize("offers", OFFERS)
def test_452_for_too_many_continues_with_the_rest(offers: dict[str, Any], reply: str) -> None:
    here = Crowded(5, reply, **offers)
    to = recipients(23)
    result = sent(here, *to)
    check(result, to)
    assert result.all_ok
    assert transactions(here) == [to[start : start + 5] for start in range(0, 23, 5)]
    assert here.sink.session_count == 1
    assert here.sink.violations == []
    here.close()


def test_452_with_another_enhanced_code_is_that_recipients_verdict() -> None:
    here = Crowded(5, "452 4.2.2 Mailbox full")
    result = sent(here, *recipients(10))
    assert [entry.code for entry in result.recipients] == [250] * 5 + [452] * 5
    assert here.sink.mail_count == 1
    here.close()


@pytest.mark.parametrize("reply", ["451 4.5.3 Too many recipients", "552 Too many", "450 4.5.3 no"])
def test_other_codes_than_452_are_verdicts(reply: str) -> None:
    here = Crowded(5, reply)
    result = sent(here, *recipients(10))
    assert [entry.response for entry in result.recipients][5:] == [reply] * 5
    assert here.sink.mail_count == 1
    here.close()


def test_452_to_everybody_is_everybodys_verdict() -> None:
    here = Crowded(0, "452 4.5.3 Too many recipients")
    result = sent(here, *recipients(5))
    assert [entry.code for entry in result.recipients] == [452] * 5
    assert sum(command.startswith(b"MAIL") for command in here.sink.commands) == 1
    here.close()


def test_452_to_the_only_recipient_is_his_verdict() -> None:
    here = Crowded(0, "452 4.5.3 Too many recipients")
    assert [entry.code for entry in sent(here, "r1@example.net").recipients] == [452]
    here.close()


def test_a_further_transaction_in_which_nobody_is_accepted_ends_it() -> None:
    # After the first transaction the server has had enough.
    calls = [0]

    def rcpt(_: str) -> str | None:
        calls[0] += 1
        return "452 4.5.3 Too many recipients" if calls[0] > 3 else None

    here = Post(refuse=rcpt)
    to = recipients(10)
    result = sent(here, *to)
    check(result, to)
    assert [entry.code for entry in result.recipients] == [250] * 3 + [452] * 7
    assert sum(command.startswith(b"MAIL") for command in here.sink.commands) == 2
    here.close()


def test_each_further_transaction_takes_one_at_least_and_so_there_is_an_end() -> None:
    here = Crowded(1, "452 4.5.3 Too many recipients")
    to = recipients(40)
    result = sent(here, *to)
    assert result.all_ok
    assert here.sink.mail_count == 40
    here.close()


def test_refused_ones_among_those_that_go_again_keep_their_verdicts_and_their_places() -> None:
    unknown = {f"r{number}@example.net": "550 5.1.1 no such user" for number in (3, 8)}
    here = Crowded(4, "452 4.5.3 Too many", but=unknown)
    to = [*recipients(10), "r3@example.net", "r1@example.net"]
    result = sent(here, *to)
    check(result, to)
    assert [entry.code for entry in result.recipients] == [550 if each in unknown else 250 for each in to]
    taken = [address for mail in here.sink.mails for address in mail.addresses]
    assert sorted(taken) == sorted(address for address in to if address not in unknown)
    here.close()


def test_a_refused_content_of_the_first_transaction_does_not_keep_the_second_from_its_own_verdict() -> None:
    def final(mail: Mail) -> str | None:
        return "550 5.7.1 no" if mail.number == 1 else None

    here = Crowded(3, "452 4.5.3 Too many", final_reply=final)
    result = sent(here, *recipients(6))
    assert [entry.code for entry in result.recipients] == [550] * 3 + [250] * 3
    here.close()


def test_the_sinks_own_limit_is_met_as_well() -> None:
    here = Post(max_recipients=7)
    to = recipients(100)
    assert sent(here, *to).all_ok
    assert here.sink.mail_count == 15
    here.close()


def test_a_thousand_recipients_go_in_a_hundred_transactions() -> None:
    here = Post(max_recipients=10)
    to = recipients(1000)
    assert sent(here, *to).all_ok
    assert here.sink.mail_count == 100
    # All of them once, and then ten at a time.
    assert sum(command.startswith(b"RCPT") for command in here.sink.commands) == 1000 + 990
    assert sorted(address for mail in here.sink.mails for address in mail.addresses) == sorted(to)
    here.close()


# What ends it in the middle.


SPLIT: dict[str, dict[str, Any]] = {
    "by RCPTMAX": {"extensions": ["LIMITS RCPTMAX=3"]},
    "by 452": {"max_recipients": 3},
}


@pytest.mark.parametrize("how", SPLIT)
@pytest.mark.parametrize("offers", OFFERS[:2])
def test_a_cancel_in_the_middle_tells_what_is_known(how: str, offers: dict[str, Any]) -> None:
    here = Post(
        agent={"connections_per_host": 1, "pipelining_depth": 1},
        faults=[Fault(Stage.MAIL, Action.STALL, nth=2)],
        **offers,
        **SPLIT[how],
    )
    to = recipients(9)
    result = send(here, *to)
    outcome = Outcome(result)
    here.network.settle()
    assert not outcome.came
    result.cancel()
    error: Any = outcome.error
    assert isinstance(error, DeliveryCancelled)
    assert [entry.recipient for entry in error.recipients] == to
    # Those who were to come later have the 452 that they were told before.
    later = Status.TEMPORARY_ERROR if how == "by 452" else Status.UNKNOWN
    told = [Status.OK] * 3 + [Status.UNKNOWN] * 3 + [later] * 3
    assert [entry.status for entry in error.recipients] == told
    here.close()


@pytest.mark.parametrize("how", SPLIT)
def test_a_cancel_before_the_first_verdict_ends_all_parts(how: str) -> None:
    here = Post(
        agent={"connections_per_host": 1},
        faults=[Fault(Stage.MAIL, Action.STALL, nth=1)],
        chunking=False,
        **SPLIT[how],
    )
    result = send(here, *recipients(9))
    outcome = Outcome(result)
    here.network.settle()
    result.cancel()
    assert isinstance(outcome.error, DeliveryCancelled)
    here.network.elapse(5)
    assert here.sink.mails == []
    here.close()


@pytest.mark.parametrize("how", SPLIT)
@pytest.mark.parametrize("stage", [Stage.BDAT, Stage.END_OF_DATA])
def test_a_connection_lost_in_the_second_transaction_leaves_what_is_known(how: str, stage: Stage) -> None:
    here = Post(
        agent={"connections_per_host": 1, "pipelining_depth": 1},
        faults=[Fault(stage, Action.CLOSE, nth=2)],
        chunking=stage is Stage.BDAT,
        **SPLIT[how],
    )
    to = recipients(6)
    outcome: Outcome[DeliveryResult] = Outcome(send(here, *to))
    here.network.elapse(5)
    error: Any = outcome.error
    assert isinstance(error, ConnectionLost)
    assert error.in_doubt
    assert [entry.recipient for entry in error.recipients] == to
    assert [entry.status for entry in error.recipients] == [Status.OK] * 3 + [Status.UNKNOWN] * 3
    assert [entry.in_doubt for entry in error.recipients] == [False] * 3 + [True] * 3
    here.close()


@pytest.mark.parametrize("how", SPLIT)
@pytest.mark.parametrize("do", [Action.CLOSE, Action.RESET, Action.REPLY_AND_CLOSE])
def test_a_second_transaction_that_was_not_done_goes_elsewhere(how: str, do: Action) -> None:
    here = Post(
        agent={"connections_per_host": 1, "pipelining_depth": 1},
        faults=[Fault(Stage.MAIL, do, BYE, nth=2)],
        chunking=False,
        **SPLIT[how],
    )
    to = recipients(6)
    assert sent(here, *to).all_ok
    assert transactions(here) == [to[:3], to[3:]]
    assert here.sink.session_count == 2
    here.close()


@pytest.mark.parametrize("how", SPLIT)
def test_a_server_that_is_gone_for_the_second_transaction_leaves_what_is_known(how: str) -> None:
    here = Post(
        agent={"connections_per_host": 1, "pipelining_depth": 1},
        faults=[Fault(Stage.MAIL, Action.CLOSE, nth=2)],
        chunking=False,
        **SPLIT[how],
    )
    outcome: Outcome[DeliveryResult] = Outcome(send(here, *recipients(6)))
    # The one that connects already comes through; the next is refused.
    here.network.servers.clear()
    here.network.elapse(5)
    if how == "by 452":
        # Of those the server has said something.
        entries = outcome.value.recipients
        assert [entry.code for entry in entries] == [250] * 3 + [452] * 3
    else:
        error: Any = outcome.error
        assert isinstance(error, ConnectionRefused)
        assert not error.in_doubt
        assert [entry.status for entry in error.recipients] == [Status.OK] * 3 + [Status.UNKNOWN] * 3
    here.close()


@pytest.mark.parametrize("how", SPLIT)
def test_the_rest_of_a_mail_on_its_own_leaves_no_connection_behind(how: str) -> None:
    here = Post(**SPLIT[how])
    assert sent(here, *recipients(9), reuse=False).all_ok
    here.network.elapse(3)
    assert all(session.closed is Closed.QUIT for session in here.sink.sessions)
    here.network.assert_nothing_is_left()


@pytest.mark.parametrize("how", SPLIT)
def test_the_rest_does_not_wait_for_those_that_came_later(how: str) -> None:
    here = Post(agent={"connections_per_host": 1, "pipelining_depth": 1}, **SPLIT[how])
    first: Outcome[DeliveryResult] = Outcome(send(here, *recipients(9)))
    later = [Outcome(send(here, f"later{number}@example.net")) for number in range(20)]
    here.network.settle()
    assert first.value.all_ok
    assert all(outcome.value.all_ok for outcome in later)
    places = [at for at, mail in enumerate(here.sink.mails) if mail.addresses[0].startswith("r")]
    assert len(places) == 3
    assert places[-1] <= 5
    here.close()


def test_long_replies_of_many_transactions_are_bounded_as_those_of_one() -> None:
    text = b"".join(b"250-" + b"x" * 250 + b"\r\n" for _ in range(200)) + b"250 ok\r\n"
    fault = Fault(Stage.BDAT, Action.REPLY, text, nth=None)
    here = Post(extensions=["LIMITS RCPTMAX=1"], faults=[fault])
    result = sent(here, *recipients(100))
    assert sum(len(entry.response or "") for entry in result.recipients) < 100 * 1100
    here.close()
