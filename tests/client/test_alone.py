"""
Tests of mails that share no connection (``reuse=False``), by what a server sees.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, envelope, terms
from twisted_smtpclient import Content, DeliveryError, DeliveryResult, ExtensionUnsupported, Mode
from twisted_smtpclient.testing import Action, Fault, Stage


def deliver_alone(here: Post, *recipients: str) -> Deferred[DeliveryResult]:
    return here.agent.deliver(terms(), envelope(*recipients), Content(MESSAGE), reuse=False)


def mails_by_session(here: Post) -> list[int]:
    """How many each connection brought, in the order in which they were opened."""
    return [len(session.mails) for session in here.sink.sessions]


def test_mails_alone_have_a_connection_each_and_leave_none_behind() -> None:
    here = Post(agent={"connections_per_host": 2})
    outcomes = [Outcome(deliver_alone(here)) for _ in range(5)]
    here.network.settle()
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert mails_by_session(here) == [1] * 5
    assert "0 open" in repr(here.agent)
    here.close()


def test_the_connection_of_a_mail_alone_is_busy_with_it() -> None:
    here = Post(delay=1.0)
    outcome = Outcome(deliver_alone(here))
    here.network.elapse(2.5, step=0.5)
    assert (outcome.came, repr(here.agent)) == (
        0,
        "<DeliveryAgent 1 under way, <Pool 1 open, 1 busy, 0 opening, 0 waiting, 1 keys>>",
    )
    here.network.elapse(10)
    assert outcome.value.all_ok
    here.close()


def test_thousands_alone_for_a_server_that_turns_out_useless_have_each_their_error() -> None:
    here = Post(faults=[Fault(Stage.BDAT, Action.REPLY, b"500 what?\r\n", nth=None)])
    server = terms(chunking=Mode.DEPEND)
    outcomes = [
        Outcome(here.agent.deliver(server, envelope(), Content(MESSAGE), reuse=False)) for _ in range(2000)
    ]
    here.network.settle()
    assert {type(outcome.error) for outcome in outcomes} == {ExtensionUnsupported}
    here.close()


def test_a_mail_alone_uses_no_connection_that_is_kept_and_spoils_none() -> None:
    here = Post()
    assert here.delivered().value.all_ok
    assert here.network.until(deliver_alone(here)).value.all_ok
    assert here.delivered().value.all_ok
    assert mails_by_session(here) == [2, 1]
    here.close()


@pytest.mark.parametrize("others", [0, 1])
def test_one_that_is_cancelled_before_its_connection_is_open_is_never_sent(others: int) -> None:
    here = Post(agent={"connections_per_host": 1})
    result = deliver_alone(here)
    cancelled = Outcome(result)
    others_sent = [Outcome(here.deliver("other@example.net")) for _ in range(others)]
    result.cancel()
    here.network.settle()
    error = cancelled.error
    assert isinstance(error, DeliveryError)
    assert not error.in_doubt
    assert all(outcome.value.all_ok for outcome in others_sent)
    assert [mail.addresses for mail in here.sink.mails] == [["other@example.net"]] * others
    here.close()


def test_one_that_moves_to_another_connection_is_alone_there_too() -> None:
    here = Post(chunking=False, faults=[Fault(Stage.MAIL, Action.CLOSE)])
    outcome = Outcome(deliver_alone(here))
    here.network.settle()
    assert outcome.value.all_ok
    assert here.delivered().value.all_ok
    assert mails_by_session(here) == [0, 1, 1]
    here.close()


@pytest.mark.parametrize("offers", [{"extensions": ["LIMITS RCPTMAX=1"]}, {"max_recipients": 1}])
def test_the_further_transactions_of_one_are_alone_too(offers: dict[str, Any]) -> None:
    here = Post(**offers)
    assert here.network.until(deliver_alone(here)).value.all_ok
    assert mails_by_session(here) == [1, 1]
    assert "0 open" in repr(here.agent)
    here.close()
