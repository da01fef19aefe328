"""
Requests as lines of JSON over a stream: order, ids, back-pressure, half-close.

A client may send any number of lines without waiting.  Each gets one reply,
as soon as it is there where the line had an ``id``, in turn where it had none.
What a client can make the daemon hold is bounded: it is not read from while
``max_in_flight`` of its requests have no reply yet, while it does not read its
replies, or while lines of it wait that were read before that was known.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, Final

from msgspec import UNSET
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import DeliveryError, InternalError, RequestTooLarge
from .codec import Rejection, RequestDecoder
from .complaint import id_at_the_start
from .delivery import FAULT, Answer, Deliveries
from .framing import Line, LineBuffer
from .reply import encode_error
from .schema import RequestId

__all__ = ["MAX_IN_FLIGHT", "MAX_REQUEST", "JSONLinesFactory", "JSONLinesProtocol"]

#: Octets of a line: a message of 48 MiB in base64.
MAX_REQUEST: Final = 64 * 1024 * 1024
#: Requests of one client that have no reply yet.
MAX_IN_FLIGHT: Final = 1000

#: Seconds for a client to take its last replies when the daemon goes down.
LINGER: Final = 2.0

_log = Logger()


class _Turn:
    """The place in the order of a request without an id."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: bytes | None = None


@implementer(IHalfCloseableProtocol, IPushProducer)
class JSONLinesProtocol(Protocol):
    """
    One client.

    Replies that are there in one turn of the reactor go in one write, at the
    end of that turn; then more lines are taken, and it is decided whether to
    read on.

    As a producer (of replies) it is told by its transport when the client
    does not keep up with reading them.
    """

    factory: JSONLinesFactory
    #: TCP, UNIX or TLS: no interface of Twisted's has all that is called.
    transport: Any

    def __init__(self, factory: JSONLinesFactory) -> None:
        self.factory = factory
        self._buffer = LineBuffer(factory.max_request)
        #: Lines that were read and not taken yet: what one read gave.
        self._lines: deque[Line] = deque()
        #: Lines taken whose reply is not written: it is under way, waits for
        #: its turn, or is due at the end of this turn of the reactor.
        self._in_flight = 0
        self._turns: deque[_Turn] = deque()
        self._output: list[bytes] = []
        self._output_full = False
        self._reading = True
        #: The client has said all that it had to say.
        self._ended = False
        #: Nothing is written any more: closed by us, or lost.
        self._closed = False
        self._end_of_turn: IDelayedCall | None = None

    def __repr__(self) -> str:
        return (
            f"<JSONLinesProtocol: {self._in_flight} in flight, {len(self._lines)} lines waiting, "
            f"{'reading' if self._reading else 'not reading'}>"
        )

    # Connection

    def connectionMade(self) -> None:
        self.factory.clients.add(self)
        if ITCPTransport.providedBy(self.transport) and not IUNIXTransport.providedBy(self.transport):
            # A reply must not wait for the acknowledgement of the one before.
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.settle()

    def readConnectionLost(self) -> None:
        self._ended = True
        line = self._buffer.end()
        if line != b"":
            self._lines.append(line)
        self._take()
        self._schedule()

    def writeConnectionLost(self) -> None:
        self._close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._in_flight or self._lines:
            _log.info(
                "a client went away: {in_flight} requests run on, {dropped} lines were not taken",
                in_flight=self._in_flight,
                dropped=len(self._lines),
            )
        self._closed = True
        self._lines.clear()
        self._turns.clear()
        self._output.clear()
        if self._end_of_turn is not None:
            self._end_of_turn.cancel()
            self._end_of_turn = None
        self.factory.lost(self)

    # Lines in

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            return
        self._lines.extend(self._buffer.feed(data))
        self._take()
        self.settle()

    def _take(self) -> None:
        """Take lines for as long as there is room for their replies."""
        lines = self._lines
        max_in_flight = self.factory.max_in_flight
        while lines and self._in_flight < max_in_flight and not self._output_full:
            line = lines.popleft()
            if line is None:
                self._reject(id_at_the_start(self._buffer.heads.popleft()), self.factory.too_large())
            elif line and line != b"\r":
                try:
                    request = self.factory.decode(line)
                except Exception:
                    _log.failure("a line could not be decoded for a fault of this software")
                    request = Rejection(UNSET, InternalError(FAULT))
                # It may be as long as the message, which alone is needed now.
                del line
                if isinstance(request, Rejection):
                    self._reject(*request)
                else:
                    self._in_flight += 1
                    self.factory.deliveries.start(request, self._answer_for(request.id))

    # Replies out

    def _answer_for(self, request_id: RequestId) -> Answer:
        if request_id is not UNSET and request_id is not None:
            return self._answer
        turn = _Turn()
        self._turns.append(turn)
        return partial(self._answer_in_turn, turn)

    def _reject(self, request_id: RequestId, error: DeliveryError) -> None:
        self._in_flight += 1
        self._answer_for(request_id)(encode_error(request_id, error))

    def _answer(self, reply: bytes) -> None:
        if self._closed:
            return
        self._output.append(reply)
        self._schedule()

    def _answer_in_turn(self, turn: _Turn, reply: bytes) -> None:
        turn.reply = reply
        turns = self._turns
        while turns and (reply_due := turns[0].reply) is not None:
            turns.popleft()
            self._answer(reply_due)

    def _schedule(self) -> None:
        if self._end_of_turn is None and not self._closed:
            self._end_of_turn = self.factory.clock.callLater(0, self._turn_ended)

    def _turn_ended(self) -> None:
        self._end_of_turn = None
        self._write()
        self._take()
        self.settle()

    def _write(self) -> None:
        if self._output:
            self._in_flight -= len(self._output)
            self._output.append(b"")
            octets = b"\n".join(self._output)
            self._output.clear()
            self.transport.write(octets)

    # Flow

    def settle(self) -> None:
        """Go on reading, stop it, or close, as things stand."""
        if self._closed:
            return
        if not self._in_flight and not self._lines and (self._ended or self.factory.deliveries.draining):
            self._close()
            return
        room = self._in_flight < self.factory.max_in_flight
        self._read_on(room and not self._lines and not self._output_full)

    def _read_on(self, reading: bool) -> None:
        # Once the client has said all, to resume is to read its end again.
        if reading is not self._reading and not self._ended:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _close(self) -> None:
        """Close when what was written has gone out."""
        if not self._closed:
            self._closed = True
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close now; what the client has not taken is lost."""
        self._closed = True
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not read its replies."""
        self._output_full = True
        self._read_on(False)

    def resumeProducing(self) -> None:
        """It does again."""
        self._output_full = False
        self._schedule()

    def stopProducing(self) -> None:
        """The connection is about to be lost, which is told by connectionLost."""


