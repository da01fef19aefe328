"""
What has come by the time that all have written is read at once.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from twisted_smtpclient import Content, DeliveryAgent, Envelope, Mode, Server, TLSMode
from twisted_smtpclient.client.arrival import MOST, Arrivals
from twisted_smtpclient.client.departure import Departure
from twisted_smtpclient.testing import Sink

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")


OVER = Failure(ConnectionDone())


class Heard(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.octets = b""
        self.reason: Any = None
        self.then: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.octets += data
        self.then()

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason


class Readers(Clock):
    """A reactor that knows who is read from, and reads from nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None: ...

    def removeWriter(self, writer: Any) -> None: ...


class Pair:
    """A transport of Twisted's, and the other end of its socket."""

    def __init__(self, reactor: Any) -> None:
        ours, self.other = socket.socketpair()
        self.heard: Any = Heard()
        self.transport: Any = Connection(ours, self.heard, reactor)
        self.transport.connected = 1
        self.transport.startReading()
        self.heard.transport = self.transport


class Some:
    """Some of them, all watched."""

    def __init__(self, arrivals: Arrivals, count: int, reactor: Readers | None = None) -> None:
        self.reactor = reactor or Readers()
        self.arrivals = arrivals
        self.pairs = [Pair(self.reactor) for _ in range(count)]
        for pair in self.pairs:
            arrivals.watch(pair.transport)

    @property
    def heard(self) -> list[bytes]:
        return [pair.heard.octets for pair in self.pairs]

    def close(self) -> None:
        for pair in self.pairs:
            self.arrivals.forget(pair.transport)
            pair.other.close()
            if pair.transport.connected:
                pair.transport.connectionLost(OVER)


