"""From a message to its acknowledgement: order, tries, identity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pika import BasicProperties

from tests.gateway.amqp.fakes import NOW, Broker, Published
from tests.gateway.fakes import line, unknown, verdict
from tests.interpreted import interpreted
from twisted_smtpclient.errors import ConnectionLost, ConnectionRefused, TLSFailed
from twisted_smtpclient.gateway.amqp.retries import Retries
from twisted_smtpclient.gateway.memory import Memory
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.limits import Limits
from twisted_smtpclient.smtp.probe import Probe
from twisted_smtpclient.smtp.result import DeliveryResult, RecipientStatus

TWO = ["a@x.de", "b@x.de"]


def headers_of(published: Published) -> dict[str, Any]:
    headers: dict[str, Any] = published.properties.headers
    return headers


def again(broker: Broker, published: Published, *, redelivered: bool = False) -> int:
    """The message comes back from its delay."""
    given: BasicProperties = published.properties
    return broker.consuming().deliver(
        published.body,
        redelivered=redelivered,
        headers={**given.headers, "x-death": []},
        message_id=given.message_id,
        correlation_id=given.correlation_id,
        reply_to=given.reply_to,
    )


def succeed(broker: Broker, *texts: str) -> None:
    delivery = broker.agent.deliveries[-1]
    addresses = [recipient.address for recipient in delivery.envelope.recipients]
    verdicts = [verdict(address, text) for address, text in zip(addresses, texts, strict=True)]
    delivery.deferred.callback(DeliveryResult(delivery.envelope.sender, verdicts))


def fail(broker: Broker, *entries: RecipientStatus) -> None:
    broker.agent.deliveries[-1].fail(ConnectionLost("gone").concerning(entries))


def test_the_outcome_is_published_and_confirmed_before_the_request_is_acknowledged() -> None:
    broker = Broker()
    tag = broker.deliver(line(id=7), correlation_id="c")
    assert not broker.publishing.published
    broker.agent.deliveries[0].succeed()
    outcome = broker.outcome
    assert (outcome.exchange, outcome.key) == ("outcomes", "ok")
    assert outcome.reply["id"] == 7
    assert outcome.reply["deliveryStatus"][0]["status"] == "Ok"
    assert outcome.properties.correlation_id == "c"
    assert outcome.properties.delivery_mode == 2
    assert headers_of(outcome) == {"x-smtpclient-attempt": 1, "x-smtpclient-first-seen": int(NOW)}
    assert broker.settled() == set()
    broker.confirm()
    assert broker.settled() == {tag}
    assert broker.gateway.under_way == 0
    assert broker.deliveries.memory.held == 512  # that it has finished


def test_an_outcome_goes_to_reply_to_by_the_default_exchange() -> None:
    broker = Broker()
    broker.deliver(reply_to="client", correlation_id="c")
    broker.agent.deliveries[0].succeed()
    assert (broker.outcome.exchange, broker.outcome.key) == ("", "client")


@pytest.mark.parametrize(("queue", "asked"), [("client", True), ("amq.rabbitmq.reply-to.g1h2", False)])
def test_whether_a_queue_takes_it_is_asked_but_of_a_direct_reply_to(queue: str, asked: bool) -> None:
    broker = Broker()
    broker.deliver(reply_to=queue)
    broker.agent.deliveries[0].succeed()
    assert (broker.outcome.key, broker.outcome.mandatory) == (queue, asked)


def test_the_message_id_is_the_correlation_where_there_is_none() -> None:
    broker = Broker()
    broker.deliver(message_id="m1")
    broker.agent.deliveries[0].succeed()
    assert broker.outcome.properties.correlation_id == "m1"
    # What is published again after a loss can be told from a second outcome.
    assert broker.outcome.properties.message_id not in (None, "m1")


def test_without_a_place_for_outcomes_a_request_is_acknowledged_when_it_has_ended() -> None:
    broker = Broker(replies=None)
    tag = broker.deliver()
    assert broker.settled() == set()
    broker.agent.deliveries[0].succeed()
    assert broker.settled() == {tag}
    assert not broker.publishing.published


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"nonsense", "InvalidRequest"),
        (line(recipients=[]), "InvalidRequest"),
        (line(helo="x" * 70000), "RequestTooLarge"),
        (b'{"cancel": 1}', "InvalidRequest"),
    ],
)
def test_what_is_no_request_is_an_outcome_at_once(body: bytes, name: str) -> None:
    broker = Broker()
    tag = broker.deliver(body)
    assert broker.outcome.key == "invalid"
    assert broker.outcome.reply["error"] == name
    assert broker.deliveries.rejected[name] == 1
    broker.confirm()
    assert broker.settled() == {tag}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-smtpclient-attempt": "two"},
        {"x-smtpclient-verdicts": "[]"},
        {"x-smtpclient-verdicts": '[{"recipient": "other@x.de", "status": "Unknown"}]'},
        {
            "x-smtpclient-verdicts": json.dumps(
                [{"recipient": "valid@valid.de", "status": "Ok", "code": 250, "response": "250 ok"}]
            )
        },
    ],
)
def test_headers_that_no_try_has_written_are_invalid(headers: dict[str, Any]) -> None:
    broker = Broker()
    broker.deliver(headers=headers)
    if headers == {"x-smtpclient-verdicts": "[]"}:
        # No verdicts so far.
        assert len(broker.agent.deliveries) == 1
        return
    assert broker.outcome.key == "invalid"
    assert "x-smtpclient-" in broker.outcome.reply["message"]
    assert not broker.agent.deliveries


def test_a_probe_is_answered_and_never_tried_again() -> None:
    broker = Broker()
    broker.deliver(b'{"id": 1, "probe": true, "host": "mx.example"}')
    seen = Probe(greeting="220 hi", extensions=Extensions(), limits=Limits())
    broker.agent.probes[0].deferred.callback(seen)
    assert broker.outcome.key == "ok"
    assert broker.outcome.reply["greeting"] == "220 hi"
    broker.deliver(b'{"id": 2, "probe": true, "host": "mx.example"}', message_id="2")
    broker.agent.probes[1].deferred.errback(ConnectionRefused("no"))
    assert broker.outcome.key == "temporary"
    assert broker.outcome.reply["error"] == "ConnectionRefused"


# Further tries.


def test_only_those_that_need_it_are_tried_again_and_the_reply_has_all_verdicts() -> None:
    broker = Broker()
    tag = broker.deliver(line(id=1, recipients=TWO), reply_to="r", headers={"x-tenant": "anna"})
    succeed(broker, "250 ok", "450 later")
    retry = broker.outcome
    assert (retry.exchange, retry.key) == ("smtpclient.retry", "mail.10")
    assert retry.body == line(id=1, recipients=TWO)
    assert retry.properties.reply_to == "r"
    assert retry.properties.message_id == "m"
    headers = headers_of(retry)
    assert (headers["x-tenant"], headers["x-smtpclient-attempt"]) == ("anna", 2)
    assert headers["x-smtpclient-first-seen"] == int(NOW)
    assert broker.settled() == set()
    broker.confirm()
    assert broker.settled() == {tag}
    assert broker.state("retried") == 1

    broker.now += 10
    again(broker, retry)
    assert [entry.address for entry in broker.agent.deliveries[-1].envelope.recipients] == ["b@x.de"]
    succeed(broker, "250 ok too")
    outcome = broker.outcome
    assert (outcome.exchange, outcome.key) == ("", "r")
    assert outcome.properties.type == "ok"
    assert [entry["response"] for entry in outcome.reply["deliveryStatus"]] == ["250 ok", "250 ok too"]
    assert headers_of(outcome) == {"x-smtpclient-attempt": 2, "x-smtpclient-first-seen": int(NOW)}


def test_tries_come_to_an_end_and_then_the_outcome_is_temporary() -> None:
    broker = Broker()
    broker.deliver(line(recipients=TWO))
    keys: list[str] = []
    for _ in range(2):
        succeed(broker, *(["250 ok", "450 later"] if not keys else ["450 later"]))
        keys.append(broker.outcome.key)
        broker.confirm()
        again(broker, broker.outcome)
    succeed(broker, "450 still")
    assert keys == ["mail.10", "mail.60"]
    assert (broker.outcome.exchange, broker.outcome.key) == ("outcomes", "temporary")
    assert [entry["response"] for entry in broker.outcome.reply["deliveryStatus"]] == ["250 ok", "450 still"]


def test_a_request_that_is_too_old_is_not_tried_again() -> None:
    broker = Broker()
    broker.deliver(headers={"x-smtpclient-first-seen": int(NOW - 995)})
    succeed(broker, "450 later")
    assert broker.outcome.key == "temporary"


def test_an_error_for_good_is_not_tried_again() -> None:
    broker = Broker()
    broker.deliver()
    broker.agent.deliveries[0].fail(TLSFailed("bad"))
    assert broker.outcome.key == "permanent"
    assert broker.outcome.reply["error"] == "TLSFailed"


def test_an_error_before_mail_is_tried_again_without_verdicts() -> None:
    broker = Broker(retries=Retries(2, 1000.0, (10,)))
    broker.deliver(line(recipients=TWO))
    broker.agent.deliveries[0].fail(ConnectionRefused("no"))
    again(broker, broker.outcome)
    assert len(broker.agent.deliveries[1].envelope.recipients) == 2
    broker.agent.deliveries[1].fail(ConnectionRefused("no"))
    assert broker.outcome.key == "temporary"
    assert broker.outcome.reply["error"] == "ConnectionRefused"


def test_one_in_doubt_is_not_tried_again_beside_one_that_is() -> None:
    broker = Broker()
    broker.deliver(line(recipients=TWO))
    fail(broker, unknown("a@x.de", in_doubt=True), unknown("b@x.de", in_doubt=False))
    again(broker, broker.outcome)
    assert [entry.address for entry in broker.agent.deliveries[1].envelope.recipients] == ["b@x.de"]
    succeed(broker, "250 ok")
    assert broker.outcome.key == "indoubt"
    assert broker.outcome.reply["indoubt"] is True
    statuses = [entry["status"] for entry in broker.outcome.reply["deliveryStatus"]]
    assert statuses == ["Unknown", "Ok"]


def test_one_in_doubt_is_an_outcome_at_once() -> None:
    broker = Broker()
    broker.deliver()
    fail(broker, unknown("valid@valid.de", in_doubt=True))
    assert broker.outcome.key == "indoubt"


def test_one_in_doubt_is_tried_again_where_that_is_said() -> None:
    broker = Broker(retries=Retries(2, 1000.0, (10,), in_doubt=True))
    broker.deliver()
    fail(broker, unknown("valid@valid.de", in_doubt=True))
    assert broker.outcome.key == "mail.10"
    again(broker, broker.outcome)
    succeed(broker, "250 ok")
    assert broker.outcome.key == "ok"


def test_a_further_try_that_no_queue_takes_is_the_outcome_temporary() -> None:
    broker = Broker()
    tag = broker.deliver()
    succeed(broker, "450 later")
    broker.publishing.return_(broker.outcome)
    broker.confirm(number=1)
    assert broker.outcome.key == "temporary"
    assert broker.settled() == set()
    broker.confirm(number=2)
    assert broker.settled() == {tag}
    assert broker.state("retried") == 0


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_further_try_that_may_have_been_published_twice_says_so(in_doubt: bool) -> None:
    broker = Broker(redelivered_is_in_doubt=in_doubt)
    broker.deliver(message_id=None)
    succeed(broker, "450 later")
    first = broker.outcome
    assert "x-smtpclient-redelivered" not in headers_of(first)
    # The broker has it, and is gone before it can say so.
    broker.lose()
    broker.connect()
    second = broker.outcome
    assert headers_of(second)["x-smtpclient-redelivered"] is True
    again(broker, second)
    assert len(broker.agent.deliveries) == (1 if in_doubt else 2)
    if not in_doubt:
        succeed(broker, "250 ok")
    assert broker.outcome.reply["redelivered"] is True
    assert broker.outcome.key == ("indoubt" if in_doubt else "ok")


def test_a_further_try_that_was_published_twice_is_one_to_a_process_that_gets_both() -> None:
    broker = Broker()
    broker.deliver()
    succeed(broker, "450 later")
    broker.lose()
    broker.connect()
    twice = broker.outcome
    tags = {again(broker, twice), again(broker, twice)}
    assert len(broker.agent.deliveries) == 2
    succeed(broker, "250 ok")
    broker.publishing.confirm(1)
    broker.publishing.confirm(2)
    assert tags <= broker.settled()


@pytest.mark.parametrize("header", ["x" * 130_000, object()])
def test_headers_that_cannot_be_sent_on_end_the_tries(header: object) -> None:
    broker = Broker()
    broker.deliver(headers={"x-large": header})
    succeed(broker, "450 later")
    assert broker.outcome.key == "temporary"


# Keys.


def test_a_key_holds_over_tries_of_fewer_recipients() -> None:
    broker = Broker()
    body = line(recipients=TWO, key="k")
    broker.deliver(body)
    succeed(broker, "250 ok", "450 later")
    retry = broker.outcome
    # A second request of the same key joins the recorded outcome, and its retry.
    broker.deliver(body, message_id="n")
    assert len(broker.agent.deliveries) == 1
    other = broker.outcome
    assert other.key == "mail.10"
    again(broker, retry)
    again(broker, other)
    assert len(broker.agent.deliveries) == 2
    succeed(broker, "250 ok")
    assert [published.key for published in broker.publishing.published[2:]] == ["ok", "ok"]


# Identity.


def test_a_redelivered_request_joins_the_one_under_way() -> None:
    broker = Broker()
    broker.deliver()
    broker.lose()
    broker.connect()
    tag = broker.deliver(redelivered=True)
    (delivery,) = broker.agent.deliveries
    delivery.succeed()
    assert "redelivered" not in broker.outcome.reply
    broker.confirm()
    assert broker.settled() == {tag}
    assert len(broker.publishing.published) == 1
    assert broker.state("redelivered") == 1
    assert broker.gateway.under_way == 0


def test_two_messages_of_one_name_on_one_channel_are_both_acknowledged() -> None:
    broker = Broker()
    tags = {broker.deliver(), broker.deliver(redelivered=True)}
    (delivery,) = broker.agent.deliveries
    delivery.succeed()
    broker.confirm()
    assert broker.settled() == tags


def test_a_redelivered_request_that_has_its_outcome_is_acknowledged() -> None:
    broker = Broker()
    broker.deliver()
    broker.agent.deliveries[0].succeed()
    broker.publishing.confirm()
    # The acknowledgement is lost with the connection.
    broker.lose()
    broker.connect()
    tag = broker.deliver(redelivered=True)
    assert broker.settled() == {tag}
    assert len(broker.agent.deliveries) == 1
    assert not broker.publishing.published


def test_a_redelivered_request_whose_outcome_was_not_confirmed_gets_it() -> None:
    broker = Broker()
    broker.deliver()
    broker.agent.deliveries[0].succeed()
    first = broker.outcome
    broker.lose()
    broker.connect()
    assert broker.outcome.body == first.body
    assert broker.outcome.properties.message_id == first.properties.message_id
    tag = broker.deliver(redelivered=True)
    broker.confirm()
    assert broker.settled() == {tag}
    assert len(broker.agent.deliveries) == 1


def test_an_unknown_redelivered_request_is_delivered_and_its_outcome_says_so() -> None:
    broker = Broker()
    broker.deliver(redelivered=True)
    broker.agent.deliveries[0].succeed()
    assert broker.outcome.reply["redelivered"] is True
    assert broker.outcome.key == "ok"


def test_it_says_so_after_a_further_try_too() -> None:
    broker = Broker()
    broker.deliver(redelivered=True)
    succeed(broker, "450 later")
    again(broker, broker.outcome)
    succeed(broker, "250 ok")
    assert broker.outcome.reply["redelivered"] is True


def test_an_unknown_redelivered_request_is_in_doubt_where_that_is_said() -> None:
    broker = Broker(redelivered_is_in_doubt=True)
    tag = broker.deliver(redelivered=True)
    assert not broker.agent.deliveries
    reply = broker.outcome.reply
    assert broker.outcome.key == "indoubt"
    assert (reply["redelivered"], reply["indoubt"]) == (True, True)
    assert reply["deliveryStatus"] == [{"recipient": "valid@valid.de", "status": "Unknown", "indoubt": True}]
    broker.confirm()
    assert broker.settled() == {tag}


def test_a_key_is_an_identity_where_there_is_no_message_id() -> None:
    broker = Broker()
    broker.deliver(line(key="k"), message_id=None)
    broker.lose()
    broker.connect()
    broker.deliver(line(key="k"), message_id=None, redelivered=True)
    assert len(broker.agent.deliveries) == 1
    broker.agent.deliveries[0].succeed()
    assert len(broker.publishing.published) == 1


@interpreted
def test_an_outcome_that_cannot_be_told_for_a_fault_of_ours_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    broker = Broker()
    tag = broker.deliver()
    monkeypatch.setattr("twisted_smtpclient.gateway.amqp.job.encode_result", None)
    broker.agent.deliveries[0].succeed()
    assert broker.outcome.key == "indoubt"
    assert broker.outcome.reply["error"] == "InternalError"
    assert len(logged_failures.flush(TypeError)) == 1
    broker.confirm()
    assert broker.settled() == {tag}


def test_without_either_a_redelivered_request_is_another() -> None:
    broker = Broker()
    broker.deliver(message_id=None)
    broker.lose()
    broker.connect()
    broker.deliver(message_id=None, redelivered=True)
    assert len(broker.agent.deliveries) == 2


@pytest.mark.parametrize(
    ("properties", "body"),
    [({"redelivered": False}, line()), ({"redelivered": True}, line(sender="other@x.de"))],
)
def test_the_same_message_id_is_another_request_if_published_anew_or_with_another_body(
    properties: dict[str, bool], body: bytes
) -> None:
    broker = Broker()
    broker.deliver()
    broker.deliver(body, **properties)
    assert len(broker.agent.deliveries) == 2


def test_a_further_try_is_not_taken_for_the_one_before() -> None:
    broker = Broker()
    broker.deliver()
    succeed(broker, "450 later")
    retry = broker.outcome
    broker.confirm()
    again(broker, retry, redelivered=True)
    assert len(broker.agent.deliveries) == 2


def test_the_oldest_that_have_finished_are_forgotten_where_there_are_many() -> None:
    broker = Broker(memory=Memory(16 * 512 * 3))
    for number in range(5):
        broker.deliver(message_id=str(number))
        broker.agent.deliveries[-1].succeed()
        broker.confirm()
    assert broker.deliveries.memory.held == 3 * 512
    broker.lose()
    broker.connect()
    broker.deliver(message_id="4", redelivered=True)
    assert len(broker.agent.deliveries) == 5
    broker.deliver(message_id="0", redelivered=True)
    assert len(broker.agent.deliveries) == 6


# Unroutable.


def test_an_outcome_that_no_queue_takes_is_put_aside() -> None:
    broker = Broker()
    tag = broker.deliver(reply_to="gone")
    broker.agent.deliveries[0].succeed()
    first = broker.outcome
    broker.publishing.return_(first)
    broker.confirm(number=1)
    kept = broker.outcome
    assert (kept.exchange, kept.key, kept.body) == ("", "mail.dead", first.body)
    assert headers_of(kept)["x-smtpclient-outcome"] == "ok for 'gone' by ''"
    assert broker.settled() == set()
    broker.confirm(number=2)
    assert broker.settled() == {tag}
    assert broker.state("dead_lettered") == 1


def test_where_there_is_no_place_aside_the_request_is_acknowledged_all_the_same() -> None:
    broker = Broker()
    tag = broker.deliver(reply_to="gone")
    broker.agent.deliveries[0].succeed()
    for number in (1, 2):
        broker.publishing.return_(broker.outcome)
        broker.confirm(number=number)
    assert broker.settled() == {tag}


# The end.


def test_what_draining_cuts_off_goes_back_to_its_queue_as_the_same_try() -> None:
    broker = Broker()
    tag = broker.deliver(line(recipients=TWO), headers={"x-smtpclient-attempt": 2})
    broker.gateway.stop_taking()
    drained = broker.deliveries.drain(1.0)
    broker.agent.deliveries[0].on_cancel = (verdict("a@x.de"), unknown("b@x.de", in_doubt=False))
    broker.clock.advance(1.0)
    assert drained.called
    back = broker.outcome
    assert (back.exchange, back.key) == ("", "mail")
    assert headers_of(back)["x-smtpclient-attempt"] == 2
    assert "Unknown" in headers_of(back)["x-smtpclient-verdicts"]
    finished = broker.gateway.finish()
    assert not finished.called
    broker.publishing.confirm()
    assert finished.called
    assert broker.consuming().settled() == {tag}
    assert broker.state("retried") == 0


def test_what_may_not_go_back_to_its_queue_is_left_to_the_broker() -> None:
    broker = Broker()
    broker.deliver()
    broker.gateway.stop_taking()
    broker.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=False),)
    broker.deliveries.drain(1.0)
    broker.clock.advance(1.0)
    finished = broker.gateway.finish()
    broker.publishing.close_by_broker(403, "ACCESS_REFUSED - write access to exchange 'amq.default'")
    broker.clock.advance(0)
    assert finished.called
    assert broker.consuming().settled() == set()
    assert broker.gateway.under_way == 0


def test_what_draining_leaves_in_doubt_is_told_so() -> None:
    broker = Broker()
    broker.deliver()
    broker.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    broker.deliveries.drain(1.0)
    broker.clock.advance(1.0)
    assert broker.outcome.key == "indoubt"
    assert broker.outcome.reply["error"] == "ShuttingDown"


def test_a_request_that_comes_while_it_drains_goes_back() -> None:
    broker = Broker()
    broker.deliveries.drain(1.0)
    broker.deliver()
    assert (broker.outcome.exchange, broker.outcome.key) == ("", "mail")
    assert not broker.agent.deliveries


def test_nothing_is_taken_any_more_and_outcomes_are_waited_for_two_seconds_at_the_most() -> None:
    broker = Broker()
    broker.deliver()
    broker.gateway.stop_taking()
    assert broker.consuming().cancelled == ["tag-1"]
    broker.agent.deliveries[0].succeed()
    finished = broker.gateway.finish()
    broker.clock.advance(1.9)
    assert not finished.called
    broker.clock.advance(0.1)
    assert finished.called
    assert not broker.clock.getDelayedCalls()


@pytest.mark.parametrize("body", [None, b"not json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_queue_for_outcomes_may_have_a_name_that_is_not_utf_8(body: bytes | None, is_there: bool) -> None:
    broker = Broker()
    # As pika gives it.
    tag = broker.deliver(body, reply_to=b"\xff\xfe")
    if body is None:
        broker.agent.deliveries[0].succeed()
    assert broker.outcome.key == b"\xff\xfe"
    if not is_there:
        broker.publishing.return_(broker.outcome)
        broker.confirm()
        assert broker.outcome.key == "mail.dead"
    broker.confirm()
    assert broker.settled() == {tag}
    assert broker.gateway.under_way == 0
