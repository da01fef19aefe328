"""Memory stays bounded whatever clients send, and nobody waits for ever."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.gateway.fakes import Client, Daemon, line
from twisted_smtpclient.gateway.holding import CLIENT, STALL
from twisted_smtpclient.gateway.jsonlines import MAX_BITE, MIN_BITE
from twisted_smtpclient.gateway.memory import Memory

MIB = 1024 * 1024


def bounded(limit: int = MIB, **settings: Any) -> tuple[Daemon, Memory]:
    memory = Memory(limit)
    return Daemon(memory=memory, **settings), memory


def of(octets: int, **changed: Any) -> bytes:
    return line(message=base64.b64encode(b"x" * octets).decode(), **changed)


def test_a_daemon_at_rest_holds_what_its_clients_take_up_by_being_there() -> None:
    daemon, memory = bounded()
    clients = [daemon.client() for _ in range(3)]
    assert memory.held == 3 * CLIENT
    for client in clients:
        client.send(of(1000, id=1))
    assert memory.held > 3 * (CLIENT + 1000)
    for delivery in daemon.agent.deliveries:
        delivery.succeed()
    assert all(client.reply() for client in clients)
    assert memory.held == 3 * CLIENT
    for client in clients:
        client.go_away()
    assert memory.held == 0


@pytest.mark.parametrize(
    ("changed", "octets"),
    [
        ({"id": "x" * 10_000}, 10_000),
        ({"id": "\U0001f600" * 10_000}, 40_000),
        ({"id": 1, "transcript": True}, 65536),
    ],
)
@pytest.mark.parametrize("probe", [True, False])
def test_an_id_and_a_transcript_that_are_kept_are_counted(
    changed: dict[str, Any], octets: int, probe: bool
) -> None:
    daemon, memory = bounded()
    client = daemon.client()
    client.send(json.dumps({"probe": True, "host": "a.b", **changed}).encode() if probe else of(1, **changed))
    assert daemon.deliveries.under_way == 1
    assert CLIENT + octets < memory.held < CLIENT + octets + 6000


def test_the_recipients_of_one_line_are_an_eighth_of_the_memory_at_the_most() -> None:
    daemon, memory = bounded()
    client = daemon.client()
    client.send(line(id=1, recipients=["a@b.de"] * 40_000))
    assert client.reply()["error"] == "RequestTooLarge"
    client.send(line(id=2, recipients=["a@b.de"] * 240))
    assert memory.held < MIB // 8 + CLIENT + 6000
    daemon.agent.deliveries[0].succeed()
    assert client.reply()["id"] == 2


def test_where_memory_is_used_up_nobody_is_read_from_until_a_delivery_ends() -> None:
    daemon, memory = bounded()
    one, other = daemon.client(), daemon.client()
    sent = 0
    while one.reading():
        one.send(of(100_000, id=sent))
        sent += 1
    assert memory.held < MIB + 200_000
    other.send(of(10, id="x"))
    assert not other.reading()
    under_way = len(daemon.agent.deliveries)
    assert under_way <= sent
    for delivery in list(daemon.agent.deliveries):
        delivery.succeed()
    assert len(one.replies()) == under_way
    other.replies()
    assert one.reading()
    assert other.reading()
    assert len(daemon.agent.deliveries) == sent + 1


def test_lines_that_were_read_already_wait_for_room_and_none_is_lost() -> None:
    daemon, memory = bounded()
    client = daemon.client()
    client.send(*(of(50_000, id=number) for number in range(60)))
    assert len(daemon.agent.deliveries) < 25
    answered = 0
    while answered < 60:
        for delivery in daemon.agent.deliveries[answered:]:
            delivery.succeed()
        replies = client.replies()
        assert replies
        answered += len(replies)
    assert len(daemon.agent.deliveries) == 60
    assert memory.held == CLIENT


def test_of_lines_that_cannot_all_be_finished_the_longest_is_given_up() -> None:
    daemon, memory = bounded()
    long, short = daemon.client(), daemon.client()
    long.send_octets(b'{"id":"long","message":"' + b"A" * 400_000)
    short.send_octets(b'{"id":"short","message":"' + b"A" * 200_000)
    reply = long.reply()
    assert reply["id"] == "long"
    assert reply["error"] == "QueueFull"
    assert reply["temporary"] is True
    assert not short.replies()
    assert memory.held < MIB // 2
    # The rest of the line is nobody's, and the connection goes on.
    long.send_octets(b"A" * 100_000 + b'"}\n' + line(id=2) + b"\n")
    (delivery,) = daemon.agent.deliveries
    delivery.succeed()
    assert long.reply()["id"] == 2
    short.send_octets(b'"}\n')
    assert short.reply()["id"] == "short"


def test_a_line_given_up_without_an_id_takes_its_turn() -> None:
    daemon, _ = bounded()
    client = daemon.client()
    client.send(line())
    client.send_octets(b'{"message":"' + b"A" * 600_000)
    assert not client.replies()
    daemon.agent.deliveries[0].succeed()
    assert [reply.get("error") for reply in client.replies()] == [None, "RequestTooLarge"]


def test_no_line_may_take_more_than_half_of_the_memory() -> None:
    daemon, _ = bounded(max_request=64 * MIB)
    client = daemon.client()
    client.send(b"A" * (MIB // 2 + 1))
    reply = client.reply()
    assert reply["error"] == "RequestTooLarge"
    assert str(MIB // 2) in reply["message"]


def test_thousands_of_clients_with_the_start_of_a_line_stay_within_the_bound() -> None:
    daemon, memory = bounded(16 * MIB)
    for _ in range(500):
        daemon.client().send_octets(b"{" + b"A" * 60_000)
        assert memory.in_pieces <= 8 * MIB
        assert memory.held <= 16 * MIB


def test_a_client_that_does_not_read_is_dropped_where_that_fills_the_memory() -> None:
    daemon, memory = bounded()
    deaf, other = daemon.client(), daemon.client()
    daemon.agent.at_once = True
    deaf.protocol.pauseProducing()
    deaf.send(*(line(id=number) for number in range(5)))
    daemon.clock.advance(STALL + 1)
    assert not deaf.aborted()
    memory.take(MIB)
    daemon.clock.advance(STALL + 1)
    assert deaf.aborted()
    assert not other.aborted()


def test_one_that_reads_again_is_not_dropped() -> None:
    daemon, memory = bounded()
    client = daemon.client()
    memory.take(MIB)
    client.protocol.pauseProducing()
    daemon.clock.advance(STALL - 1)
    client.protocol.resumeProducing()
    daemon.clock.advance(STALL)
    assert not client.aborted()


def test_what_a_client_has_not_read_is_counted() -> None:
    daemon, memory = bounded()
    client = daemon.client()
    daemon.agent.at_once = True
    client.send(line(id=1))

    class Full:
        def __init__(self, transport: Any) -> None:
            self._transport = transport

        def write(self, octets: bytes) -> None:
            self._transport.write(octets)
            client.protocol.pauseProducing()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

    client.protocol.transport = Full(client.transport)
    daemon.clock.advance(0)
    assert memory.held > CLIENT + 100
    client.protocol.resumeProducing()
    daemon.clock.advance(0)
    assert memory.held == CLIENT


def test_replies_that_wait_for_their_turn_are_counted() -> None:
    daemon, memory = bounded()
    client = daemon.client()
    client.send(line(), line())
    first, second = daemon.agent.deliveries
    second.succeed()
    daemon.clock.advance(0)
    held = memory.held
    first.succeed()
    assert len(client.replies()) == 2
    assert memory.held == CLIENT
    assert held > CLIENT + 4096


@pytest.mark.parametrize(("clients", "bite"), [(1, MAX_BITE), (40, 8192), (3000, MIN_BITE)])
def test_the_more_clients_there_are_the_less_is_read_from_each_at_a_time(clients: int, bite: int) -> None:
    daemon, _ = bounded(4 * MIB, max_clients=10_000)
    all_of_them: list[Client] = [daemon.client() for _ in range(clients)]
    assert {client.transport.bufferSize for client in all_of_them} == {daemon.factory.bite}
    assert daemon.factory.bite <= max(bite, MIN_BITE)
    for client in all_of_them:
        client.go_away()
    daemon.client()
    assert daemon.factory.bite == MAX_BITE
