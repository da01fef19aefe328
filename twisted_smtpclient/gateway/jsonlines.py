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

from ..errors import DeliveryError, InternalError, QueueFull, RequestTooLarge
from .codec import MAX_VALUES, Rejection, RequestDecoder
from .complaint import id_at_the_start
from .delivery import FAULT, Answer, Deliveries
from .framing import Line, LineBuffer
from .holding import CLIENT, Holding
from .limit import MAX_CLIENTS, ClientLimit
from .reply import encode_error, wire_name
from .schema import RequestId
from .token import TokenProtocol, Tokens, can_half_close
from .under_way import RECIPIENT

__all__ = ["MAX_IN_FLIGHT", "MAX_REQUEST", "JSONLinesFactory", "JSONLinesProtocol"]

#: Octets of a line: a message of 48 MiB in base64.
MAX_REQUEST: Final = 64 * 1024 * 1024
#: Requests of one client that have no reply yet.
MAX_IN_FLIGHT: Final = 1000

#: Octets read from a client at a time, and left in its transport before it
#: counts as one that does not read.  Those of all clients together are an
#: eighth of what may be held, and 40 MiB for 10,000 clients at the least.
MAX_BITE: Final = 65536
MIN_BITE: Final = 4096

#: What is said where a line was given up.
NO_ROOM: Final = "no room for a line of this length, for --max-memory is used up"

#: Seconds for a client to take its last replies when the daemon goes down.
LINGER: Final = 2.0

