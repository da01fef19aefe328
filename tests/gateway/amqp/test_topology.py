"""What is declared for a queue."""

from __future__ import annotations

from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.defer import Deferred, fail, succeed

from twisted_smtpclient.gateway.amqp.outcome import Outcome
from twisted_smtpclient.gateway.amqp.topology import (
    Binding,
    Declaration,
    Exchange,
    Queue,
    declare,
    topology,
)


class Channel:
    """A TwistedChannel that takes all, but for one name."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.calls: list[tuple[Any, ...]] = []

    def _call(self, *call: Any) -> Deferred[None]:
        self.calls.append(call)
        return fail(ChannelClosedByBroker(406, "no")) if call[1] == self.refused else succeed(None)

    def exchange_declare(self, name: str, kind: str, durable: bool) -> Deferred[None]:
        return self._call(kind, name, durable)

    def queue_declare(self, name: str, durable: bool, arguments: dict[str, Any]) -> Deferred[None]:
        return self._call("queue", name, durable, arguments)

    def queue_bind(self, queue: str, exchange: str, key: str) -> Deferred[None]:
        return self._call("bind", queue, exchange, key)


def queues(declared: list[Declaration]) -> dict[str, dict[str, Any]]:
    return {each.name: each.arguments for each in declared if isinstance(each, Queue)}


def test_a_delay_is_a_queue_whose_messages_expire_to_the_queue_of_requests() -> None:
    declared = topology(["mail"], [60, 300])
    delay = queues(declared)["mail.retry.60"]
    assert delay["x-message-ttl"] == 60_000
    assert (delay["x-dead-letter-exchange"], delay["x-dead-letter-routing-key"]) == (
        "smtpclient.return",
        "mail",
    )
    assert Binding("mail.retry.60", "smtpclient.retry", "mail.60") in declared
    assert Binding("mail", "smtpclient.return", "mail") in declared


def test_each_queue_is_a_quorum_queue_and_loses_nothing_on_its_way_to_the_next() -> None:
    declared = queues(topology(["mail"], [60], replies="r", outcome_queues=[("all", list(Outcome))]))
    assert {arguments["x-queue-type"] for arguments in declared.values()} == {"quorum"}
    for name in ("mail", "mail.retry.60"):
        assert declared[name]["x-dead-letter-strategy"] == "at-least-once"
        assert declared[name]["x-overflow"] == "reject-publish"


def test_a_request_that_ends_whoever_gets_it_is_put_aside_at_last() -> None:
    declared = topology(["mail"], [60])
    assert queues(declared)["mail"]["x-delivery-limit"] == 100
    assert queues(declared)["mail"]["x-dead-letter-exchange"] == "smtpclient.dead"
    assert Binding("mail.dead", "smtpclient.dead", "mail") in declared


def test_outcomes_are_bound_by_their_words() -> None:
    declared = topology(
        ["mail"], [60], replies="r", outcome_queues=[("bad", [Outcome.PERMANENT, Outcome.INVALID])]
    )
    assert Exchange("r") in declared
    assert [each.key for each in declared if isinstance(each, Binding) and each.exchange == "r"] == [
        "permanent",
        "invalid",
    ]


def test_all_is_durable_and_declared_behind_what_it_needs() -> None:
    channel = Channel()
    told: list[Declaration] = []
    declarations = topology(["mail", "more"], [60], replies="r", outcome_queues=[("all", [Outcome.OK])])
    declaring = declare(channel, declarations, told.append)
    assert declaring.called
    assert told == declarations
    assert all(call[2] is True for call in channel.calls if call[0] != "bind")
    there: set[str] = set()
    for kind, name, *rest in channel.calls:
        assert kind != "bind" or {name, rest[0]} <= there
        there.add(name)


def test_what_is_refused_ends_it() -> None:
    channel = Channel(refused="mail")
    told: list[Declaration] = []
    declaring = declare(channel, topology(["mail"], [60]), told.append)
    failures: list[Any] = []
    declaring.addErrback(failures.append)
    assert failures[0].check(ChannelClosedByBroker)
    assert channel.calls[-1][1] == "mail"
    assert Queue not in map(type, [each for each in told if getattr(each, "name", "") == "mail"])


@pytest.mark.parametrize("delays", [[60, 60]])
def test_a_delay_is_declared_once(delays: list[int]) -> None:
    assert len(queues(topology(["mail"], delays))) == 3
