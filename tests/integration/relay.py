"""
A line to the daemon that breaks: what a client with a bad network has.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .child import LOOPBACK


class Passed:
    """
    What went over one connection.

    :ivar requests: the keys of the requests that reached the daemon whole.
    :ivar replies: lines that reached the client whole.
    :ivar most: requests that were without a reply at a time.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.replies = 0
        self.most = 0


class Relay(Factory):
    """
    Passes on what a client and a daemon say to each other, until it breaks.

    :param cuts: for each connection in turn how many replies get through; it
        is cut in the middle of the next one.  Those behind them are left
        alone.
    :ivar connections: what went over each.
    """

    noisy = False

    def __init__(self, reactor: Any, port: int, cuts: list[int]) -> None:
        self.connections: list[Passed] = []
        self._reactor = reactor
        self._daemon = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        self._cuts = list(cuts)
        self._port: Any = None

    async def listen(self) -> int:
        """Its port."""
        self._port = await TCP4ServerEndpoint(self._reactor, 0, interface=LOOPBACK).listen(self)
        port: int = self._port.getHost().port
        return port

    def stop(self) -> Deferred[None]:
        stopped: Deferred[None] = self._port.stopListening()
        return stopped

    def buildProtocol(self, addr: object) -> Protocol:
        passed = Passed()
        self.connections.append(passed)
        return _Client(self._daemon, passed, self._cuts.pop(0) if self._cuts else None)


@implementer(IHalfCloseableProtocol)
class _Client(Protocol):
    """The client's side."""

    transport: Any

    def __init__(self, daemon: TCP4ClientEndpoint, passed: Passed, cut: int | None) -> None:
        self.daemon: Any = None
        self._endpoint = daemon
        self._passed = passed
        self._cut = cut
        self._buffer = b""

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        connected = connectProtocol(self._endpoint, _Daemon(self, self._passed, self._cut))
        connected.addCallbacks(self._connected, lambda _: self.transport.abortConnection())

    def _connected(self, daemon: _Daemon) -> None:
        # Each is read no faster than the other takes it: nothing is held here.
        self.daemon = daemon.transport
        self.daemon.registerProducer(self.transport, True)
        self.transport.registerProducer(self.daemon, True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        passed = self._passed
        passed.requests += [json.loads(line)["key"] for line in lines if b'"key"' in line]
        passed.most = max(passed.most, len(passed.requests) - passed.replies)
        self.daemon.write(data)

    def readConnectionLost(self) -> None:
        self.daemon.unregisterProducer()
        self.daemon.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """We have said all."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.daemon is not None:
            self.daemon.abortConnection()


class _Daemon(Protocol):
    """The daemon's side."""

    transport: Any

    def __init__(self, client: _Client, passed: Passed, cut: int | None) -> None:
        self._client = client
        self._passed = passed
        self._cut = cut
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            # What answers a token bears no id, and counts for none.
            if b'"id"' in line:
                if self._passed.replies == self._cut:
                    self._client.transport.write(line[: len(line) // 2])
                    self.transport.abortConnection()
                    return
                self._passed.replies += 1
            self._client.transport.write(line + b"\n")

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._client.transport.unregisterProducer()
        self._client.transport.loseConnection()
