"""
A request's way through the daemon, whichever gateway it came by.

Handed over, awaited, answered exactly once, told to the journal; or answered
that the daemon is going down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Cancelled, DeliveryError, InternalError, ShuttingDown
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Server
from ..smtp.result import DeliveryResult, RecipientStatus
from .codec import Request
from .journal import Journal
from .reply import encode_error, encode_result

__all__ = ["Answer", "Deliverer", "Deliveries"]

#: Takes the reply to a request, a line without its end.
Answer = Callable[[bytes], None]

#: What is told of a fault of ours; its particulars are the log's alone.
FAULT: Final = "a fault of the daemon, whose log has the particulars"
SHUTTING_DOWN: Final = "the daemon is shutting down"

_log = Logger()


class Deliverer(Protocol):
    """What delivers: :class:`twisted_smtpclient.DeliveryAgent`, or a test's own."""

    def deliver(
        self, server: Server, envelope: Envelope, content: Content, *, reuse: bool = True
    ) -> Deferred[DeliveryResult]:
        """
        Deliver one mail.

        :param reuse: whether it may share a kept connection and leave one
            behind.
        :returns: a Deferred of the server's verdicts, which errbacks with a
            :class:`~twisted_smtpclient.errors.DeliveryError` for the lack of
            them, and on ``cancel()`` at once, with
            :class:`~twisted_smtpclient.errors.Cancelled`.
        """
        ...


class Deliveries:
    """
    The deliveries under way for all clients of a daemon.

    They belong to nobody else: a client that goes away takes none with it.

    :param deliverer: what delivers.
    :param clock: tells the seconds of the log, and when draining is over.
    :ivar draining: whether new requests are answered ShuttingDown.
    :ivar journal: tells the log of each that has ended.
    """

    def __init__(self, deliverer: Deliverer, clock: IReactorTime) -> None:
        self.deliverer = deliverer
        self.clock = clock
        # Bound once, not for each delivery.
        self.seconds = clock.seconds
        self.draining = False
        self.journal = Journal(clock)
        self._under_way: set[_Delivery] = set()
        self._drained: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Deliveries: {len(self._under_way)} under way{', draining' if self.draining else ''}>"

    def start(self, request: Request, answer: Answer) -> None:
        """
        Deliver what ``request`` asks for.

        :param answer: is called exactly once, with the reply; maybe before
            this returns.
        """
        if self.draining:
            answer(encode_error(request.id, ShuttingDown(SHUTTING_DOWN)))
            return
        delivery = _Delivery(self, request, answer)
        self._under_way.add(delivery)
        delivery.start()

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Take nothing more, and finish what is under way.

        :param seconds: what is under way after so long is cancelled, and
            answered ShuttingDown.
        :returns: fires when nothing is under way.
        """
        self.draining = True
        if not self._under_way:
            self.journal.flush()
            return succeed(None)
        drained: Deferred[None] = Deferred()
        end = self.clock.callLater(seconds, self._cancel_all)

        def stop_waiting(result: None) -> None:
            if end.active():
                end.cancel()

        self._drained.append(drained)
        return drained.addCallback(stop_waiting)

    def _cancel_all(self) -> None:
        _log.warn("{count} deliveries are cut off by the end of draining", count=len(self._under_way))
        for delivery in tuple(self._under_way):
            delivery.cut_off()

    def ended(self, delivery: _Delivery) -> None:
        """For a delivery to say: it is over."""
        self._under_way.discard(delivery)
        if self.draining and not self._under_way:
            # The reactor may have no further turn.
            self.journal.flush()
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)


class _Delivery:
    """One of them."""

    __slots__ = ("_answer", "_cut_off", "_deferred", "_deliveries", "_request", "_started")

    def __init__(self, deliveries: Deliveries, request: Request, answer: Answer) -> None:
        self._deliveries = deliveries
        self._request = request
        self._answer = answer
        self._cut_off = False
        self._started = deliveries.seconds()
        self._deferred: Deferred[DeliveryResult] | None = None

    def start(self) -> None:
        request = self._request
        try:
            self._deferred = deferred = self._deliveries.deliverer.deliver(
                request.server, request.envelope, request.content, reuse=request.reuse
            )
        except Exception:
            self._failed(Failure())
        else:
            deferred.addCallbacks(self._succeeded, self._failed)

    def cut_off(self) -> None:
        """The daemon's time is up: what is known now is what the client is told."""
        self._cut_off = True
        if self._deferred is not None:
            self._deferred.cancel()

    def _succeeded(self, result: DeliveryResult) -> None:
        try:
            reply = encode_result(self._request.id, result)
        except Exception:
            self._failed(Failure())
            return
        self._end(reply, result.recipients, None)

    def _failed(self, failure: Failure) -> None:
        error = self._error_in(failure)
        try:
            reply = encode_error(self._request.id, error)
        except Exception:
            error = _fault(Failure())
            reply = encode_error(self._request.id, error)
        self._end(reply, error.recipients, error)

    def _error_in(self, failure: Failure) -> DeliveryError:
        error = failure.value
        if self._cut_off and isinstance(error, (Cancelled, CancelledError)):
            told = ShuttingDown(SHUTTING_DOWN)
            told.recipients = getattr(error, "recipients", ())
            return told
        if isinstance(error, DeliveryError):
            return error
        return _fault(failure)

    def _end(self, reply: bytes, recipients: Sequence[RecipientStatus], error: DeliveryError | None) -> None:
        try:
            self._answer(reply)
        except Exception:
            _log.failure("a reply could not be given to its client")
        deliveries, request = self._deliveries, self._request
        seconds = deliveries.seconds() - self._started
        deliveries.journal.tell(request.server, request.envelope.sender, recipients, error, seconds)
        deliveries.ended(self)


def _fault(failure: Failure) -> InternalError:
    _log.failure("a delivery failed for a fault of this software", failure)
    return InternalError(FAULT)
