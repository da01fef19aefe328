"""
What is published, each with the broker's confirmation, through losses of the
connection.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..memory import Memory
from .backoff import Backoff
from .reason import reason_of

__all__ = ["Fate", "Publication", "Publisher"]

#: What the broker has in the place of a queue for a client's direct reply-to.
#: To it a message goes that is told to have found no queue, so nothing may ask.
_DIRECT: Final = "amq.rabbitmq.reply-to"

#: Octets of a publication beside its body: properties, headers, its record.
_RECORD: Final = 2048

_log = Logger(__name__)


class Fate(Enum):
    """What became of a publication."""

    CONFIRMED = "confirmed"
    #: No queue took it.
    RETURNED = "returned"
    #: The broker has closed the channel for it.
    REFUSED = "refused"


class Publication:
    """
    A message to publish.

    :param done: told what became of it, once.
    :ivar again: told before it is published once more, where the broker may have
        it already.
    :ivar mandatory: whether the broker is to say where no queue takes it.
    """

    __slots__ = (
        "again",
        "body",
        "cost",
        "done",
        "exchange",
        "mandatory",
        "properties",
        "returned",
        "routing_key",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str | bytes,
        body: bytes,
        properties: Any,
        done: Callable[[Fate], None],
        again: Callable[[], object] = bool,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.done = done
        self.again = again
        # A name that is not UTF-8 is octets.
        self.mandatory = bool(exchange) or not str(routing_key).startswith(_DIRECT)
        self.returned = False
        self.cost = _RECORD + len(body)

    def __repr__(self) -> str:
        return f"<Publication to {self.routing_key!r} by {self.exchange!r}, {len(self.body)} octets>"


class Publisher:
    """
    Publishes on a channel of its own, so that a fault there takes no request
    away that is under way.

    What was not confirmed when a channel closes is published again on the
    next, so the same outcome may come twice, with the same ``message_id``, and
    the same further try, which says so.
    How much there may be is the consumers' bound: an outcome for each request
    that is not acknowledged.

    :param memory: what it is counted in.
    """

    def __init__(self, clock: IReactorTime, memory: Memory) -> None:
        self._clock = clock
        self._memory = memory
        self._backoff = Backoff()
        self._connection: Any = None
        self._channel: Any = None
        self._reopening: IDelayedCall | None = None
        #: those that the broker could not take, until they are published again
        self._refusals: list[Publication] = []
        self._after_refusal: IDelayedCall | None = None
        self._waiting: deque[Publication] = deque()
        #: by the number of the confirmation, oldest first
        self._unconfirmed: OrderedDict[int, Publication] = OrderedDict()
        self._number = 0
        #: how many of those that wait, the first, are published one at a time
        self._suspects = 0
        #: whether nothing may be written to the default exchange
        self._forbidden = False
        self._blocked = False
        self._flushing = False

    def __repr__(self) -> str:
        state = "blocked" if self._blocked else "open" if self._channel is not None else "closed"
        return f"<Publisher: {state}, {len(self._waiting)} waiting, {len(self._unconfirmed)} unconfirmed>"

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unconfirmed) + len(self._refusals)

    def publish(self, publication: Publication) -> None:
        """Publish it, now or when the broker can be told."""
        self._memory.take(publication.cost)
        self._waiting.append(publication)
        self._flush()

    def attach(self, connection: Any) -> None:
        """There is a connection: open a channel on it."""
        self._connection = connection
        self._blocked = self._forbidden = False
        self._open()

    def detach(self) -> None:
        """There is none any more."""
        self._connection = None
        self._close()

    def stop(self) -> None:
        """Leave no delayed call behind."""
        self.detach()
        if self._after_refusal is not None:
            self._after_refusal.cancel()
            self._after_refusal = None

    def block(self, blocked: bool) -> None:
        """The broker wants nothing published, or takes it again."""
        self._blocked = blocked
        self._flush()

    # The channel.

    def _open(self) -> None:
        self._reopening = None
        if self._connection is not None:
            self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._selected(channel))

    def _selected(self, channel: Any) -> None:
        self._channel = channel
        self._number = 0
        self._flush()

    def _closed(self, channel: Any, reason: Exception) -> None:
        suspects = len(self._unconfirmed)
        self._close()
        if self._connection is None or not self._connection.is_open or self._reopening is not None:
            return
        delay = self._backoff.next()
        _log.error(
            "amqp: the broker has closed the channel for outcomes, which are kept and published "
            "in {delay:.0f} s: {reason}",
            delay=delay,
            reason=reason_of(reason),
        )
        self._reopening = self._clock.callLater(delay, self._open)
        if suspects == 1:
            self._is_at_fault(reason)
        else:
            self._suspects = max(self._suspects, suspects)

    def _is_at_fault(self, reason: Exception) -> None:
        """The channel was closed for the first of those that wait."""
        publication = self._waiting.popleft()
        self._suspects = max(0, self._suspects - 1)
        code = getattr(reason, "reply_code", 0)
        # Too large (406), or to a queue that somebody has named and to which we
        # may not write (403).  Exchanges are the operator's, who is waited for.
        self._forbidden |= code == 403 and not publication.exchange
        if code == 406 or self._is_forbidden(publication):
            self._settle([publication], Fate.REFUSED)
        else:
            self._waiting.append(publication)

    def _is_forbidden(self, publication: Publication) -> bool:
        return self._forbidden and not publication.exchange

    def _close(self) -> None:
        self._channel = None
        if self._reopening is not None and self._reopening.active():
            self._reopening.cancel()
        self._reopening = None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        for publication in self._unconfirmed.values():
            publication.returned = False
            publication.again()
        self._unconfirmed.clear()

    # What goes out, and what comes of it.

    def _flush(self) -> None:
        # Who is told that one was refused publishes another in its place: thousands
        # may wait, and each would be a call inside of the one before.
        if self._flushing:
            return
        self._flushing = True
        try:
            self._publish_waiting()
        finally:
            self._flushing = False

    def _publish_waiting(self) -> None:
        waiting, channel = self._waiting, self._channel
        while waiting and channel is not None and channel.is_open and not self._blocked:
            if self._suspects and self._unconfirmed:
                return
            publication = waiting.popleft()
            if self._is_forbidden(publication):
                self._suspects = max(0, self._suspects - 1)
                self._settle([publication], Fate.REFUSED)
                continue
            self._number += 1
            self._unconfirmed[self._number] = publication
            channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.body,
                publication.properties,
                mandatory=publication.mandatory,
            )

    def _returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        # Which one it was is not said.  But they come in the order in which they
        # were published, and an outcome has a name that no other has.
        for publication in self._unconfirmed.values():
            if (
                publication.exchange == method.exchange
                and publication.routing_key == method.routing_key
                and publication.properties.message_id == properties.message_id
                and not publication.returned
            ):
                publication.returned = True
                return

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        number, unconfirmed = method.delivery_tag, self._unconfirmed
        if method.multiple:
            settled = []
            while unconfirmed and next(iter(unconfirmed)) <= number:
                settled.append(unconfirmed.popitem(last=False)[1])
        else:
            one = unconfirmed.pop(number, None)
            settled = [] if one is None else [one]
        self._suspects = max(0, self._suspects - len(settled))
        if method.NAME == "Basic.Nack":
            self._refused(settled)
        else:
            self._backoff.reset()
            self._settle(settled, Fate.CONFIRMED)
        if self._waiting:
            self._flush()

    def _settle(self, settled: Sequence[Publication], fate: Fate) -> None:
        for publication in settled:
            self._memory.give_back(publication.cost)
            publication.done(Fate.RETURNED if publication.returned else fate)

    def _refused(self, refused: list[Publication]) -> None:
        self._refusals += refused
        if self._after_refusal is None:
            delay = self._backoff.next()
            _log.error(
                "amqp: the broker could not take an outcome (a queue is full, or it has a fault); such "
                "are kept and published again in {delay:.0f} s",
                delay=delay,
            )
            self._after_refusal = self._clock.callLater(delay, self._publish_refused)

    def _publish_refused(self) -> None:
        self._after_refusal = None
        refused, self._refusals = self._refusals, []
        for publication in refused:
            publication.returned = False
        self._waiting.extend(refused)
        self._flush()