class JSONLinesFactory(Factory):
    """
    The clients of one daemon, on however many ports.

    :param deliveries: takes the requests.
    :param clock: tells when a turn of the reactor is over.
    :param max_request: octets of a line, its end not counted.
    :param max_in_flight: requests of one client that have no reply yet.
    """

    noisy = False

    def __init__(
        self,
        deliveries: Deliveries,
        clock: IReactorTime,
        *,
        max_request: int = MAX_REQUEST,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.deliveries = deliveries
        self.clock = clock
        self.max_request = max_request
        self.max_in_flight = max_in_flight
        self.decode = RequestDecoder().decode
        self.clients: set[JSONLinesProtocol] = set()
        self._all_gone: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<JSONLinesFactory: {len(self.clients)} clients>"

    def buildProtocol(  # type: ignore[override]  # the base is generic in newer Twisted only
        self, addr: IAddress | None
    ) -> JSONLinesProtocol:
        """A new client, wherever it comes from."""
        return JSONLinesProtocol(self)

    def too_large(self) -> RequestTooLarge:
        """What is said of a line over the limit."""
        return RequestTooLarge(f"expected a line of at most {self.max_request} octets")

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Answer what is under way, refuse what still comes, close each client
        when it has its last reply.

        :param seconds: for what is under way to end by itself.
        :returns: fires when no client is left; at most :data:`LINGER` seconds
            after the last delivery has ended.
        """
        drained = self.deliveries.drain(seconds)
        for client in tuple(self.clients):
            client.settle()
        return drained.addCallback(lambda _: self._last_replies())

    def _last_replies(self) -> Deferred[None]:
        if not self.clients:
            return succeed(None)
        all_gone: Deferred[None] = Deferred()
        self._all_gone = all_gone
        end = self.clock.callLater(LINGER, self._abort_all)
        return all_gone.addCallback(lambda _: end.cancel() if end.active() else None)

    def _abort_all(self) -> None:
        for client in tuple(self.clients):
            client.abort()

    def lost(self, client: JSONLinesProtocol) -> None:
        """For a client to say: its connection is gone."""
        self.clients.discard(client)
        if not self.clients and self._all_gone is not None:
            all_gone, self._all_gone = self._all_gone, None
            all_gone.callback(None)
