"""
What the sink has to say, in order: octets, and steps that are no octets.

A batch is what one read of the client's octets brought forth.  Batches go out
one after another; each may be held back (a round trip's delay), and its
octets may leave in pieces.  A step takes its place among them: to close, to
wait, to trickle, to start TLS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import (
    IDelayedCall,
    IPullProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from zope.interface import implementer

#: A step returns whether the next may follow at once; one that returns False
#: calls :meth:`Outbox.resume`, or nothing follows ever.
Step = Callable[["Outbox"], bool]
Batch = list[bytes | Step]

#: Seconds that a closed connection may take to be closed by the client too.
#: Until then its octets are read and dropped: a socket closed with octets
#: unread sends RST, which would overtake and destroy the last reply.
LINGER: Final = 2.0

#: Octets a flood writes at a time; one such block is what it has in memory.
FLOOD_BLOCK: Final = 65536


class Outbox:
    """
    :param delay: seconds for which each batch is held back, from its own
        arrival.
    :param split: octets are written in pieces of so many, each in a reactor
        turn of its own; None: as they are.
    :param drained: called when everything has been written.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        transport: ITransport,
        *,
        delay: float,
        split: int | None,
        drained: Callable[[], None],
    ) -> None:
        self.transport = transport
        self._reactor = reactor
        self._delay = delay
        self._split = split
        self._drained = drained
        self._held: deque[Batch] = deque()
        self._queue: deque[bytes | Step] = deque()
        self._blocked = False
        self._shut = False
        self._calls: set[IDelayedCall] = set()

    @property
    def busy(self) -> bool:
        """Whether something waits to be written."""
        return self._blocked or bool(self._held) or bool(self._queue)

    def put(self, batch: Batch, *, at_once: bool = False) -> None:
        """
        :param at_once: not held back.
        """
        if self._shut:
            return
        if self._delay and not at_once:
            self._held.append(batch)
            self.later(self._delay, self._release)
        else:
            self._queue.extend(batch)
            self._run()

    def write(self, octets: bytes) -> None:
        self.transport.write(octets)

    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """``callLater``, called off when the connection ends."""

        def run() -> None:
            self._calls.discard(delayed)
            call()

        delayed = self._reactor.callLater(seconds, run)
        self._calls.add(delayed)
        return delayed

    def call_off(self, delayed: IDelayedCall) -> None:
        if delayed in self._calls:
            self._calls.discard(delayed)
            delayed.cancel()

    def resume(self) -> None:
        """The step that had returned False is through."""
        self._blocked = False
        self._run()

    def shut(self) -> None:
        """Say nothing any more; what waits is dropped, all timers are called off."""
        self._shut = self._blocked = True
        self._held.clear()
        self._queue.clear()
        for delayed in list(self._calls):
            self.call_off(delayed)

    def _release(self) -> None:
        self._queue.extend(self._held.popleft())
        self._run()

    def _run(self) -> None:
        queue = self._queue
        while queue and not self._blocked:
            item = queue.popleft()
            if not isinstance(item, bytes):
                self._blocked = not item(self) or self._shut
                continue
            # Replies that stand together leave in one write.
            group = [item]
            while queue and isinstance(queue[0], bytes):
                group.append(queue.popleft())  # type: ignore[arg-type]  # just looked at
            octets = b"".join(group) if len(group) > 1 else item
            if self._split is None:
                self.write(octets)
            else:
                self._blocked = not Pieces(octets, self._split)(self)
        if not queue and not self._blocked and not self._held:
            self._drained()


def stall(outbox: Outbox) -> bool:
    outbox.shut()
    return False


def deaf(outbox: Outbox) -> bool:
    outbox.shut()
    outbox.transport.pauseProducing()  # type: ignore[attr-defined]  # each real transport is an IPushProducer
    return False


def abort(outbox: Outbox) -> bool:
    outbox.shut()
    outbox.transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport's, and the in-memory ones'
    return False


def close(outbox: Outbox) -> bool:
    """FIN behind all that was written; see :data:`LINGER`."""
    outbox.shut()
    transport = outbox.transport
    if ISSLTransport.providedBy(transport):
        # TLS has no half-close; its close_notify goes in order, and is waited for.
        transport.loseConnection()
        outbox.later(LINGER, transport.abortConnection)
    elif ITCPTransport.providedBy(transport):
        transport.loseWriteConnection()
        outbox.later(LINGER, transport.abortConnection)
    else:
        transport.loseConnection()
    return False


class Wait:
    """So many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, outbox: Outbox) -> bool:
        outbox.later(self._seconds, outbox.resume)
        return False


class Pieces:
    """The octets in pieces of one size, with so many seconds between them; ``endless``: again and again."""

    def __init__(self, octets: bytes, size: int, interval: float = 0.0, endless: bool = False) -> None:
        self._octets = octets
        self._size = size
        self._interval = interval
        self._endless = endless
        self._at = 0

    def __call__(self, outbox: Outbox) -> bool:
        piece = self._octets[self._at : self._at + self._size]
        self._at += len(piece)
        if piece:
            outbox.write(piece)
        if self._at >= len(self._octets):
            # Through with the last octet, not a pause later: the client may answer it at once.
            if not (self._endless and self._octets):
                return True
            self._at = 0
        outbox.later(self._interval, lambda: self._go_on(outbox))
        return False

    def _go_on(self, outbox: Outbox) -> None:
        if self(outbox):
            outbox.resume()


@implementer(IPullProducer)
class Flood:
    """The octets again and again, a block whenever the client has read the one before."""

    def __init__(self, octets: bytes) -> None:
        self._block = octets * (FLOOD_BLOCK // len(octets) + 1)

    def __call__(self, outbox: Outbox) -> bool:
        outbox.shut()
        self._write = outbox.transport.write
        outbox.transport.registerProducer(self, False)  # type: ignore[attr-defined]  # each is an IConsumer
        return False

    def resumeProducing(self) -> None:
        self._write(self._block)

    def stopProducing(self) -> None:
        """The connection ended; nothing is kept."""
