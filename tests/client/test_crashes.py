"""A fault of ours with one mail is that mail's InternalError, and nobody else's affair."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, terms
from tests.interpreted import interpreted
from twisted_smtpclient import Content, DeliveryResult, Envelope, InternalError
from twisted_smtpclient.client import dispatch
from twisted_smtpclient.client.delivery import Delivery
from twisted_smtpclient.smtp.transaction import Transaction

WAYS: list[dict[str, Any]] = [{}, {"pipelining": False}]


def posted(here: Post, count: int) -> list[Outcome[DeliveryResult]]:
    mails = [Envelope(f"s{number}@example.org", ["r@example.net"]) for number in range(count)]
    return [Outcome(here.agent.deliver(terms(), mail, Content(MESSAGE))) for mail in mails]


@interpreted
@pytest.mark.parametrize("offers", WAYS)
def test_a_fault_before_a_mail_is_begun_ends_that_mail_alone(
    offers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(envelope: Envelope, *given: Any, **more: Any) -> Transaction:
        if envelope.sender == "s3@example.org":
            raise ZeroDivisionError
        return Transaction(envelope, *given, **more)

    monkeypatch.setattr(dispatch, "Transaction", broken)
    here = Post(agent={"connections_per_host": 1}, **offers)
    outcomes = posted(here, 10)
    here.network.settle()
    assert [outcome.came for outcome in outcomes] == [1] * 10
    assert isinstance(outcomes.pop(3).error, InternalError)
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert here.sink.mail_count == 9
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    here.close()


@interpreted
def test_a_thousand_faults_are_a_thousand_errors(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(*given: Any, **more: Any) -> Transaction:
        raise ZeroDivisionError

    monkeypatch.setattr(dispatch, "Transaction", broken)
    here = Post(agent={"connections_per_host": 1})
    outcomes = posted(here, 1000)
    here.network.settle()
    assert all(isinstance(outcome.error, InternalError) for outcome in outcomes)
    assert len(logged_failures.flush(ZeroDivisionError)) == 1000
    here.close()


@interpreted
@pytest.mark.parametrize("offers", WAYS)
def test_a_fault_with_an_outcome_tells_what_the_server_said(
    offers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    settle = Delivery.settle

    def broken(delivery: Delivery, *given: Any) -> Any:
        if delivery.envelope.sender == "s3@example.org":
            raise ZeroDivisionError
        return settle(delivery, *given)

    monkeypatch.setattr(Delivery, "settle", broken)
    here = Post(agent={"connections_per_host": 1}, **offers)
    outcomes = posted(here, 10)
    here.network.settle()
    error: Any = outcomes.pop(3).error
    assert isinstance(error, InternalError)
    assert [entry.code for entry in error.recipients] == [250]
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert logged_failures.flush(ZeroDivisionError)
    here.close()
