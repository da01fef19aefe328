"""
The connection to the broker: opened, watched, and opened again.

Twisted's reactor is imported with pika's adapter, so this module is by those
alone who run one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.exceptions import ConnectionClosedByBroker
from pika.frame import Body
from pika.spec import Connection
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .address import Address
from .backoff import Backoff
from .frames import Delivered, end_of_frame, frames_of, read_delivered, read_frame
from .gateway import AMQPGateway
from .reason import reason_of

__all__ = ["AMQPService", "BrokerEndpoint", "BrokerProtocol", "open_channel"]

#: Seconds to connect, and again as many to open what is needed.
CONNECT: Final = 15.0
#: Seconds for the broker to answer that we go.
CLOSE: Final = 1.0
#: Seconds that what was written may take to go out, once a connection is given up.
ABORT: Final = 5.0

_log = Logger(__name__)


class _Transport:
    """
    A transport that does go when it is told to, and writes once a turn.

    pika gives up a connection whose heartbeats have stopped as it ends any
    other: what was written is to go out first, which there it never does.
    """

    def __init__(self, transport: Any, reactor: Any) -> None:
        self._transport = transport
        self._reactor = reactor
        self._abort: IDelayedCall | None = None
        self._output: list[bytes] = []
        self._end_of_turn: IDelayedCall | None = None

    def write(self, octets: bytes) -> None:
        self._output.append(octets)
        if self._end_of_turn is None:
            self._end_of_turn = self._reactor.callLater(0, self._flush)

    def loseConnection(self) -> None:
        self._flush()
        self._transport.loseConnection()
        if self._abort is None:
            self._abort = self._reactor.callLater(ABORT, self._transport.abortConnection)

    def gone(self) -> None:
        """It has gone."""
        for call in (self._abort, self._end_of_turn):
            if call is not None and call.active():
                call.cancel()

    def _flush(self) -> None:
        if self._end_of_turn is not None and self._end_of_turn.active():
            self._end_of_turn.cancel()
        self._end_of_turn = None
        if self._output:
            octets = b"".join(self._output)
            self._output.clear()
            self._transport.write(octets)


class BrokerProtocol(TwistedProtocolConnection):  # type: ignore[misc]  # pika has no types
    """
    A connection that tells why it could not be opened, or ended.

    :ivar said: what the broker has said when it closed it; pika gives that up
        for the "closed cleanly" that follows.
    """

    #: pika's own: fires when the connection is open; None once it has.
    ready: Any
    _own: _Transport | None = None

    def __init__(self, address: Address, reactor: Any) -> None:
        super().__init__(address.parameters, custom_reactor=reactor)
        self._reactor = reactor
        self.said: Exception | None = None
        self._impl.callbacks.add(0, Connection.Close, self._closes)
        self._impl._on_data_available = self._take
        self._impl._send_message = self._send_message

    def _closes(self, frame: Any) -> None:
        self.said = ConnectionClosedByBroker(frame.method.reply_code, frame.method.reply_text)

    def _take(self, octets: bytes) -> None:
        impl = self._impl
        octets = impl._frame_buffer + octets
        taken = 0
        # pika copies what is left of a read behind each of its frames.
        while True:
            delivered = read_delivered(octets, taken)
            if delivered is not None:
                impl.bytes_received += delivered.end - taken
                taken = delivered.end
                self._deliver(delivered)
                continue
            end = end_of_frame(octets, taken)
            if not end:
                break
            frame = read_frame(octets[taken:end])
            impl.bytes_received += end - taken
            taken = end
            impl._process_frame(frame)
        impl._frame_buffer = octets[taken:]

    def _deliver(self, delivered: Delivered) -> None:
        """What pika does with a message's frames, without a look at each for who else wants it."""
        impl = self._impl
        _, method, header, body = delivered
        channel = impl._channels.get(method.channel_number)
        if channel is None or channel._content_assembler._method_frame is not None:
            for frame in (method, header, Body(method.channel_number, body)):
                impl._process_frame(frame)
            return
        impl.frames_received += 3
        channel._on_deliver(method, header, body)

    def _send_message(self, channel: int, publish: Any, content: tuple[Any, bytes]) -> None:
        octets = frames_of(channel, publish, *content, self._impl._body_max_length)
        self._impl._output_marshaled_frames([octets])

    def makeConnection(self, transport: Any) -> None:
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._own = _Transport(transport, self._reactor)
        super().makeConnection(self._own)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._own is not None:
            self._own.gone()
        super().connectionLost(reason)

    def _on_connection_failed(self, connection: Any, error: Exception | None = None) -> None:
        # pika's own drops the error.
        ready, self.ready = self.ready, None
        if ready:
            ready.errback(self.said or error or ConnectionDone())


