from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.gateway.fakes import Daemon, line, unknown, verdict
from twisted_smtpclient import errors
from twisted_smtpclient.gateway.codec import Request, RequestDecoder
from twisted_smtpclient.smtp.result import DeliveryResult


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def request(**changed: Any) -> Request:
    decoded = RequestDecoder().decode(line(**changed))
    assert isinstance(decoded, Request)
    return decoded


class Desk:
    """Deliveries, and the replies to what was started."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.agent = self.daemon.agent
        self.deliveries = self.daemon.deliveries
        self.replies: list[dict[str, Any]] = []

    def start(self, **changed: Any) -> None:
        self.deliveries.start(request(**changed), lambda octets: self.replies.append(json.loads(octets)))

    def end_turn(self) -> None:
        self.daemon.clock.advance(0)


def test_a_delivery_is_handed_over_as_it_was_asked_for() -> None:
    desk = Desk()
    asked = request(port=2525)
    desk.deliveries.start(asked, lambda octets: None)
    (delivery,) = desk.agent.deliveries
    assert delivery.server is asked.server
    assert delivery.envelope is asked.envelope
    assert delivery.content is asked.content
    assert "1 under way" in repr(desk.deliveries)


def test_each_outcome_is_one_reply() -> None:
    desk = Desk()
    desk.start(id=1)
    desk.start(id=2)
    desk.agent.deliveries[1].fail(errors.ConnectionRefused("Connection refused: mx.example:25"))
    desk.agent.deliveries[0].succeed("450 4.2.0 later")
    assert [reply["id"] for reply in desk.replies] == [2, 1]
    assert desk.replies[0]["error"] == "ConnectionRefused"
    assert desk.replies[1]["deliveryStatus"][0]["status"] == "TemporaryError"
    assert "0 under way" in repr(desk.deliveries)


def test_one_line_is_logged_for_each_delivery_at_the_end_of_the_turn(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.start(recipients=["a@b.de", "b@b.de", "c@b.de"])
    desk.daemon.clock.advance(1.25)
    (delivery,) = desk.agent.deliveries
    verdicts = [verdict("a@b.de"), verdict("b@b.de", "550 no", "RCPT"), verdict("c@b.de")]
    delivery.deferred.callback(DeliveryResult("foo@bar.de", verdicts))
    assert desk.replies
    assert not log
    desk.end_turn()
    (event,) = log
    assert formatEvent(event) == "mx.example:25 from 'foo@bar.de': 2 Ok, 1 PermanentError, 1.250 s"


def test_an_error_is_logged_with_what_is_known(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.start(sender=None)
    error = errors.ConnectionLost("closed")
    error.recipients = (unknown("valid@valid.de", in_doubt=True),)
    desk.agent.deliveries[0].fail(error)
    desk.end_turn()
    (event,) = log
    assert formatEvent(event) == "mx.example:25 from None: ConnectionLost (closed) 1 Unknown, 0.000 s"


def test_neither_message_nor_reply_text_of_a_verdict_is_logged(log: list[LogEvent]) -> None:
    desk = Desk()
    for _ in range(2):
        desk.start()
        desk.agent.deliveries[-1].succeed("250 queued as 4711")
    desk.end_turn()
    assert "Subject" not in str(log)
    assert "4711" not in str(log)


@pytest.mark.parametrize("reuse", [True, False])
def test_whether_a_connection_may_be_shared_is_handed_over(reuse: bool) -> None:
    desk = Desk()
    desk.start(reuse=reuse)
    assert desk.agent.deliveries[0].reuse is reuse


@pytest.mark.parametrize("where", ["raised", "errback", "result"])
def test_a_fault_is_an_internal_error_with_a_traceback_in_the_log(
    where: str, log: list[LogEvent], logged_failures: Any
) -> None:
    desk = Desk()
    if where == "raised":
        desk.agent.fault = KeyError("secret")
        desk.start()
    else:
        desk.start()
        if where == "errback":
            desk.agent.deliveries[0].fail(KeyError("secret"))
        else:
            desk.agent.deliveries[0].deferred.callback(None)  # type: ignore[arg-type]  # the fault
    (reply,) = desk.replies
    assert reply["error"] == "InternalError"
    assert reply["temporary"] is False
    assert "secret" not in reply["message"]
    desk.end_turn()
    assert [event["log_level"] for event in log] == [LogLevel.critical, LogLevel.info]
    # What None is not, compiled.
    assert len(logged_failures.flush(KeyError, AttributeError, TypeError)) == 1


def test_an_error_that_cannot_be_written_is_an_internal_error(logged_failures: Any) -> None:
    desk = Desk()
    desk.start(id=1)
    desk.agent.deliveries[0].fail(errors.ProtocolError("half a character: \ud800"))
    (reply,) = desk.replies
    assert (reply["id"], reply["error"]) == (1, "InternalError")
    assert len(logged_failures.flush(UnicodeEncodeError)) == 1


def test_a_reply_that_cannot_be_given_ends_the_delivery_all_the_same(
    log: list[LogEvent], logged_failures: Any
) -> None:
    desk = Desk()

    def answer(octets: bytes) -> None:
        raise ValueError("no such client")

    desk.deliveries.start(request(), answer)
    desk.agent.deliveries[0].succeed()
    assert "0 under way" in repr(desk.deliveries)
    desk.end_turn()
    assert [event["log_level"] for event in log] == [LogLevel.critical, LogLevel.info]
    assert len(logged_failures.flush(ValueError)) == 1


# Draining


def drained(desk: Desk, seconds: float) -> list[None]:
    fired: list[None] = []
    desk.deliveries.drain(seconds).addCallback(fired.append)
    return fired


def test_draining_with_nothing_under_way_is_done_at_once() -> None:
    desk = Desk()
    assert drained(desk, 5) == [None]
    assert not desk.daemon.clock.getDelayedCalls()


def test_draining_with_nothing_under_way_writes_the_log_first(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.start()
    desk.agent.deliveries[0].succeed()
    assert drained(desk, 5) == [None]
    assert len(log) == 1
    assert not desk.daemon.clock.getDelayedCalls()


def test_the_last_delivery_of_draining_is_in_the_log_when_draining_is_over(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.start()
    desk.start()
    seen: list[int] = []
    desk.deliveries.drain(5).addCallback(lambda _: seen.append(len(log)))
    desk.agent.deliveries[0].succeed()
    desk.agent.deliveries[1].succeed()
    assert seen == [1]
    assert log[0]["count"] == 2
    assert not desk.daemon.clock.getDelayedCalls()


def test_a_request_that_comes_while_draining_is_answered_shutting_down() -> None:
    desk = Desk()
    desk.start(id=1)
    fired = drained(desk, 5)
    desk.start(id=2)
    (reply,) = desk.replies
    assert (reply["id"], reply["error"], reply["temporary"]) == (2, "ShuttingDown", True)
    assert "deliveryStatus" not in reply
    assert len(desk.agent.deliveries) == 1
    assert not fired
    assert "draining" in repr(desk.deliveries)


def test_what_ends_while_draining_is_answered_as_ever() -> None:
    desk = Desk()
    desk.start(id=1)
    fired = drained(desk, 5)
    desk.agent.deliveries[0].succeed()
    assert desk.replies[0]["status"] == "ok"
    assert fired == [None]
    assert not desk.daemon.clock.getDelayedCalls()


def test_what_has_not_ended_in_time_is_answered_shutting_down_with_what_is_known() -> None:
    desk = Desk()
    desk.start(id=1)
    desk.start(id=2)
    desk.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    fired = drained(desk, 5)
    desk.daemon.clock.advance(4.9)
    assert not desk.replies
    desk.daemon.clock.advance(0.2)
    assert fired == [None]
    replies = {reply["id"]: reply for reply in desk.replies}
    assert {reply["error"] for reply in desk.replies} == {"ShuttingDown"}
    assert replies[1]["indoubt"] is True
    assert replies[1]["deliveryStatus"] == [
        {"recipient": "valid@valid.de", "status": "Unknown", "indoubt": True}
    ]
    assert "indoubt" not in replies[2]


def test_a_deferred_that_knows_no_cancelling_is_answered_shutting_down_too() -> None:
    desk = Desk()

    desk.daemon.deliveries.begin = lambda *_, **__: Deferred()
    desk.start()
    fired = drained(desk, 0)
    desk.daemon.clock.advance(0)
    assert desk.replies[0]["error"] == "ShuttingDown"
    assert fired == [None]


def test_an_error_of_its_own_at_the_end_of_draining_is_told_as_it_is() -> None:
    desk = Desk()

    def cancel(deferred: Deferred[DeliveryResult]) -> None:
        deferred.errback(errors.ResponseTimeout("too late"))

    desk.daemon.deliveries.begin = lambda *_, **__: Deferred(cancel)
    desk.start()
    drained(desk, 0)
    desk.daemon.clock.advance(0)
    assert desk.replies[0]["error"] == "ResponseTimeout"
