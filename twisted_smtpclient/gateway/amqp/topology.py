"""
The queues and exchanges that there have to be, as they are declared.

For a queue ``mail``::

    mail                 requests
    mail.retry.60        those that wait for 60 s, then dead-letter to ``mail``
    mail.dead            what nobody took: outcomes, and requests that were
                         given out too often
    smtpclient.retry     to the queue of a delay, by key ``mail.60``
    smtpclient.return    the dead-letter exchange: back to ``mail``, by its name
    smtpclient.dead      likewise to ``mail.dead``
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks

from .outcome import Outcome

__all__ = [
    "DEAD_EXCHANGE",
    "RETRY_EXCHANGE",
    "RETURN_EXCHANGE",
    "Binding",
    "Exchange",
    "Queue",
    "dead_queue",
    "declare",
    "retry_key",
    "topology",
]

RETRY_EXCHANGE: Final = "smtpclient.retry"
RETURN_EXCHANGE: Final = "smtpclient.return"
DEAD_EXCHANGE: Final = "smtpclient.dead"

#: Times that the broker gives a request out again before it takes it for one
#: that ends whoever gets it.  Each loss of a connection is one, so not few.
DELIVERY_LIMIT: Final = 100

#: Durable and replicated, where the broker is a cluster.
_QUORUM: Final = {"x-queue-type": "quorum"}
#: What is dead-lettered is confirmed by the queue that takes it, too.
_SAFELY: Final = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


class Exchange(NamedTuple):
    """A durable direct exchange."""

    name: str


class Queue(NamedTuple):
    """A durable quorum queue."""

    name: str
    arguments: dict[str, Any]


class Binding(NamedTuple):
    """What leads from an exchange to a queue."""

    queue: str
    exchange: str
    key: str


Declaration = Exchange | Queue | Binding


def dead_queue(queue: str) -> str:
    """Where what nobody took of ``queue`` ends."""
    return f"{queue}.dead"


def retry_key(queue: str, delay: int) -> str:
    """The key of a request that is to come back to ``queue`` after ``delay`` seconds."""
    return f"{queue}.{delay}"


def topology(
    queues: Sequence[str],
    delays: Sequence[int],
    *,
    replies: str | None = None,
    outcome_queues: Sequence[tuple[str, Sequence[Outcome]]] = (),
) -> list[Declaration]:
    """
    All that is declared, each behind what it needs.

    :param queues: those of requests.
    :param delays: seconds, a queue for each.
    :param replies: the exchange for outcomes.
    :param outcome_queues: queues to bind to it, and for which outcomes.
    """
    declared: list[Declaration] = [
        Exchange(name) for name in (RETRY_EXCHANGE, RETURN_EXCHANGE, DEAD_EXCHANGE)
    ]
    for queue in queues:
        dead_letter = {"x-dead-letter-exchange": DEAD_EXCHANGE, "x-dead-letter-routing-key": queue}
        declared += [
            Queue(dead_queue(queue), dict(_QUORUM)),
            Binding(dead_queue(queue), DEAD_EXCHANGE, queue),
            Queue(queue, {**_QUORUM, **_SAFELY, **dead_letter, "x-delivery-limit": DELIVERY_LIMIT}),
            Binding(queue, RETURN_EXCHANGE, queue),
        ]
        back = {"x-dead-letter-exchange": RETURN_EXCHANGE, "x-dead-letter-routing-key": queue}
        for delay in dict.fromkeys(delays):
            name = f"{queue}.retry.{delay}"
            declared += [
                Queue(name, {**_QUORUM, **_SAFELY, **back, "x-message-ttl": delay * 1000}),
                Binding(name, RETRY_EXCHANGE, retry_key(queue, delay)),
            ]
    if replies is not None:
        declared.append(Exchange(replies))
        for name, outcomes in outcome_queues:
            declared.append(Queue(name, dict(_QUORUM)))
            declared += [Binding(name, replies, outcome.value) for outcome in outcomes]
    return declared


@inlineCallbacks
def declare(
    channel: Any, declarations: Sequence[Declaration], tell: Callable[[Declaration], object]
) -> Generator[Deferred[Any], Any, None]:
    """
    Declare all of it, one behind the other.

    :param channel: a ``TwistedChannel``, which a refusal closes.
    :param tell: called with each that is there now.
    """
    for each in declarations:
        if isinstance(each, Exchange):
            yield channel.exchange_declare(each.name, "direct", durable=True)
        elif isinstance(each, Queue):
            yield channel.queue_declare(each.name, durable=True, arguments=each.arguments)
        else:
            yield channel.queue_bind(each.queue, each.exchange, each.key)
        tell(each)
