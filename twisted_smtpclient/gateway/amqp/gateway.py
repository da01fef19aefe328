"""
Requests from RabbitMQ: the daemon's other gateway.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ...errors import DeliveryError, RequestTooLarge
from ..codec import AnyRequest, ProbeRequest, Rejection, Request, RequestDecoder
from ..complaint import id_at_the_start
from ..delivery import Deliveries
from ..reply import wire_name
from ..under_way import Tell
from .consumer import PREFETCH, Arrival, Consumer
from .identity import Known
from .job import Job
from .publisher import Publisher
from .retries import Retries

__all__ = ["LINGER", "AMQPGateway"]

#: Seconds for the broker to confirm what is left, when the daemon goes down.
LINGER: Final = 2.0

#: Octets at the start of a request that is too large, in which its id is looked for.
_HEAD: Final = 1024

_log = Logger(__name__)


class AMQPGateway:
    """
    Takes requests from queues, hands them over, publishes what became of them.

    Of each queue at most ``prefetch`` requests have no confirmed outcome; as
    many again may have come, after the connection was lost, and wait.  So its
    outcomes too are bounded while there is no connection.

    :param deliveries: takes the requests.
    :param clock: for time.
    :param queues: where requests come from.
    :param prefetch: requests of each that are not acknowledged.
    :param replies: the exchange for outcomes of requests that name no queue
        for theirs; None has those told by the log alone.
    :param retries: whether and when there is another try.
    :param redelivered_is_in_doubt: whether a request that the broker has given
        out before, to who knows whom, is answered in doubt, not delivered.
    :param max_request: octets of a request.
    :param now: seconds since 1970.
    :ivar retried: how many were published for a further try.
    :ivar dead_lettered: of how many no queue took the outcome.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        clock: IReactorTime,
        queues: Sequence[str],
        *,
        max_request: int,
        prefetch: int = PREFETCH,
        replies: str | None = None,
        retries: Retries = Retries(),  # noqa: B008  # it does not change
        redelivered_is_in_doubt: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.replies = replies
        self.retries = retries
        self.redelivered_is_in_doubt = redelivered_is_in_doubt
        self.now = now
        self.memory = deliveries.memory
        self.known = Known(self.memory)
        self.publisher = Publisher(clock, self.memory)
        self.consumers = [Consumer(queue, prefetch, clock, self.arrived) for queue in queues]
        self.retried = 0
        self.dead_lettered = 0
        self._deliveries = deliveries
        self._clock = clock
        self._max_request = max_request
        self._decode = RequestDecoder().decode
        self._name = uuid4().hex
        self._named = 0
        self._consumed = 0
        self._redelivered = 0
        self._connections = 0
        self._connected = False
        self._blocked = False
        self._jobs: dict[str, int] = dict.fromkeys(queues, 0)
        self._prefetch = prefetch
        #: by queue, those that have come and for which there is no room yet
        self._waiting: dict[str, deque[Arrival]] = {queue: deque() for queue in queues}
        self._at_rest: Deferred[None] | None = None
        self._end: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<AMQPGateway: {self.under_way} under way, {self.waiting} waiting, {self.publisher}>"

    @property
    def under_way(self) -> int:
        """Requests begun whose outcome the broker has not confirmed."""
        return sum(self._jobs.values())

    @property
    def waiting(self) -> int:
        """Requests that have come and are not begun."""
        return sum(map(len, self._waiting.values()))

    # The connection comes and goes.

    def attach(self, connection: Any) -> None:
        """There is a connection to the broker: pika's, open."""
        self._connections += 1
        self._connected = True
        connection.add_on_connection_blocked_callback(self._block)
        connection.add_on_connection_unblocked_callback(self._unblock)
        self.publisher.attach(connection)
        for consumer in self.consumers:
            consumer.attach(connection)

    def detach(self) -> None:
        """It has gone.  What is under way goes on; what was not begun comes again."""
        self._connected = self._blocked = False
        for waiting in self._waiting.values():
            waiting.clear()
        self.memory.wait_no_more(self._go_on)
        for consumer in self.consumers:
            consumer.detach()
        self.publisher.detach()
        self._rest()

    def _block(self, _: Any, frame: Any) -> None:
        _log.warn("amqp: the broker wants nothing published: {reason}", reason=frame.method.reason)
        self._blocked = True
        self.publisher.block(True)

    def _unblock(self, _: Any, __: Any) -> None:
        _log.info("amqp: the broker goes on")
        self._blocked = False
        self.publisher.block(False)
        self._go_on()

    # Requests.

    def arrived(self, arrival: Arrival) -> None:
        """A request has come."""
        self._consumed += 1
        self._redelivered += arrival.redelivered
        queue = arrival.consumer.queue
        waiting = self._waiting[queue]
        if waiting or not self._has_room_for(queue):
            waiting.append(arrival)
            self._wait()
        else:
            self._begin(arrival)

    def _has_room_for(self, queue: str) -> bool:
        if self._deliveries.draining:
            # It goes back, which takes no room for long.
            return True
        return self._jobs[queue] < self._prefetch and not self._blocked and self.memory.has_room()

    def _wait(self) -> None:
        # Who waits for less than memory is told when a request ends.
        if not self.memory.has_room():
            self.memory.wait(self._go_on)

    def _go_on(self) -> None:
        for queue, waiting in self._waiting.items():
            while waiting and self._has_room_for(queue):
                arrival = waiting.popleft()
                if arrival.consumer.has(arrival.ticket):
                    self._begin(arrival)
            if waiting:
                self._wait()

    def _begin(self, arrival: Arrival) -> None:
        job = Job(self, arrival)
        self._jobs[arrival.consumer.queue] += 1
        self.memory.take(job.cost)
        job.begin()

    # For a job to say.

    def decode(self, body: bytes) -> AnyRequest | Rejection:
        """The request that a message is."""
        if len(body) > self._max_request:
            error = RequestTooLarge(f"expected a request of at most {self._max_request} octets")
            return Rejection(id_at_the_start(body[:_HEAD]), error)
        return self._decode(body)

    def deliver(self, request: Request | ProbeRequest, tell: Tell) -> None:
        """Hand it over."""
        self._deliveries.tell(request, tell, self)

    def next_message_id(self) -> str:
        """A name for an outcome, which no other has."""
        # A UUID for each would be all of them random, at ten times the price.
        self._named += 1
        return f"{self._name}-{self._named}"

    def reject(self, error: DeliveryError) -> None:
        """A request was none."""
        self._deliveries.rejected[wire_name(error)] += 1

    def ended(self, job: Job, queue: str) -> None:
        """The broker has what became of it."""
        self._jobs[queue] -= 1
        self.memory.give_back(job.cost)
        self._go_on()
        self._rest()

    # The end.

    def stop_taking(self) -> None:
        """The daemon drains: take nothing more."""
        for consumer in self.consumers:
            consumer.stop()

    def finish(self) -> Deferred[None]:
        """
        Have the broker confirm what is left, once nothing is under way.

        :returns: fires when it has, or after :data:`LINGER` seconds.
        """
        self.stop_taking()
        self._go_on()
        at_rest: Deferred[None] = Deferred()
        self._at_rest = at_rest
        self._end = self._clock.callLater(LINGER, self._give_up)
        self._rest()
        return at_rest.addCallback(self._stop)

    def _rest(self) -> None:
        if self._at_rest is not None and not len(self.publisher):
            at_rest, self._at_rest = self._at_rest, None
            at_rest.callback(None)

    def _give_up(self) -> None:
        _log.error(
            "amqp: {count} outcomes could not be published; the broker gives their requests out again",
            count=len(self.publisher),
        )
        at_rest, self._at_rest = self._at_rest, None
        if at_rest is not None:
            at_rest.callback(None)

    def _stop(self, _: None) -> None:
        if self._end is not None and self._end.active():
            self._end.cancel()
        for consumer in self.consumers:
            consumer.flush()
        self.publisher.stop()
        self.known.forget()

    def state(self) -> dict[str, float]:
        """How it stands, by the names of the daemon's metrics."""
        return {
            "amqp_connected": int(self._connected),
            "amqp_blocked": int(self._blocked),
            "amqp_consuming": sum(consumer.consuming for consumer in self.consumers),
            "amqp_under_way": self.under_way,
            "amqp_waiting": self.waiting,
            "amqp_unconfirmed": len(self.publisher),
            "amqp_consumed": self._consumed,
            "amqp_acknowledged": sum(consumer.acknowledged for consumer in self.consumers),
            "amqp_redelivered": self._redelivered,
            "amqp_retried": self.retried,
            "amqp_dead_lettered": self.dead_lettered,
            "amqp_reconnects": max(0, self._connections - 1),
        }
