"""
A network in memory: a Clock that connects clients to sinks, octet for octet.

Twisted's own in-memory transports have no back-pressure, no half-close, no
abort and no TLS; the ends of a session are made of these.  TLS is the real
one, over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    UserError,
)
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport, ITLSTransport
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

T = TypeVar("T")

Address = IPv4Address | IPv6Address | UNIXAddress

#: Octets at which a Twisted transport asks its producer to pause.
FULL = 65536


class _Raw:
    """What TLS writes to: an end, below its TLS."""

    def __init__(self, end: End) -> None:
        self.write = end.write_raw
        self.loseConnection = end.lose
        self.abortConnection = end.abort
        self.registerProducer = end.register
        self.unregisterProducer = end.unregister
        self.getHost = end.getHost
        self.getPeer = end.getPeer


# Of a transport's many methods those that are called here.
@implementer(ITCPTransport, ITLSTransport, IPushProducer)
class End:  # type: ignore[misc]  # the rest of the interfaces is nobody's business here
    """
    One end of a connection.

    :ivar outgoing: octets that the other end has not taken yet.
    :ivar peak: the most that ever were.
    :ivar writes: how often something was written.
    """

    _log = Logger()

    def __init__(self, host: Address, peer: Address, *, client: bool) -> None:
        self.protocol: Any = None
        self.other: End
        self.outgoing = bytearray()
        self.sent = bytearray()
        self.peak = 0
        self.writes: list[bytes] = []
        self.no_delay = False
        self.reading = True
        self.connected = True
        self.tls_begun = 0
        self._host = host
        self._peer = peer
        self._client = client
        self._losing = False
        self._aborting = False
        self._finished = False
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._tls: Any = None

    # What protocols call.

    def fileno(self) -> int:
        """Of a socket; there is none."""
        return -1

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.writes.append(data)
        (self._tls.write if self._tls is not None else self.write_raw)(data)

    def loseConnection(self) -> None:
        (self._tls.loseConnection if self._tls is not None else self.lose)()

    def abortConnection(self) -> None:
        (self._tls.abortConnection if self._tls is not None else self.abort)()

    def loseWriteConnection(self) -> None:
        self._finished = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        (self._tls.registerProducer if self._tls is not None else self.register)(producer, streaming)

    def unregisterProducer(self) -> None:
        (self._tls.unregisterProducer if self._tls is not None else self.unregister)()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.lose()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = bool(enabled)

    def getHost(self) -> Any:
        return self._host

    def getPeer(self) -> Any:
        return self._peer

    def getHandle(self) -> Any:
        return self._tls.getHandle()

    def startTLS(self, context: Any, normal: bool = True) -> None:
        self.tls_begun += 1
        factory = TLSMemoryBIOFactory(context, self._client, None)  # type: ignore[arg-type]  # as Twisted's startTLS has it
        if self._producer is not None:
            self.unregister()
        self._tls = TLSMemoryBIOProtocol(factory, self.protocol, False)
        self.protocol = self._tls
        alsoProvides(self, ISSLTransport)
        self._tls.makeConnection(_Raw(self))

    # Below TLS.

    def write_raw(self, data: bytes) -> None:
        if not self.connected or self._losing:
            return
        self.outgoing += data
        self.sent += data
        self.peak = max(self.peak, len(self.outgoing))
        if self._producer is not None and self._streaming and len(self.outgoing) > FULL:
            self._producer_paused = True
            self._producer.pauseProducing()

    def lose(self) -> None:
        self._losing = True

    def abort(self) -> None:
        # As of a reactor's: it is done at once, and told in the next turn.
        self.outgoing.clear()
        self._aborting = self._losing = True

    def register(self, producer: Any, streaming: bool) -> None:
        assert self._producer is None
        self._producer, self._streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregister(self) -> None:
        self._producer = None

    # What the network calls.

    def made(self) -> None:
        self._guard(lambda: self.protocol.makeConnection(self))

    def cut(self, reason: Failure) -> None:
        if self.connected:
            self.outgoing.clear()
            self._end(reason)

    def move(self) -> bool:
        """Take one step; False where there is none to take."""
        if not self.connected:
            return False
        if self._aborting:
            self._end(Failure(ConnectionAborted()))
            self.other.cut(Failure(ConnectionLost()))
            return True
        if self.outgoing and self.other.reading:
            octets = bytes(self.outgoing[:FULL])
            del self.outgoing[:FULL]
            self.other.take(octets)
            self._refill()
            return True
        if self.outgoing or not self.other.reading:
            return False
        if self._losing and self._producer is None:
            self._end(Failure(ConnectionDone()))
            self.other.cut(Failure(ConnectionDone()))
            return True
        if self._finished and self.other.connected:
            # Nobody here listens to half a connection.
            self.other.cut(Failure(ConnectionDone()))
            self._end(Failure(ConnectionDone()))
            return True
        return False

    def take(self, octets: bytes) -> None:
        if self.connected and not self._aborting:
            self._guard(lambda: self.protocol.dataReceived(octets))

    def _refill(self) -> None:
        wanted = self._producer is not None and (self._producer_paused or not self._streaming)
        if self.connected and not self.outgoing and wanted:
            self._producer_paused = False
            self._guard(self._producer.resumeProducing)

    def _guard(self, call: Callable[[], object]) -> None:
        """A reactor logs what a protocol raises, and drops the connection."""
        try:
            call()
        except Exception:
            failure = Failure()
            if not _is_known_of_twisted(failure):
                self._log.failure("a protocol raised", failure)
            self._end(failure)
            self.other.cut(Failure(ConnectionLost()))

    def _end(self, reason: Failure) -> None:
        if self.connected:
            self.connected = False
            if self._producer is not None:
                self._producer.stopProducing()
            try:
                self.protocol.connectionLost(reason)
            except Exception:
                self._log.failure("a protocol raised when it was told of its end")


def _is_known_of_twisted(failure: Failure) -> bool:
    """
    Whether Twisted's TLS tripped over an error of OpenSSL 4 that has no text.

    Twisted 24.3 does; later ones take it for the end of the connection, which
    is what it comes to either way.
    """
    return failure.check(IndexError) is not None and failure.frames[-1][0] == "_representsEOF"


class Connector:
    """An attempt to connect."""

    def __init__(self, network: Network, address: Address, factory: Any, bind: Any) -> None:
        self.state = "connecting"
        self.address = address
        self.bind = bind
        self.began = network.seconds()
        self.stopped = False
        self._factory = factory
        self._network = network

    def stopConnecting(self) -> None:
        assert self.state == "connecting"
        self.stopped = True
        self.fail(UserError())

    def fail(self, reason: Exception) -> None:
        if self.state == "connecting":
            self.state = "disconnected"
            self._factory.clientConnectionFailed(self, Failure(reason))

    def succeed(self, server: Any) -> None:
        if self.state == "connecting":
            self.state = "connected"
            protocol = self._factory.buildProtocol(self.address)
            self._network.join(protocol, server, self.address)


class Network(Clock):
    """
    A reactor without a kernel.

    :ivar servers: what answers at an address (or a path): something with
        ``buildProtocol``, an exception to refuse with, or None for silence;
        and for how many seconds it thinks about it.
    :ivar ends: the client's end of each connection.
    :ivar attempts: each attempt to connect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[str, tuple[Any, float]] = {}
        self.ends: list[End] = []
        self.attempts: list[Connector] = []

    # What a client asks of its reactor.

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        kind = IPv6Address if ":" in host else IPv4Address
        return self._connect(host, kind("TCP", host, port), factory, bindAddress)

    def connectUNIX(self, path: str, factory: Any, timeout: float = 30) -> Any:
        return self._connect(path, UNIXAddress(path), factory, None)

    def _connect(self, name: str, address: Address, factory: Any, bind: Any) -> Connector:
        connector = Connector(self, address, factory, bind)
        self.attempts.append(connector)
        answer, seconds = self.servers.get(name, (error.ConnectionRefusedError(), 0.0))
        if isinstance(answer, OSError):
            connector.state = "disconnected"
            raise answer
        if isinstance(answer, Exception):
            self.callLater(seconds, connector.fail, answer)
        elif answer is not None:
            self.callLater(seconds, lambda: connector.succeed(answer.buildProtocol(None)))
        return connector

    # What tests ask of it.

    def serve(self, server: Any, host: str = "192.0.2.1", seconds: float = 0.0) -> None:
        """``server`` answers at ``host``, after so many seconds."""
        self.servers[host] = (server, seconds)

    def join(self, client: Any, server: Any, address: Address | None = None) -> End:
        """Connect two protocols; returns the client's end."""
        if address is None:
            address = IPv4Address("TCP", "192.0.2.1", 25)
        if isinstance(address, IPv6Address):
            own: Address = IPv6Address("TCP", "2001:db8::7", 49152)
        elif isinstance(address, IPv4Address):
            own = IPv4Address("TCP", "192.0.2.7", 49152)
        else:
            own = UNIXAddress(None)
        here, there = End(own, address, client=True), End(address, own, client=False)
        here.other, there.other = there, here
        self.ends.append(here)
        there.protocol = server
        if client is None:
            # A factory that wants no protocol has its connection closed.
            there.made()
            there.cut(Failure(ConnectionDone()))
            here.connected = False
            return here
        here.protocol = client
        there.made()
        here.made()
        return here

    def settle(self) -> None:
        """Let everything happen that takes no time."""
        for _ in range(1_000_000):
            self.advance(0)
            ends = [each for end in self.ends for each in (end, end.other)]
            moved = [end.move() for end in ends]
            if not any(moved) and not any(
                call.getTime() <= self.seconds() for call in self.getDelayedCalls()
            ):
                return
        raise AssertionError("it never settles")

    def elapse(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, and everything happen in it."""
        self.settle()
        left = seconds
        while left > 0:
            self.advance(min(step, left))
            left -= step
            self.settle()

    def until(self, result: Deferred[T], bound: float = 0.0, step: float = 1.0) -> Outcome[T]:
        """What a Deferred has come to, within ``bound`` seconds."""
        outcome = Outcome(result)
        self.settle()
        began = self.seconds()
        while not outcome.came and self.seconds() < began + bound:
            self.advance(min(step, began + bound - self.seconds()))
            self.settle()
        outcome.seconds = self.seconds() - began
        return outcome

    @property
    def open_connections(self) -> int:
        return sum(end.connected or end.other.connected for end in self.ends)

    def assert_nothing_is_left(self) -> None:
        """No connection, no delayed call."""
        self.settle()
        assert self.open_connections == 0
        assert self.getDelayedCalls() == []


class Outcome(list[T]):
    """What a Deferred has come to: its result, or its error."""

    def __init__(self, result: Deferred[T]) -> None:
        super().__init__()
        self.came = 0
        self.seconds = 0.0
        self._failure: Failure | None = None
        result.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: T) -> None:
        self.came += 1
        self.append(value)

    def _failed(self, failure: Failure) -> None:
        self.came += 1
        self._failure = failure

    @property
    def value(self) -> T:
        assert self.came == 1, f"{self.came} outcomes"
        if self._failure is not None:
            self._failure.raiseException()
        return self[0]

    @property
    def error(self) -> BaseException:
        assert self.came == 1, f"{self.came} outcomes"
        assert self._failure is not None, f"no error but {self[0]!r}"
        return cast("BaseException", self._failure.value)
