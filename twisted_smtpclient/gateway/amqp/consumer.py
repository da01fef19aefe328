"""
One queue of requests: what is taken from it, and what is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .backoff import Backoff
from .reason import reason_of

__all__ = ["PREFETCH", "Arrival", "Consumer", "Ticket"]

#: Requests of one queue that this process has and has not acknowledged.  At a
#: second for a mail it is the mails a second; after a crash it is how many may
#: be delivered twice.
PREFETCH: Final = 500

_log = Logger(__name__)


class Ticket(NamedTuple):
    """
    What acknowledges a request.

    :ivar channel: the only one on which that is possible.
    :ivar tag: its number there.
    """

    channel: Any
    tag: int


class Consumer:
    """
    Takes from one queue, on a channel of its own, for as long as there is a
    connection.

    :param queue: its name.
    :param prefetch: requests that the broker gives out before one of them is
        acknowledged.
    :param arrived: told of each.
    :ivar consuming: whether the broker gives out requests.
    :ivar acknowledged: how many were.
    """

    def __init__(
        self, queue: str, prefetch: int, clock: IReactorTime, arrived: Callable[[Arrival], None]
    ) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.consuming = False
        self.acknowledged = 0
        self._clock = clock
        self._arrived = arrived
        self._backoff = Backoff()
        self._connection: Any = None
        self._channel: Any = None
        self._tag: str | None = None
        self._stopped = False
        self._reopening: IDelayedCall | None = None
        #: tags that are acknowledged at the end of this turn
        self._due: set[int] = set()
        self._end_of_turn: IDelayedCall | None = None
        #: all up to this one are acknowledged
        self._low = 0
        #: of those above it, which are
        self._beyond: set[int] = set()

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue!r}: {'consuming' if self.consuming else 'not consuming'}>"

    def attach(self, connection: Any) -> None:
        """There is a connection: consume."""
        self._connection = connection
        self._open()

    def detach(self) -> None:
        """There is none any more."""
        self._connection = None
        self._close()

    def stop(self) -> None:
        """Take nothing more; what was taken may still be acknowledged."""
        self._stopped = True
        if self.consuming and self._channel.is_open:
            self._channel.basic_cancel(self._tag)
        self.consuming = False

    def has(self, ticket: Ticket) -> bool:
        """
        Whether a request is still ours: not where the channel has gone by which
        it came.  The broker then gives it out again.
        """
        return ticket.channel is self._channel

    def acknowledge(self, ticket: Ticket) -> None:
        """The broker may forget a request, where it is still ours."""
        if not self.has(ticket):
            return
        self.acknowledged += 1
        self._due.add(ticket.tag)
        if self._end_of_turn is None:
            self._end_of_turn = self._clock.callLater(0, self.flush)

    # The channel.

    def _open(self) -> None:
        self._reopening = None
        if self._connection is not None and not self._stopped:
            self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled)
        self._channel = channel
        self._low = 0
        channel.basic_qos(prefetch_count=self.prefetch, callback=lambda _: self._consume(channel))

    def _consume(self, channel: Any) -> None:
        if not self._stopped:
            self._tag = channel.basic_consume(self.queue, self._deliver, callback=self._consumes)

    def _consumes(self, _: Any) -> None:
        if self._stopped:
            self._channel.basic_cancel(self._tag)
            return
        self.consuming = True
        self._backoff.reset()
        _log.info("amqp: takes requests from {queue}", queue=self.queue)

    def _deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        ticket = Ticket(channel, method.delivery_tag)
        self._arrived(Arrival(self, ticket, method.redelivered, properties, body))

    def _cancelled(self, _: Any) -> None:
        """The broker gives out nothing more, for the queue has gone or moved."""
        self._again("the broker has cancelled it: the queue was deleted, or has moved")

    def _closed(self, channel: Any, reason: Exception) -> None:
        if channel is self._channel:
            self._close()
            self._again(reason_of(reason))

    def _again(self, reason: str) -> None:
        self.consuming = False
        if self._stopped or self._connection is None or not self._connection.is_open:
            return
        if self._reopening is None:
            delay = self._backoff.next()
            _log.error(
                "amqp: no requests from {queue}, tried again in {delay:.0f} s: {reason}",
                queue=self.queue,
                delay=delay,
                reason=reason,
            )
            self._reopening = self._clock.callLater(delay, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        if self._channel is not None and self._channel.is_open:
            # What came by it can still be acknowledged.
            self._consume(self._channel)
        else:
            self._open()

    def _close(self) -> None:
        self.consuming = False
        self._channel = None
        for call in (self._reopening, self._end_of_turn):
            if call is not None and call.active():
                call.cancel()
        self._reopening = self._end_of_turn = None
        self._due.clear()
        self._beyond.clear()

    # Acknowledgements.

    def flush(self) -> None:
        """
        Acknowledge what is due, now.

        All that lie without a gap behind those which were acknowledged before
        go by one frame.
        """
        if self._end_of_turn is not None and self._end_of_turn.active():
            self._end_of_turn.cancel()
        self._end_of_turn = None
        channel, due, beyond = self._channel, self._due, self._beyond
        if not due or channel is None or not channel.is_open:
            return
        last = 0
        while True:
            tag = self._low + 1
            if tag in due:
                due.discard(tag)
                last = tag
            elif tag in beyond:
                beyond.discard(tag)
            else:
                break
            self._low = tag
        if last:
            # One that was acknowledged before would be an unknown tag.
            channel.basic_ack(last, multiple=True)
        for tag in due:
            channel.basic_ack(tag)
        beyond |= due
        due.clear()


# Behind what it names: compiled, a field's type is looked at when the class is made.
class Arrival(NamedTuple):
    """A message from a queue."""

    consumer: Consumer
    ticket: Ticket
    redelivered: bool
    properties: Any
    body: bytes