@implementer(IStreamClientEndpoint)
class BrokerEndpoint:
    """
    Connects to where the broker is now: its address may change.

    :param address: gives it.
    :param trust_root: gives what certificates are trusted by; None for the
        platform's.
    """

    def __init__(self, reactor: Any, address: Callable[[], Address], trust_root: Callable[[], Any]) -> None:
        self._reactor = reactor
        self._address = address
        self._trust_root = trust_root

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, with TLS where the address says so."""
        address = self._address()
        endpoint: Any = HostnameEndpoint(self._reactor, address.host, address.port, timeout=CONNECT)
        try:
            if address.tls:
                options = optionsForClientTLS(address.host, trustRoot=self._trust_root())
                endpoint = wrapClientTLS(options, endpoint)
        except Exception:
            return fail(Failure())
        connecting: Deferred[IProtocol] = endpoint.connect(protocolFactory)
        return connecting

    def protocol(self) -> BrokerProtocol:
        """The protocol for a connection."""
        return BrokerProtocol(self._address(), self._reactor)


class _Factory(Factory):
    noisy = False

    def __init__(self, endpoint: BrokerEndpoint) -> None:
        self._endpoint = endpoint

    def buildProtocol(self, addr: IAddress | None) -> BrokerProtocol:
        return self._endpoint.protocol()


class AMQPService(Service):
    """
    Keeps a gateway connected.

    When it is stopped, the gateway's last outcomes are published first.

    :param address: gives where the broker is.
    :param exchanges: those which there have to be before anything is taken.
    """

    def __init__(
        self,
        reactor: Any,
        gateway: AMQPGateway,
        address: Callable[[], Address],
        trust_root: Callable[[], Any],
        exchanges: Sequence[str] = (),
    ) -> None:
        self.gateway = gateway
        self._reactor = reactor
        self._address = address
        self._exchanges = exchanges
        self._backoff = Backoff()
        self._reason = ""
        self._protocol: BrokerProtocol | None = None
        self._stopping = False
        endpoint = BrokerEndpoint(reactor, address, trust_root)
        self._client = ClientService(
            _Noting(endpoint, self._note),
            _Factory(endpoint),
            retryPolicy=self._wait,
            clock=reactor,
            prepareConnection=self._prepare,
        )

    def startService(self) -> None:
        """Connect, and go on trying."""
        Service.startService(self)
        self._client.startService()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Have the last outcomes confirmed, and close the connection."""
        Service.stopService(self)
        yield self.gateway.finish()
        self._stopping = True
        protocol = self._protocol
        closed = None if protocol is None else protocol.close()
        if closed is not None:
            yield closed.addTimeout(CLOSE, self._reactor).addErrback(lambda _: None)
        yield maybeDeferred(self._client.stopService)

    # Connecting.

    def _note(self, failure: Failure) -> Failure:
        self._reason = reason_of(failure.value)
        return failure

    def _wait(self, failed: int) -> float:
        """ClientService asks how long to wait before it connects again."""
        delay = self._backoff.next()
        if not self._stopping:
            _log.error(
                "amqp: not connected to {address}, tried again in {delay:.0f} s: {reason}",
                address=str(self._address()),
                delay=delay,
                reason=self._reason,
            )
        return delay

    def _prepare(self, protocol: Any) -> Deferred[None]:
        # ClientService knows the protocol by what it has put around it.
        prepared = self._open(protocol).addTimeout(CONNECT, self._reactor)

        def failed(failure: Failure) -> Failure:
            protocol.transport.loseConnection()
            return self._note(failure)

        return prepared.addErrback(failed)

    @inlineCallbacks
    def _open(self, protocol: BrokerProtocol) -> Generator[Deferred[Any], Any, None]:
        ready: Any = protocol.ready
        yield ready
        control = yield protocol.channel()
        for exchange in self._exchanges:
            yield control.exchange_declare(exchange, passive=True)
        closed: Any = protocol.closed
        closed.addBoth(self._closed, protocol)
        self._protocol = protocol
        self._backoff.reset()
        _log.info("amqp: connected to {address}", address=str(self._address()))
        self.gateway.attach(control.connection)
        control.close()

    def _closed(self, reason: Any, protocol: BrokerProtocol) -> None:
        self._protocol = None
        self._reason = reason_of(protocol.said or (reason.value if isinstance(reason, Failure) else reason))
        self.gateway.detach()


@implementer(IStreamClientEndpoint)
class _Noting:
    """An endpoint of which somebody is told why it does not connect."""

    def __init__(self, endpoint: BrokerEndpoint, note: Callable[[Failure], Failure]) -> None:
        self._endpoint = endpoint
        self._note = note

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._endpoint.connect(protocolFactory).addErrback(self._note)


@inlineCallbacks
def open_channel(
    reactor: Any, address: Address, trust_root: Any
) -> Generator[Deferred[Any], Any, tuple[Any, Callable[[], Deferred[Any]]]]:
    """
    Connect once.

    :returns: a ``TwistedChannel``, and what closes the connection.
    """
    endpoint = BrokerEndpoint(reactor, lambda: address, lambda: trust_root)
    protocol: Any = yield endpoint.connect(_Factory(endpoint))
    yield protocol.ready
    channel: Any = yield protocol.channel()

    def close() -> Deferred[Any]:
        closed: Deferred[Any] = maybeDeferred(protocol.close)
        return closed.addTimeout(CLOSE, reactor).addErrback(lambda _: None)

    return channel, close