@pytest.fixture
def some() -> Iterator[Callable[..., Some]]:
    made: list[Some] = []

    def make(count: int = 3, **given: Any) -> Some:
        made.append(Some(given.pop("arrivals", None) or Arrivals(), count, **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_has_come_is_read_and_nobody_waits_for_the_rest(some: Any) -> None:
    here = some()
    here.pairs[0].other.send(b"250 one\r\n")
    here.pairs[2].other.send(b"250 three\r\n")
    assert here.arrivals.read(9) == 2
    assert here.heard == [b"250 one\r\n", b"", b"250 three\r\n"]
    assert here.arrivals.read(9) == 0


def test_no_more_are_read_than_may_be(some: Any) -> None:
    here = some(5)
    for pair in here.pairs:
        pair.other.send(b"250\r\n")
    assert [here.arrivals.read(2) for _ in range(4)] == [2, 2, 1, 0]
    assert here.heard == [b"250\r\n"] * 5


def test_one_that_ends_for_what_another_was_told_is_not_read(some: Any) -> None:
    here = some()
    for pair in here.pairs:
        pair.other.send(b"250\r\n")

    def end_the_others(at: int) -> None:
        for pair in here.pairs[:at] + here.pairs[at + 1 :]:
            here.arrivals.forget(pair.transport)

    for at, pair in enumerate(here.pairs):
        pair.heard.then = lambda at=at: end_the_others(at)
    assert here.arrivals.read(9) == 1
    assert sorted(here.heard) == [b"", b"", b"250\r\n"]


def test_a_connection_that_the_server_closed_is_lost_as_ever(some: Any) -> None:
    here = some()
    here.pairs[1].other.send(b"421 bye\r\n")
    here.pairs[1].other.shutdown(socket.SHUT_WR)
    assert [here.arrivals.read(9) for _ in range(2)] == [1, 1]
    lost = here.pairs[1]
    assert (lost.heard.octets, lost.heard.reason.type) == (b"421 bye\r\n", ConnectionDone)
    assert lost.transport not in here.reactor.readers
    here.arrivals.forget(lost.transport)
    assert here.arrivals.read(9) == 0
    assert len(here.reactor.readers) == 2


def test_a_socket_that_fails_is_left_to_the_reactor(some: Any) -> None:
    here = some()
    # Both directions at an end: no longer just something to read.
    here.pairs[1].other.close()
    assert here.arrivals.read(9) == 0
    assert here.pairs[1].heard.reason is None
    assert here.pairs[1].transport in here.reactor.readers


def test_a_fault_with_what_was_read_ends_that_connection_alone(some: Any, logged_failures: Any) -> None:
    here = some()

    def fail() -> None:
        raise ZeroDivisionError

    here.pairs[1].heard.then = fail
    for pair in here.pairs:
        pair.other.send(b"250\r\n")
    assert here.arrivals.read(9) == 3
    assert here.heard == [b"250\r\n"] * 3
    assert [pair.heard.reason is None for pair in here.pairs] == [True, False, True]
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_loss_that_cannot_be_told_keeps_nobody_else_waiting(some: Any, logged_failures: Any) -> None:
    here = some()

    def fail(reason: Any) -> None:
        raise ZeroDivisionError

    here.pairs[1].heard.connectionLost = fail
    here.pairs[1].other.shutdown(socket.SHUT_WR)
    here.pairs[0].other.send(b"250\r\n")
    here.pairs[2].other.send(b"250\r\n")
    assert here.arrivals.read(9) == 3
    assert here.heard == [b"250\r\n", b"", b"250\r\n"]
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize("end", [socket.SHUT_WR, None])
def test_a_loss_has_the_words_that_the_reactor_gives_it(some: Any, end: int | None) -> None:
    here = some(1)
    pair = here.pairs[0]
    if end is None:
        pair.transport.doRead = lambda: CONNECTION_LOST
        pair.other.send(b"x")
    else:
        pair.other.shutdown(end)
    assert here.arrivals.read(9) == 1
    expected = ConnectionLost() if end is None else ConnectionDone()
    assert str(pair.heard.reason.value) == str(expected)
    assert pair.heard.reason.type is type(expected)


def test_where_nothing_more_can_be_opened_the_reactor_reads_as_ever(
    some: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(select, "epoll", full)
    here = some(1)
    here.pairs[0].other.send(b"250\r\n")
    assert (here.arrivals.read(9), repr(here.arrivals)) == (0, "<Arrivals on 0 sockets>")
    assert here.pairs[0].transport in here.reactor.readers


def test_a_session_alone_has_nobody_to_look_at() -> None:
    departure = Departure(Readers(), alone=True)
    pair = Pair(Readers())
    departure.watch(pair.transport)
    assert repr(departure.arrivals) == "<Arrivals on 0 sockets>"
    pair.other.close()
    pair.transport.connectionLost(OVER)


def test_nothing_is_open_where_nobody_is_watched(some: Any) -> None:
    before = descriptors()
    here = some()
    assert descriptors() == before + 7
    assert repr(here.arrivals) == "<Arrivals on 3 sockets>"
    here.close()
    assert descriptors() == before
    assert here.arrivals.read(9) == 0
    # Also of one that was closed before it is forgotten, and of one never watched.
    again = some(1, arrivals=here.arrivals)
    again.pairs[0].transport.connectionLost(OVER)
    again.close()
    again.arrivals.forget(again.pairs[0].transport)
    assert descriptors() == before


def test_a_transport_without_a_socket_is_not_watched() -> None:
    arrivals = Arrivals()

    class Closed:
        def fileno(self) -> int:
            return -1

    arrivals.watch(Closed())
    assert (repr(arrivals), arrivals.read(9)) == ("<Arrivals on 0 sockets>", 0)


class Answering:
    """Leaves by a departure, and once more whenever it has been answered."""

    def __init__(self, departure: Departure, pair: Pair) -> None:
        self.departure, self.pair = departure, pair
        self.departed = 0
        pair.heard.then = lambda: departure.add(self)

    def depart(self) -> None:
        self.departed += 1
        self.pair.other.send(b"250\r\n")

    def take_turn(self) -> None:
        raise AssertionError("it has called none")


def test_who_is_answered_at_once_does_not_keep_the_reactor_waiting(some: Any) -> None:
    reactor = Readers()
    departure = Departure(reactor)
    here = some(3, arrivals=departure.arrivals, reactor=reactor)
    answering = [Answering(departure, pair) for pair in here.pairs]
    for each in answering:
        departure.add(each)
    call: Any
    (call,) = reactor.getDelayedCalls()
    call.func()
    # Three for having been added, and one for each answer.
    assert sum(each.departed for each in answering) in range(MOST, MOST + 4)
    assert max(each.departed for each in answering) - min(each.departed for each in answering) <= 1
    # What is left leaves in the next turn.
    assert len(reactor.getDelayedCalls()) == 2


@pytest.mark.parametrize("chunking", [Mode.NO, Mode.TRY])
@pytest_twisted.ensureDeferred
async def test_sessions_that_wait_with_each_mail_are_watched_until_they_end(chunking: Mode) -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen("tcp:0:interface=127.0.0.1")
    agent = DeliveryAgent(reactor, connections_per_host=2)
    arrivals = agent._opener._departure.arrivals
    server = Server(host="127.0.0.1", port=sink.port, tls=TLSMode.NO, chunking=chunking)
    mail = Envelope("me@example.org", ["a@example.net"])
    waiting = [agent.deliver(server, mail, Content(b"%d\r\n" % number)) for number in range(50)]
    for each in waiting:
        assert (await each).all_ok
    watched = repr(arrivals)
    await agent.close()
    await sink.stop()
    assert watched == f"<Arrivals on {2 if chunking is Mode.NO else 0} sockets>"
    assert repr(arrivals) == "<Arrivals on 0 sockets>"
    assert len(sink.mails) == 50
