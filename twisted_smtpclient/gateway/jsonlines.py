"""
Requests as lines of JSON over a stream: back-pressure, half-close, the drain.

A client may send any number of lines without waiting; of their order and their
replies :mod:`.conversation` knows.
What a client can make the daemon hold is bounded: it is not read from while
``max_in_flight`` of its requests have no reply yet, while it does not read its
replies, or while lines of it wait that were read before that was known.
"""

from __future__ import annotations

from typing import Any, Final

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

from .codec import MAX_VALUES, RequestDecoder
from .conversation import Conversation
from .delivery import Deliveries
from .holding import CLIENT, Holding
from .limit import MAX_CLIENTS, ClientLimit
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

#: Seconds for a client to take its last replies when the daemon goes down.
LINGER: Final = 2.0

_log = Logger(__name__)


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
        self.conversation = Conversation(
            factory.deliveries,
            factory.decode,
            self,
            max_request=factory.max_request,
            max_in_flight=factory.max_in_flight,
            due=self._schedule,
        )
        self.holding = Holding(factory.deliveries.memory, factory.clock, self._schedule)
        self._reading = True
        #: The client has said all that it had to say.
        self._ended = False
        #: Nothing is written any more: closed by us, or lost.
        self._closed = False
        self._end_of_turn: IDelayedCall | None = None

    def __repr__(self) -> str:
        reading = "reading" if self._reading else "not reading"
        return f"<JSONLinesProtocol: {self.conversation.state()}, {reading}>"

    @property
    def is_read_from(self) -> bool:
        """Whether what it sends is taken, as far as the transport has it."""
        return self._reading

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
        self.conversation.end()
        self._schedule()

    def writeConnectionLost(self) -> None:
        self._close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._closed = True
        conversation = self.conversation
        if conversation.in_flight or conversation.lines:
            _log.info(
                "a client went away: {in_flight} requests run on, {dropped} lines were not taken",
                in_flight=conversation.in_flight,
                dropped=conversation.lines,
            )
        conversation.close()
        self.holding.end()
        if self._end_of_turn is not None:
            self._end_of_turn.cancel()
            self._end_of_turn = None
        self.factory.lost(self)

    # Lines in, replies out

    def dataReceived(self, data: bytes) -> None:
        if not self._closed:
            self.conversation.feed(data)
            self.settle()

    def give_up(self) -> None:
        """There is no room for the rest of the line that is not complete."""
        self.conversation.give_up()
        self._settle_memory()

    def _schedule(self) -> None:
        if self._end_of_turn is None and not self._closed:
            self._end_of_turn = self.factory.clock.callLater(0, self._turn_ended)

    def _turn_ended(self) -> None:
        self._end_of_turn = None
        if self._closed:
            return
        conversation = self.conversation
        octets = conversation.fetch()
        if octets:
            self.transport.write(octets)
            if conversation.unread:
                self.holding.unsent += len(octets)
        conversation.take()
        self.settle()

    # Flow

    def settle(self) -> None:
        """Go on reading, stop it, or close, as things stand."""
        if self._closed:
            return
        conversation = self.conversation
        is_idle = not conversation.in_flight and not conversation.lines
        if is_idle and (self._ended or self.factory.deliveries.draining):
            self._close()
            return
        self._read_on(self._settle_memory() and conversation.has_room)

    def _settle_memory(self) -> bool:
        """Count what is held; whether there is room for more."""
        conversation = self.conversation
        has_room = self.holding.count(conversation.pending, conversation.waiting, conversation.in_turns)
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
        self._closed = self.conversation.closed = True
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not read its replies."""
        self.conversation.unread = True
        self.holding.stalls(self._stalled)
        self._read_on(False)

    def resumeProducing(self) -> None:
        """It does again."""
        self.conversation.unread = False
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
            "clients_paused": sum(not client.is_read_from for client in admitted),
            "requests_waiting": sum(client.conversation.lines for client in admitted),
        }

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
