"""
Twisted's own TCP transport on a network in memory, with a socket that takes
what a test lets it take.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from tests.client.memory import Address, End, Network, Outcome
from tests.client.sessions import terms
from twisted_smtpclient import Content, DeliveryResult, Envelope, PipeliningESMTPClient
from twisted_smtpclient.client.departure import Departure
from twisted_smtpclient.testing import Sink

HERE = IPv4Address("TCP", "192.0.2.7", 49152)
THERE = IPv4Address("TCP", "192.0.2.1", 25)

#: What a socket takes: so many octets at the most, or this is what comes of it.
Taking = int | Exception | type[Exception]


class _Handle:
    """What a transport does with a socket beside writing and reading."""

    def setblocking(self, flag: bool) -> None: ...

    def setsockopt(self, *option: object) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...

    def fileno(self) -> int:
        return -1


class Link(Connection):
    """
    The client's end of a connection, in place of an :class:`~.memory.End`.

    :ivar takes: what becomes of the next writes to the socket: an exception is
        returned, a class of them is raised; behind these it takes all.
    :ivar tried: what the socket was given each time, taken or not.
    :ivar arrived: what it took.
    """

    def __init__(self, reactor: Any, protocol: Any = None) -> None:
        super().__init__(cast("socket.socket", _Handle()), protocol, reactor)
        self.connected = 1
        self.reading = True
        self.takes: list[Taking] = []
        self.tried: list[bytes] = []
        self.arrived = bytearray()
        self.other: Any = None
        self._delivered = 0

    def writeSomeData(self, data: Any) -> Any:
        octets = bytes(data)[: self.SEND_LIMIT]
        self.tried.append(octets)
        taken = self.takes.pop(0) if self.takes else len(octets)
        if isinstance(taken, type):
            raise taken
        if isinstance(taken, Exception):
            return taken
        self.arrived += octets[:taken]
        return min(taken, len(octets))

    def getHost(self) -> Address:
        return HERE

    def getPeer(self) -> Address:
        return THERE

    @property
    def waiting(self) -> int:
        """Octets that the transport has and the socket has not."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    # What the network calls.

    def made(self) -> None:
        self.protocol.makeConnection(self)

    def take(self, octets: bytes) -> None:
        if self.connected:
            self.protocol.dataReceived(octets)

    def cut(self, reason: Failure) -> None:
        if self.connected:
            self.connectionLost(reason)

    def move(self) -> bool:
        """What a reactor does when a socket can be written to, and the cable behind it."""
        transport: Any = self
        moved = self in transport.reactor.writers
        if moved and (why := transport.doWrite()) is not None:
            self.connectionLost(Failure(why))
        octets = bytes(self.arrived[self._delivered :])
        if octets:
            self._delivered += len(octets)
            self.other.take(octets)
        if not self.connected:
            self.other.cut(Failure(ConnectionLost()))
        return moved or bool(octets)


class Kernel(Network):
    """A network that knows which transports wait for their sockets."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Any) -> None: ...

    def removeReader(self, reader: Any) -> None: ...

    def connect(self, client: Any, server: Any, link: type[Link] = Link) -> Link:
        """Connect two protocols, the client by a transport of Twisted's."""
        here, there = link(self, client), End(THERE, HERE, client=False)
        here.other, there.other = there, cast("End", here)
        there.protocol = server
        self.ends.append(there.other)
        there.made()
        here.made()
        return here


class Linked:
    """
    Sessions of one departure with a sink, each on a link.

    :ivar clients: the sessions, ready.
    :ivar links: their transports.
    """

    def __init__(self, count: int = 1, *, link: type[Link] = Link, depth: int = 50, **sink: Any) -> None:
        self.kernel = Kernel()
        self.sink = Sink(self.kernel, size=None, **sink)
        departure = Departure(self.kernel)
        self.clients = [
            PipeliningESMTPClient(server=terms(), reactor=self.kernel, departure=departure, depth=depth)
            for _ in range(count)
        ]
        self.links = [
            self.kernel.connect(client, self.sink.buildProtocol(None), link) for client in self.clients
        ]
        self.kernel.settle()
        #: what the handshakes wrote is not looked at
        self.before = [len(each.arrived) for each in self.links]
        for each in self.links:
            each.tried.clear()

    def post(self, message: bytes, at: int = 0) -> Outcome[DeliveryResult]:
        """Give a session one mail."""
        mail = Envelope("me@example.org", ["a@example.net"])
        return Outcome(self.clients[at].deliver(mail, Content(message)))

    def arrived(self, at: int = 0) -> bytes:
        """What has reached a socket since the handshake."""
        return bytes(self.links[at].arrived[self.before[at] :])


#: What a socket tells of a connection that is no more, and what a protocol is told.
LOST = CONNECTION_LOST
LOST_FOR_GOOD = Failure(ConnectionLost())
