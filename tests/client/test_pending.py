"""
Tests of what a daemon has in the place of a Deferred.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from twisted.python.failure import Failure

from tests.client.sessions import MESSAGE, Post, envelope, terms
from tests.conftest import LoggedFailures
from twisted_smtpclient import Content
from twisted_smtpclient.client.pending import Pending
from twisted_smtpclient.errors import Cancelled, ProtocolError, ShuttingDown
from twisted_smtpclient.testing import Action, Fault


class Waiting:
    """One who waits, and what he was told."""

    def __init__(self, pending: Pending) -> None:
        self.results: list[Any] = []
        self.failures: list[Failure] = []
        pending.addCallbacks(self.results.append, self.failures.append)


def never(_: object) -> None:
    raise AssertionError("it was cancelled")


@pytest.mark.parametrize("late", [False, True])
def test_the_listener_is_told_once_whenever_it_comes(late: bool) -> None:
    pending = Pending(never)
    if late:
        pending.callback(1)
    waiting = Waiting(pending)
    if not late:
        assert not waiting.results
        pending.callback(1)
    assert (waiting.results, waiting.failures) == ([1], [])
    assert pending.called


@pytest.mark.parametrize("late", [False, True])
def test_an_error_comes_as_a_failure(late: bool) -> None:
    pending = Pending(never)
    error = ProtocolError("x")
    if late:
        pending.errback(error)
    waiting = Waiting(pending)
    if not late:
        pending.errback(error)
    assert waiting.results == []
    assert [failure.value for failure in waiting.failures] == [error]


def test_none_is_a_result() -> None:
    pending = Pending(never)
    waiting = Waiting(pending)
    pending.callback(None)
    assert waiting.results == [None]


def test_who_cancels_is_told_by_who_delivers_and_only_before_the_outcome() -> None:
    pending = Pending(lambda given: given.errback(Cancelled("no more")))
    waiting = Waiting(pending)
    pending.cancel()
    pending.cancel()
    assert [str(failure.value) for failure in waiting.failures] == ["no more"]


@pytest.mark.parametrize("well", [True, False])
def test_a_fault_of_the_listener_is_logged(well: bool, logged_failures: LoggedFailures) -> None:
    def fault(_: object) -> None:
        raise ZeroDivisionError

    pending = Pending(never)
    pending.addCallbacks(fault, fault)
    if well:
        pending.callback(1)
    else:
        pending.errback(ProtocolError("x"))
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


class Gateway:
    """One mail that an agent was given as a gateway gives it."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.pending = post.agent.begin(terms(), envelope(), Content(MESSAGE))
        self.waiting = Waiting(self.pending)


def test_an_agent_tells_the_verdicts() -> None:
    gateway = Gateway(Post())
    gateway.post.network.settle()
    (result,) = gateway.waiting.results
    assert result.all_ok
    assert not gateway.waiting.failures
    gateway.pending.cancel()
    gateway.post.close()


def test_a_cancelled_mail_ends_at_once() -> None:
    gateway = Gateway(Post())
    gateway.pending.cancel()
    assert [type(failure.value).__name__ for failure in gateway.waiting.failures] == ["DeliveryCancelled"]
    gateway.post.network.settle()
    assert not gateway.waiting.results
    gateway.post.close()


def test_a_closed_agent_tells_at_once() -> None:
    post = Post()
    post.close()
    gateway = Gateway(post)
    assert [type(failure.value) for failure in gateway.waiting.failures] == [ShuttingDown]


@pytest.mark.parametrize("offers", [{}, {"faults": [Fault(at="MAIL", do=Action.REPLY, reply=b"550 no\r\n")]}])
def test_a_mail_that_has_ended_is_kept_by_nobody(offers: dict[str, Any]) -> None:
    post = Post(**offers)
    content = Content(MESSAGE)
    before = sys.getrefcount(content)
    # Not even until the collector comes, which a daemon has come seldom.
    gc.disable()
    try:
        pending = post.agent.begin(terms(), envelope(), content)
        waiting = Waiting(pending)
        post.network.settle()
        assert waiting.results
        del waiting
        assert sys.getrefcount(content) == before
    finally:
        gc.enable()
    assert pending.called
    post.close()


@pytest.mark.parametrize("kind", ["begin", "deliver"])
def test_a_mail_that_is_on_its_way_to_another_connection_is_cancelled_too(kind: str) -> None:
    post = Post(agent={"messages_per_connection": 2}, extensions=["LIMITS RCPTMAX=1"])
    assert post.delivered("first@example.net").value.all_ok
    # Its second recipient is the next connection's; so is its first, and not told so yet.
    pending: Any = getattr(post.agent, kind)(terms(), envelope("a@x.de", "b@x.de"), Content(MESSAGE))
    waiting = Waiting(pending)
    pending.cancel()
    (failure,) = waiting.failures
    assert type(failure.value).__name__ == "DeliveryCancelled"
    post.network.elapse(5.0)
    assert [mail.addresses for mail in post.sink.mails] == [["first@example.net"]]
    post.close()
