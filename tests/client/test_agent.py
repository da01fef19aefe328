"""
Tests of the agent by what it promises: deliver, close, and the first line of code.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, MESSAGE, RECIPIENTS, Post, envelope, terms
from twisted_smtpclient import (
    ConnectionRefused,
    Content,
    DeliveryAgent,
    DeliveryError,
    DeliveryResult,
    Envelope,
    HostNotFound,
    InvalidRequest,
    Mode,
    Server,
    ShuttingDown,
    TLSMode,
    deliver,
)
from twisted_smtpclient.testing import Action, Fault, Mail, Sink, Stage


@pytest.mark.parametrize(
    "offers", [{}, {"chunking": False}, {"pipelining": False}, {"pipelining": False, "chunking": False}]
)
def test_one_mail_after_another_is_delivered(offers: dict[str, Any]) -> None:
    here = Post(**offers)
    for _ in range(3):
        assert here.delivered().value.all_ok
    assert here.sink.mail_count == 3
    assert here.sink.violations == []
    here.close()


@pytest.mark.parametrize(
    "offers", [{}, {"chunking": False}, {"pipelining": False}, {"pipelining": False, "chunking": False}]
)
def test_a_thousand_mails_at_once_have_each_their_own_result(offers: dict[str, Any]) -> None:
    def final_reply(mail: Mail) -> str:
        return f"250 took the mail to {mail.addresses[0]}"

    here = Post(final_reply=final_reply, refuse={"r500@example.net": "550 no"}, **offers)
    outcomes = [Outcome(here.deliver(f"r{number}@example.net")) for number in range(1000)]
    here.network.settle()
    for number, outcome in enumerate(outcomes):
        (entry,) = outcome.value.recipients
        if number == 500:
            assert entry.response == "550 no"
        else:
            assert entry.response == f"250 took the mail to r{number}@example.net"
    assert here.sink.violations == []
    here.close()


@pytest_twisted.ensureDeferred
async def test_a_thousand_mails_at_once_are_delivered_over_real_sockets() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen()
    agent = DeliveryAgent(reactor)
    server = Server(host="127.0.0.1", port=sink.port, tls=TLSMode.NO)
    content = Content(MESSAGE)
    mails = [agent.deliver(server, envelope(f"r{number}@example.net"), content) for number in range(1000)]
    results = await gatherResults(mails)
    assert all(result.all_ok for result in results)
    assert sorted(mail.addresses[0] for mail in sink.mails) == sorted(
        f"r{number}@example.net" for number in range(1000)
    )
    await agent.close()
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_delivery_can_be_awaited() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen()
    agent = DeliveryAgent(reactor, helo="me.example")
    result = await agent.deliver(Server(host="127.0.0.1", port=sink.port), envelope(), Content(MESSAGE))
    assert isinstance(result, DeliveryResult)
    assert [entry.recipient for entry in result.recipients] == list(RECIPIENTS)
    assert sink.sessions[0].helo == "me.example"
    await agent.close()
    await sink.stop()


def test_a_delivery_can_be_used_with_callbacks() -> None:
    here = Post()
    seen: list[object] = []
    here.deliver().addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    here.network.serve(None)
    here.network.serve(here.sink)
    here.network.settle()
    assert len(seen) == 1
    assert isinstance(seen[0], DeliveryResult)
    here.close()


def test_an_error_can_be_used_with_callbacks() -> None:
    here = Post()
    seen: list[object] = []
    here.deliver(host="192.0.2.99").addErrback(lambda failure: seen.append(failure.trap(ConnectionRefused)))
    here.network.settle()
    assert seen == [ConnectionRefused]
    here.close()


def test_a_callback_that_raises_harms_no_other_mail(logged_failures: Any) -> None:
    here = Post()

    def raises(result: DeliveryResult) -> None:
        raise RuntimeError("a user's own")

    first = here.deliver().addCallback(raises)
    others = [Outcome(here.deliver()) for _ in range(5)]
    here.network.settle()
    assert all(other.value.all_ok for other in others)
    del first
    here.close()
    assert len(logged_failures.flush(RuntimeError)) == 1


def test_a_callback_may_give_a_further_mail() -> None:
    here = Post()
    outcome = Outcome(here.deliver().addCallback(lambda result: here.deliver()))
    here.network.settle()
    assert outcome.value.all_ok
    assert here.sink.mail_count == 2
    here.close()


def test_a_callback_may_cancel_another_delivery() -> None:
    here = Post()
    second: list[Deferred[DeliveryResult]] = []

    def cancel(result: DeliveryResult) -> DeliveryResult:
        second[0].cancel()
        return result

    first = Outcome(here.deliver().addCallback(cancel))
    second.append(here.deliver())
    other = Outcome(second[0])
    third = Outcome(here.deliver())
    here.network.settle()
    assert first.value.all_ok
    assert other.came == 1
    assert third.value.all_ok
    here.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_callback_may_close_the_agent(fails: bool) -> None:
    here = Post(refuse_sender=lambda sender: "550 no" if fails else None)
    closed: list[Outcome[None]] = []

    def close(result: DeliveryResult) -> DeliveryResult:
        closed.append(Outcome(here.agent.close()))
        return result

    first = Outcome(here.deliver().addCallback(close))
    others = [Outcome(here.deliver()) for _ in range(20)]
    here.network.elapse(6)
    assert first.value.all_ok is not fails
    assert all(other.came == 1 for other in others)
    assert closed[0].value is None
    here.network.elapse(3)
    here.network.assert_nothing_is_left()


def test_closing_ends_what_is_under_way_and_leaves_nothing_behind() -> None:
    here = Post(faults=[Fault(Stage.MAIL, Action.STALL, nth=None)], chunking=False)
    outcomes = [Outcome(here.deliver()) for _ in range(100)]
    here.network.settle()
    here.close()
    assert all(isinstance(outcome.error, ShuttingDown) for outcome in outcomes)


def test_an_agent_tells_what_it_is_doing() -> None:
    here = Post(faults=[Fault(Stage.GREETING, Action.STALL)])
    assert repr(here.agent).startswith("<DeliveryAgent 0 under way")
    outcome = Outcome(here.deliver())
    assert repr(here.agent).startswith("<DeliveryAgent 1 under way")
    here.close()
    assert repr(here.agent).startswith("<DeliveryAgent 0 under way")
    assert isinstance(outcome.error, ShuttingDown)


@pytest.mark.parametrize("helo", ["me\r\nNOOP", "me example", "-", "me\x00", "x" * 300])
def test_a_name_that_could_add_a_command_never_reaches_the_wire(helo: str) -> None:
    network = Network()
    sink = Sink(network)
    network.serve(sink, HOST)
    with pytest.raises(InvalidRequest) as caught:
        _ = network.until(DeliveryAgent(network, helo=helo).deliver(terms(), envelope(), Content(b""))).value
    assert caught.value.field == "helo"
    assert sink.commands == []


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("outcome", ["accepted", "refused", "error", "cancelled"])
def test_nothing_keeps_a_mail_that_has_its_outcome(chunking: bool, size: int, outcome: str) -> None:
    faults = [Fault(Stage.MAIL, Action.STALL)] if outcome == "cancelled" else []
    refuse: Any = (lambda address: "550 no") if outcome == "refused" else {}
    here = Post(chunking=chunking, faults=faults, refuse=refuse)
    message, sender = b"x" * size, "".join(["me", "@example.org"])
    before = sys.getrefcount(message), sys.getrefcount(sender)
    server = terms(host="192.0.2.99") if outcome == "error" else terms()
    result = here.agent.deliver(server, Envelope(sender, RECIPIENTS), Content(message))
    here.network.settle()
    if outcome == "cancelled":
        result.cancel()
    came = Outcome(result)
    assert came.came == 1
    del result, came
    here.close()
    # Which keeps the sessions, as no reactor does.
    here.network.ends.clear()
    gc.collect()
    assert (sys.getrefcount(message), sys.getrefcount(sender)) == before


# The first line of code.


@pytest_twisted.ensureDeferred
async def test_one_line_delivers_a_mail() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor, refuse={"no@example.net": "550 no"})
    await sink.listen()
    result = await deliver("localhost", None, ["yes@example.net", "no@example.net"], MESSAGE, port=sink.port)
    assert [entry.code for entry in result.recipients] == [250, 550]
    assert sink.mails[0].sender == ""
    assert sink.mails[0].content == MESSAGE
    await sink.stop()


def test_one_line_takes_all_the_terms_of_a_server() -> None:
    network = Network()
    sink = Sink(network)
    network.serve(sink, HOST)
    result = deliver(
        HOST,
        "me@example.org",
        ["you@example.net"],
        b"hi",
        port=2525,
        helo="me.example",
        reactor=network,
        tls=TLSMode.NO,
        pipelining=Mode.NO,
        chunking=Mode.NO,
    )
    assert network.until(result).value.all_ok
    assert sink.commands[0] == b"EHLO me.example"
    assert sink.mails[0].via == "DATA"
    assert network.attempts[0].address.port == 2525  # type: ignore[union-attr]  # it is not UNIX


def test_one_line_leaves_no_connection_behind() -> None:
    network = Network()
    network.serve(Sink(network), HOST)
    result = deliver(HOST, "me@example.org", ["you@example.net"], b"hi", reactor=network, tls=TLSMode.NO)
    assert network.until(result).value.all_ok
    network.elapse(8)
    network.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "a b"}, "host"),
        ({"port": 70000}, "port"),
        ({"sender": "a\r\nb@example.org"}, "sender"),
        ({"recipients": ["a@example.net", "<>"]}, "recipients[1]"),
        ({"recipients": []}, "recipients"),
        ({"recipients": "a@example.net"}, "recipients"),
        ({"message": "text"}, "message"),
        ({"helo": "a\nb"}, "helo"),
        ({"tls": "TRY"}, "tls"),
    ],
)
def test_an_argument_that_is_wrong_is_named_at_once(changes: dict[str, Any], field: str) -> None:
    given = {
        "host": HOST,
        "sender": "me@example.org",
        "recipients": ["a@example.net"],
        "message": b"",
        **changes,
    }
    network = Network()
    with pytest.raises(InvalidRequest) as caught:
        deliver(reactor=network, **given)
    assert caught.value.field == field
    assert network.attempts == []


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(HostNotFound, match=r"^Host not found: no-such-host\.invalid: "):
        await deliver("no-such-host.invalid", None, ["a@example.net"], b"")


@pytest_twisted.ensureDeferred
async def test_all_errors_of_a_delivery_have_one_base() -> None:
    with pytest.raises(DeliveryError):
        await deliver("unix:/nonexistent/socket", None, ["a@example.net"], b"")


@pytest.mark.parametrize("limit", ["connections_per_host", "pipelining_depth", "messages_per_connection"])
def test_a_limit_that_would_let_nothing_through_is_refused_at_once(limit: str) -> None:
    given: dict[str, Any] = {limit: 0}
    with pytest.raises(ValueError, match=limit):
        DeliveryAgent(Network(), **given)


@pytest.mark.parametrize("deadline", [-1, float("nan"), "5"])
def test_a_deadline_that_is_none_is_refused_before_the_mail_is_on_its_way(deadline: Any) -> None:
    # Who is told of a fault sends the mail again.
    here = Post()
    with pytest.raises((ValueError, TypeError)):
        here.agent.deliver(terms(), envelope(), Content(MESSAGE), deadline=deadline)
    here.network.settle()
    assert here.sink.mails == []
    assert repr(here.agent).startswith("<DeliveryAgent 0 under way")
    here.close()


def test_what_is_no_server_is_refused_at_once_and_leaves_nothing_under_way() -> None:
    here = Post()
    given: Any = "localhost"
    with pytest.raises(TypeError, match="takes a Server, not str"):
        here.agent.deliver(given, envelope("a@example.net"), Content(MESSAGE))
    with pytest.raises(TypeError, match="takes a Content, not bytes"):
        here.agent.deliver(terms(), envelope("a@example.net"), given.encode())
    assert repr(here.agent).startswith("<DeliveryAgent 0 under way")
    here.close()
