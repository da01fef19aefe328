"""The connection: lost and come back, blocked, bounded; channels that close."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.logger import capturedLogs

from tests.gateway.amqp.fakes import Broker
from tests.gateway.fakes import line
from twisted_smtpclient.gateway.amqp.backoff import LONGEST, Backoff
from twisted_smtpclient.gateway.memory import Memory


def test_deliveries_go_on_without_a_connection_and_their_outcomes_are_published_on_the_next() -> None:
    broker = Broker()
    broker.deliver(line(id=1))
    broker.lose()
    broker.agent.deliveries[0].succeed()
    assert broker.state("unconfirmed") == 1
    assert broker.state("connected") == 0
    broker.connect()
    assert broker.outcome.reply["id"] == 1
    broker.confirm()
    assert broker.state("unconfirmed") == 0
    # It came by a channel that has gone, so nothing can be acknowledged.
    assert broker.settled() == set()
    assert broker.state("reconnects") == 1


def test_what_was_not_confirmed_is_published_again_in_its_order() -> None:
    broker = Broker()
    for number in range(3):
        broker.deliver(line(id=number), message_id=str(number))
        broker.agent.deliveries[number].succeed()
    broker.publishing.confirm(1)
    broker.lose()
    broker.connect()
    assert [published.reply["id"] for published in broker.publishing.published] == [1, 2]


def test_a_confirmation_of_many_settles_them_all() -> None:
    broker = Broker()
    tags = set()
    for number in range(4):
        tags.add(broker.deliver(message_id=str(number)))
        broker.agent.deliveries[number].succeed()
    broker.confirm(number=3, multiple=True)
    assert broker.settled() == tags - {4}
    # In one frame.
    assert broker.consuming().acknowledged == [(3, True)]


def test_requests_are_acknowledged_in_any_order_and_each_once() -> None:
    broker = Broker()
    for number in range(6):
        broker.deliver(message_id=str(number))
    order = [3, 1, 0, 5, 2, 4]
    for published, number in enumerate(order, 1):
        broker.agent.deliveries[number].succeed()
        broker.confirm(number=published)
        assert broker.settled() == {done + 1 for done in order[:published]}
    channel = broker.consuming()
    assert channel.acknowledged == [(4, False), (2, False), (1, True), (6, False), (3, True), (5, True)]


def test_a_returned_outcome_is_told_from_others_that_are_confirmed_with_it() -> None:
    broker = Broker()
    for number, queue in enumerate(["there", "gone", "there"]):
        broker.deliver(message_id=str(number), reply_to=queue)
        broker.agent.deliveries[number].succeed()
    broker.publishing.return_(broker.publishing.published[1])
    broker.confirm(number=3, multiple=True)
    assert broker.settled() == {1, 3}
    assert broker.outcome.key == "mail.dead"


def test_a_returned_outcome_is_known_by_its_name_among_those_to_the_same_queue() -> None:
    broker = Broker()
    for number in range(2):
        broker.deliver(message_id=str(number), reply_to="gone-meanwhile")
        broker.agent.deliveries[number].succeed()
    second = broker.outcome
    broker.publishing.return_(second)
    broker.confirm(number=2, multiple=True)
    assert broker.outcome.key == "mail.dead"
    assert broker.outcome.body == second.body


def test_what_the_broker_refuses_is_published_again_later() -> None:
    broker = Broker()
    tag = broker.deliver()
    broker.agent.deliveries[0].succeed()
    with capturedLogs() as events:
        broker.confirm(refused=True)
    assert any("could not take an outcome" in event["log_format"] for event in events)
    assert broker.settled() == set()
    broker.clock.advance(1.0)
    assert len(broker.publishing.published) == 2
    broker.confirm()
    assert broker.settled() == {tag}


def test_a_closed_channel_for_outcomes_is_opened_again_and_takes_no_request_away() -> None:
    broker = Broker()
    tag = broker.deliver()
    broker.agent.deliveries[0].succeed()
    closed = broker.publishing
    with capturedLogs() as events:
        closed.close_by_broker(404, "NOT_FOUND - no exchange 'outcomes'")
    assert "404 NOT_FOUND - no exchange 'outcomes'; python -m" in events[-1]["reason"]
    assert broker.consuming().is_open
    broker.clock.advance(1.0)
    assert broker.publishing is not closed
    broker.confirm()
    assert broker.settled() == {tag}


def test_one_outcome_that_the_broker_closes_the_channel_for_holds_up_no_others() -> None:
    broker = Broker()
    tags = [
        broker.deliver(message_id=str(number), reply_to=queue)
        for number, queue in enumerate([None, "forbidden", None])
    ]
    for delivery in broker.agent.deliveries:
        delivery.succeed()
    refused = (403, "ACCESS_REFUSED - write access to exchange 'amq.default' refused")
    broker.publishing.close_by_broker(*refused)
    broker.clock.advance(1.0)
    # Which of them it was is not known, so they go one at a time.
    assert [published.key for published in broker.publishing.published] == ["ok"]
    broker.confirm()
    assert broker.outcome.key == "forbidden"
    broker.publishing.close_by_broker(*refused)
    broker.clock.advance(1.0)
    assert [published.key for published in broker.publishing.published] == ["ok"]
    # Nor may it be put aside: the log has it.
    with capturedLogs() as events:
        broker.confirm()
    assert "deliveryStatus" in events[-1]["body"]
    assert broker.settled() == set(tags)
    # The next costs no channel.
    tag = broker.deliver(message_id="3", reply_to="forbidden")
    broker.agent.deliveries[3].succeed()
    assert tag in broker.settled()
    broker.lose()
    broker.connect()
    broker.deliver(message_id="4", reply_to="allowed")
    broker.agent.deliveries[4].succeed()
    assert broker.outcome.key == "allowed"


def test_an_outcome_that_is_too_large_and_may_not_be_put_aside_is_the_log_s() -> None:
    broker = Broker()
    tag = broker.deliver()
    broker.agent.deliveries[0].succeed()
    with capturedLogs() as events:
        broker.publishing.close_by_broker(406, "PRECONDITION_FAILED - message size is larger")
        broker.clock.advance(1.0)
        assert broker.outcome.key == "mail.dead"
        broker.publishing.close_by_broker(403, "ACCESS_REFUSED - write access")
    assert "deliveryStatus" in events[-1]["body"]
    assert broker.settled() == {tag}


def test_outcomes_whose_exchange_has_gone_are_kept_behind_those_that_have_theirs() -> None:
    broker = Broker()
    tags = {broker.deliver(message_id="1"), broker.deliver(message_id="2", reply_to="there")}
    for delivery in broker.agent.deliveries:
        delivery.succeed()
    gone = (404, "NOT_FOUND - no exchange 'outcomes'")
    broker.publishing.close_by_broker(*gone)
    broker.clock.advance(1.0)
    assert broker.outcome.key == "ok"
    broker.publishing.close_by_broker(*gone)
    broker.clock.advance(2.0)
    assert broker.outcome.key == "there"
    broker.confirm()
    assert broker.settled() == tags - {1}
    # Now there are no others that could be meant.
    assert broker.outcome.key == "ok"
    broker.publishing.close_by_broker(*gone)
    broker.clock.advance(4.0)
    broker.confirm()
    assert broker.settled() == tags


def test_suspicion_does_not_outlast_the_connection() -> None:
    broker = Broker()
    for number in range(3):
        broker.deliver(message_id=str(number))
        broker.agent.deliveries[number].succeed()
    broker.publishing.close_by_broker(404, "NOT_FOUND")
    broker.clock.advance(1.0)
    broker.confirm()
    broker.lose()
    broker.connect()
    assert [published.key for published in broker.publishing.published] == ["ok"]
    broker.confirm()
    broker.deliver(message_id="3")
    broker.agent.deliveries[3].succeed()
    broker.confirm(number=2)
    assert broker.state("unconfirmed") == 1
    broker.confirm(number=3)
    assert broker.state("unconfirmed") == 0


def test_a_closed_channel_of_a_queue_is_opened_again_and_what_was_under_way_is_known() -> None:
    broker = Broker()
    broker.deliver()
    with capturedLogs() as events:
        broker.consuming().close_by_broker(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
    assert "timed out" in events[-1]["reason"]
    assert broker.state("consuming") == 0
    broker.clock.advance(1.0)
    assert broker.state("consuming") == 1
    tag = broker.deliver(redelivered=True)
    broker.agent.deliveries[0].succeed()
    broker.confirm()
    assert broker.settled() == {tag}
    assert len(broker.agent.deliveries) == 1


def test_a_queue_that_is_not_there_is_looked_for_more_and_more_rarely_and_others_go_on() -> None:
    broker = Broker("mail", "other")
    broker.lose()
    broker.queues = ("mail",)
    with capturedLogs() as events:
        broker.connect()
        broker.clock.advance(1.0)
        broker.clock.advance(1.0)
    told = [event for event in events if "no requests from" in event["log_format"]]
    assert [event["queue"] for event in told] == ["other", "other"]
    assert told[0]["delay"] < told[1]["delay"]
    assert "no queue 'other'" in told[0]["reason"]
    assert broker.state("consuming") == 1
    broker.connection.queues.add("other")
    broker.clock.advance(2.0)
    assert broker.state("consuming") == 2


def test_a_consumer_that_the_broker_cancels_consumes_again_on_the_same_channel() -> None:
    broker = Broker()
    tag = broker.deliver()
    channel = broker.consuming()
    channel.cancel_by_broker()
    assert broker.state("consuming") == 0
    broker.agent.deliveries[0].succeed()
    broker.confirm()
    assert broker.settled() == {tag}
    broker.clock.advance(1.0)
    assert channel.consuming == ["mail", "mail"]
    assert broker.state("consuming") == 1


def test_nothing_is_published_and_nothing_begun_while_the_broker_blocks() -> None:
    broker = Broker()
    broker.deliver(message_id="1")
    broker.connection.block()
    broker.agent.deliveries[0].succeed()
    broker.deliver(message_id="2")
    assert not broker.publishing.published
    assert len(broker.agent.deliveries) == 1
    assert (broker.state("blocked"), broker.state("waiting")) == (1, 1)
    broker.connection.unblock()
    assert len(broker.publishing.published) == 1
    assert len(broker.agent.deliveries) == 2


def test_a_connection_that_comes_back_is_not_blocked() -> None:
    broker = Broker()
    broker.connection.block()
    broker.lose()
    broker.connect()
    broker.deliver()
    broker.agent.deliveries[0].succeed()
    assert len(broker.publishing.published) == 1


def test_the_prefetch_bounds_what_is_under_way_over_connections() -> None:
    broker = Broker(prefetch=2)
    assert broker.consuming().prefetch == 2
    for number in range(2):
        broker.deliver(message_id=str(number))
    broker.lose()
    broker.connect()
    for number in range(2, 4):
        broker.deliver(message_id=str(number))
    assert len(broker.agent.deliveries) == 2
    assert broker.state("waiting") == 2
    broker.agent.deliveries[0].succeed()
    broker.confirm()
    assert len(broker.agent.deliveries) == 3
    broker.lose()
    assert broker.state("waiting") == 0


def test_a_queue_that_has_to_wait_holds_up_no_other() -> None:
    broker = Broker("mail", "other", prefetch=1)
    broker.deliver(message_id="1")
    broker.lose()
    broker.connect()
    broker.deliver(message_id="2")
    assert broker.state("waiting") == 1
    broker.consuming("other").deliver(line(), message_id="3")
    assert len(broker.agent.deliveries) == 2
    assert broker.state("waiting") == 1


def test_a_request_that_waits_goes_with_the_channel_by_which_it_came() -> None:
    broker = Broker(prefetch=1)
    broker.connection.block()
    broker.deliver(message_id=None)
    broker.consuming().close_by_broker(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
    broker.clock.advance(1.0)
    # As it comes again, it would be delivered twice.
    tag = broker.deliver(message_id=None, redelivered=True)
    broker.connection.unblock()
    (delivery,) = broker.agent.deliveries
    delivery.succeed()
    broker.confirm()
    assert broker.settled() == {tag}


def test_a_request_that_is_known_does_not_wait_for_room() -> None:
    broker = Broker(prefetch=1)
    broker.deliver()
    broker.lose()
    broker.connect()
    broker.deliver(redelivered=True)
    broker.agent.deliveries[0].succeed()
    broker.confirm()
    assert broker.gateway.under_way == 0
    assert broker.state("waiting") == 0
    assert broker.settled() == {1}


def test_requests_wait_while_memory_is_full() -> None:
    memory = Memory(1024 * 1024)
    broker = Broker(memory=memory)
    memory.take(1024 * 1024)
    broker.deliver()
    assert not broker.agent.deliveries
    memory.give_back(1024 * 1024)
    assert len(broker.agent.deliveries) == 1


def test_all_that_is_held_is_given_back() -> None:
    broker = Broker()
    for number in range(3):
        broker.deliver(message_id=str(number))
    assert broker.deliveries.memory.held > 3 * len(line())
    for number in range(3):
        broker.agent.deliveries[number].succeed()
        broker.confirm()
    finished = broker.gateway.finish()
    assert finished.called
    assert broker.deliveries.memory.held == 0


def test_waits_double_and_have_an_end() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(8)]
    assert 0.75 <= waits[0] <= 1.0
    assert all(later > earlier for earlier, later in pairwise(waits[:5]))
    assert max(waits) <= LONGEST
    backoff.reset()
    assert backoff.next() <= 1.0


@pytest.mark.parametrize("name", ["consumed", "acknowledged"])
def test_what_comes_and_goes_is_counted(name: str) -> None:
    broker = Broker()
    broker.deliver()
    broker.agent.deliveries[0].succeed()
    broker.confirm()
    assert broker.state(name) == 1


def test_thousands_that_wait_for_a_queue_that_is_forbidden_are_each_told_of() -> None:
    broker = Broker(prefetch=10_000)
    broker.agent.at_once = True
    broker.connection.block()
    broker.gateway._blocked = False
    count = 3000
    for number in range(count):
        broker.deliver(message_id=str(number), reply_to="forbidden")
    broker.connection.unblock()
    with capturedLogs() as events:
        for _ in range(4):
            if broker.publishing.published:
                broker.publishing.close_by_broker(403, "ACCESS_REFUSED - write access")
            broker.clock.advance(100.0)
    assert len([event for event in events if "deliveryStatus" in event.get("body", "")]) == count
    assert broker.gateway.under_way == 0
    assert len(broker.gateway.publisher) == 0
