from __future__ import annotations

import gc
import json
from collections.abc import Generator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.gateway.fakes import FakeAgent, line
from twisted_smtpclient.service import Daemon

LOOPBACK = "127.0.0.1"


@implementer(IListeningPort)
class FakePort:
    def __init__(self) -> None:
        self.stopped: Deferred[None] | None = None
        self.stops = 0

    def startListening(self) -> None:
        """It does."""

    def getHost(self) -> Any:
        return None

    def stopListening(self) -> Deferred[None]:
        self.stops += 1
        return self.stopped if self.stopped is not None else succeed(None)


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.port = FakePort()
        self.factories: list[IProtocolFactory] = []

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        if self.error is not None:
            return fail(self.error)
        self.factories.append(protocolFactory)
        return succeed(self.port)


def daemon(*endpoints: FakeEndpoint) -> tuple[Daemon, FakeAgent, Clock]:
    agent, clock = FakeAgent(), Clock()
    return Daemon(clock, agent, endpoints, drain_timeout=10), agent, clock


def test_it_listens_on_each_endpoint_once_started() -> None:
    endpoints = FakeEndpoint(), FakeEndpoint()
    service, _, _ = daemon(*endpoints)
    assert not endpoints[0].factories
    service.startService()
    assert [endpoint.factories for endpoint in endpoints] == [[service.clients]] * 2
    assert service.ports == [endpoint.port for endpoint in endpoints]


def test_it_listens_while_the_process_has_its_privileges_and_only_once() -> None:
    endpoint = FakeEndpoint()
    service, _, _ = daemon(endpoint)
    service.privilegedStartService()
    assert endpoint.factories == [service.clients]
    service.startService()
    assert len(endpoint.factories) == 1


def test_a_port_in_use_is_an_exception_and_the_others_are_given_back() -> None:
    good, taken = FakeEndpoint(), FakeEndpoint(CannotListenError(LOOPBACK, 7025, OSError("in use")))
    service, _, _ = daemon(good, taken)
    with pytest.raises(CannotListenError, match="7025"):
        service.privilegedStartService()
    assert good.port.stops == 1
    assert not service.ports


def test_stopping_stops_listening_then_drains_then_closes_the_agent() -> None:
    endpoint = FakeEndpoint()
    endpoint.port.stopped = Deferred()
    service, agent, clock = daemon(endpoint)
    service.startService()
    client = service.clients.buildProtocol(None)
    transport = StringTransport()
    Protocol.makeConnection(client, transport)
    client.dataReceived(line(id=1) + b"\n")
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    assert endpoint.port.stops == 1
    assert "draining" not in repr(service.deliveries)
    endpoint.port.stopped.callback(None)
    assert "draining" in repr(service.deliveries)
    assert agent.closed == 0
    clock.advance(9.9)
    assert not transport.value()
    clock.advance(0.2)
    clock.advance(0)
    assert json.loads(transport.value())["error"] == "ShuttingDown"
    assert transport.disconnecting
    assert agent.closed == 0
    client.connectionLost()
    assert agent.closed == 1
    assert stopped == [None]
    assert not clock.getDelayedCalls()


def test_a_port_that_does_not_close_does_not_keep_it_from_draining(logged_failures: Any) -> None:
    endpoint = FakeEndpoint()
    endpoint.port.stopped = fail(ValueError("stuck"))
    service, agent, _ = daemon(endpoint)
    service.startService()
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert agent.closed == 1
    assert len(logged_failures.flush()) == 1


def test_a_daemon_that_never_started_stops() -> None:
    service, agent, _ = daemon(FakeEndpoint())
    stopped: list[None] = []
    service.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert agent.closed == 1


# Over real sockets: half-close and port conflicts are the kernel's affair.


class Collect(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost.callback(self.received)


def real_daemon(endpoint: Any) -> tuple[Daemon, FakeAgent]:
    agent = FakeAgent()
    agent.at_once = True
    return Daemon(reactor, agent, [endpoint], max_in_flight=3, drain_timeout=5), agent


def say(client: Collect, octets: bytes) -> Deferred[bytes]:
    transport: Any = client.transport
    transport.write(octets)
    transport.loseWriteConnection()
    return client.lost


@pytest_twisted.inlineCallbacks
def test_many_requests_and_a_half_close_over_tcp() -> Generator[Deferred[Any], Any, None]:
    service, agent = real_daemon(TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK))
    service.startService()
    port = service.ports[0].getHost().port  # type: ignore[attr-defined]
    client = yield connectProtocol(TCP4ClientEndpoint(reactor, LOOPBACK, port), Collect())
    lines = [line(id=n) for n in range(500)]
    received = yield say(client, b"\n".join(lines))
    assert [json.loads(each)["id"] for each in received.splitlines()] == list(range(500))
    yield service.stopService()
    assert agent.closed == 1


@pytest_twisted.inlineCallbacks
def test_a_large_request_over_a_unix_socket(tmp_path: Any) -> Generator[Deferred[Any], Any, None]:
    path = str(tmp_path / "s")
    service, agent = real_daemon(UNIXServerEndpoint(reactor, path))
    service.startService()
    client = yield connectProtocol(UNIXClientEndpoint(reactor, path), Collect())
    received = yield say(client, line(id=1, message="U3Vi" * 1_000_000))
    assert json.loads(received)["status"] == "ok"
    assert len(agent.deliveries[0].content.message) == 3_000_000
    yield service.stopService()


# Old Twisted (24.3 does) leaves the socket that could not be bound to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest_twisted.inlineCallbacks
def test_a_real_port_in_use_is_an_exception() -> Generator[Deferred[Any], Any, None]:
    service, _ = real_daemon(TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK))
    service.startService()
    port = service.ports[0].getHost().port  # type: ignore[attr-defined]
    second, _ = real_daemon(TCP4ServerEndpoint(reactor, port, interface=LOOPBACK))
    with pytest.raises(CannotListenError, match="in use"):
        second.startService()
    gc.collect()
    yield service.stopService()