_log = Logger(__name__)


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
        self.holding = Holding(factory.deliveries.memory, factory.clock, self._schedule)
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
        self.factory.joined(self)
        if ITCPTransport.providedBy(self.transport) and not IUNIXTransport.providedBy(self.transport):
            # A reply must not wait for the acknowledgement of the one before.
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.settle()
        self.take_small_bites()

    def take_small_bites(self) -> None:
        """Read, and let the transport hold, no more than a fair share at a time."""
        socket = getattr(self.transport, "transport", self.transport)
        socket.bufferSize = self.factory.bite

    def readConnectionLost(self) -> None:
        if self._closed:
            # It has heard that there is nothing more.
            self.transport.loseConnection()
            return
        self._ended = True
        line = self._buffer.end()
        if line != b"":
            self._lines.append(line)
        self._take()
        self._schedule()

    def writeConnectionLost(self) -> None:
        self._close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._closed = True
        if self._in_flight or self._lines:
            _log.info(
                "a client went away: {in_flight} requests run on, {dropped} lines were not taken",
                in_flight=self._in_flight,
                dropped=len(self._lines),
            )
        self._lines.clear()
        self._turns.clear()
        self._output.clear()
        self.holding.end()
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

    def give_up(self) -> None:
        """There is no room for the rest of the line that is not complete."""
        head = self._buffer.give_up()
        self._reject(id_at_the_start(head), QueueFull(NO_ROOM))
        self._settle_memory()

    def _take(self) -> None:
        """Take lines for as long as there is room for their replies."""
        lines = self._lines
        if not lines:
            return
        factory, has_room = self.factory, self.holding.memory.has_room_to_take
        while lines and self._in_flight < factory.max_in_flight and not self._output_full and has_room():
            line = lines.popleft()
            if line is None:
                self._reject(id_at_the_start(self._buffer.heads.popleft()), factory.too_large())
            elif line and line != b"\r":
                try:
                    request = factory.decode(line)
                except Exception:
                    _log.failure("a line could not be decoded for a fault of this software")
                    request = Rejection(UNSET, InternalError(FAULT))
                # It may be as long as the message, which alone is needed now.
                del line
                if isinstance(request, Rejection):
                    self._reject(*request)
                else:
                    self._in_flight += 1
                    factory.deliveries.start(request, self._answer_for(request.id), self)

    # Replies out

    def _answer_for(self, request_id: RequestId) -> Answer:
        if request_id is not UNSET and request_id is not None:
            return self._answer
        turn = _Turn()
        self._turns.append(turn)
        return partial(self._answer_in_turn, turn)

    def _reject(self, request_id: RequestId, error: DeliveryError) -> None:
        self._in_flight += 1
        self.factory.deliveries.rejected[wire_name(error)] += 1
        self._answer_for(request_id)(encode_error(request_id, error))

    def _answer(self, reply: bytes) -> None:
        if self._closed:
            return
        self._output.append(reply)
        if self._end_of_turn is None:
            self._schedule()

    def _answer_in_turn(self, turn: _Turn, reply: bytes) -> None:
        turn.reply = reply
        self.holding.replies += len(reply)
        turns = self._turns
        while turns and (reply_due := turns[0].reply) is not None:
            turns.popleft()
            self.holding.replies -= len(reply_due)
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
            if self._output_full:
                self.holding.unsent += len(octets)

    # Flow

    def settle(self) -> None:
        """Go on reading, stop it, or close, as things stand."""
        if self._closed:
            return
        if not self._in_flight and not self._lines and (self._ended or self.factory.deliveries.draining):
            self._close()
            return
        room = self._settle_memory() and self._in_flight < self.factory.max_in_flight
        self._read_on(room and not self._lines and not self._output_full)

    def _settle_memory(self) -> bool:
        """Count what is held; whether there is room for more."""
        has_room = self.holding.count(self._buffer.pending, sum(map(len, filter(None, self._lines))))
        if self.holding.memory.has_too_many_pieces:
            self.factory.give_up_one()
        return has_room

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
            if self._ended or not can_half_close(self.transport):
                self.transport.loseConnection()
                return
            # To close while it still sends is to reset the connection, and
            # the replies that have not arrived are lost.  What still comes is
            # not looked at; the drain's end is the bound.
            self.transport.loseWriteConnection()
            if not self._reading:
                self.transport.resumeProducing()

    def abort(self) -> None:
        """Close now; what the client has not taken is lost."""
        self._closed = True
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not read its replies."""
        self._output_full = True
        self.holding.stalls(self._stalled)
        self._read_on(False)

    def resumeProducing(self) -> None:
        """It does again."""
        self._output_full = False
        self.holding.goes_on()
        self._schedule()

    def _stalled(self) -> None:
        _log.warn("a client that does not read its replies is dropped, for memory is full")
        self.abort()

    def stopProducing(self) -> None:
        """The connection is about to be lost, which is told by connectionLost."""


class JSONLinesFactory(Factory):
    """
    The clients of one daemon, on however many ports.

    :param deliveries: takes the requests.
    :param clock: tells when a turn of the reactor is over.
    :param max_request: octets of a line, its end not counted.
    :param max_in_flight: requests of one client that have no reply yet.
    :param max_clients: clients at a time; on ports that :attr:`limit` watches
        more wait to be accepted.
    :param tokens: those of which a client is to show one first; None for none.
    """

    noisy = False

    def __init__(
        self,
        deliveries: Deliveries,
        clock: IReactorTime,
        *,
        max_request: int = MAX_REQUEST,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_clients: int = MAX_CLIENTS,
        tokens: Tokens | None = None,
    ) -> None:
        self.deliveries = deliveries
        self.clock = clock
        # Half of the memory is what lines may take up before they are complete.
        self.max_request = min(max_request, deliveries.memory.limit // 2)
        self.bite = MAX_BITE
        self.max_in_flight = max_in_flight
        # An eighth of it at the most is one request's for its recipients.
        self.decode = RequestDecoder(min(MAX_VALUES, deliveries.memory.limit // (8 * RECIPIENT))).decode
        self.tokens = tokens
        # At most an eighth of the memory is for clients that say nothing.
        self.limit = ClientLimit(min(max_clients, deliveries.memory.limit // (8 * CLIENT)))
        #: Those that have not shown their token yet are among them.
        self.clients: set[JSONLinesProtocol | TokenProtocol] = set()
        self._accepted = 0
        self._all_gone: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<JSONLinesFactory: {len(self.clients)} clients>"

    def buildProtocol(  # type: ignore[override]  # the base is generic in newer Twisted only
        self, addr: IAddress | None
    ) -> JSONLinesProtocol | TokenProtocol:
        """A new client, wherever it comes from."""
        self._accepted += 1
        return JSONLinesProtocol(self) if self.tokens is None else TokenProtocol(self.tokens, self)

    def admit(self) -> JSONLinesProtocol:
        """For a client that has shown its token."""
        return JSONLinesProtocol(self)

    def state(self) -> dict[str, float]:
        """How it stands, by the names of the daemon's metrics."""
        admitted = [client for client in self.clients if isinstance(client, JSONLinesProtocol)]
        return {
            "clients": len(self.clients),
            "clients_accepted": self._accepted,
            "clients_paused": sum(not client._reading for client in admitted),
            "requests_waiting": sum(len(client._lines) for client in admitted),
        }

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

    def give_up_one(self) -> None:
        """Of the lines that are not complete, the longest has to go."""
        clients = [client for client in self.clients if isinstance(client, JSONLinesProtocol)]
        max(clients, key=lambda client: client.holding.in_pieces).give_up()

    def _divide(self) -> None:
        """What each may read at a time, and leave unread in its transport."""
        fair = self.deliveries.memory.limit // (8 * max(1, len(self.clients)))
        # It is changed by a factor, for each change is told to all.
        if fair < self.bite > MIN_BITE or (fair >= 4 * self.bite and self.bite < MAX_BITE):
            self.bite = max(MIN_BITE, min(MAX_BITE, fair // 2))
            for client in self.clients:
                if isinstance(client, JSONLinesProtocol):
                    client.take_small_bites()

    def joined(self, client: JSONLinesProtocol | TokenProtocol) -> None:
        """For a client to say: it is connected."""
        self.clients.add(client)
        self.limit.count(len(self.clients))
        self._divide()

    def lost(self, client: JSONLinesProtocol | TokenProtocol) -> None:
        """For a client to say: its connection is gone."""
        self.clients.discard(client)
        self.limit.count(len(self.clients))
        self._divide()
        if not self.clients and self._all_gone is not None:
            all_gone, self._all_gone = self._all_gone, None
            all_gone.callback(None)
