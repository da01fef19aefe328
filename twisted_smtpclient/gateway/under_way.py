"""
One request under way, whichever gateway it came by: handed over, awaited,
answered exactly once, told to the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Cancelled, DeadlineExceeded, DeliveryError, InternalError
from ..smtp.probe import Probe
from ..smtp.result import DeliveryResult, RecipientStatus
from ..smtp.trace import MAX_TRANSCRIPT, Trace
from .codec import ProbeRequest, Request
from .reply import Ask, encode_error, encode_probe, encode_result

if TYPE_CHECKING:
    from .delivery import Deliveries

__all__ = [
    "FAULT",
    "Answer",
    "Delivering",
    "Ended",
    "Probing",
    "Tell",
    "UnderWay",
]

#: Takes the reply to a request, a line without its end.
Answer = Callable[[bytes], None]


class Ended(NamedTuple):
    """
    What became of a request, where that is wanted as it is and not as a line.

    :ivar outcome: the result, or why there is none.
    :ivar ask: what the reply is to tell besides.
    """

    outcome: DeliveryResult | Probe | DeliveryError
    ask: Ask | None


#: Takes what became of a request.
Tell = Callable[[Ended], None]

#: What is told of a fault of ours; its particulars are the log's alone.
FAULT: Final = "a fault of the daemon, whose log has the particulars"

#: Octets of a request that is under way, beside its message and its recipients:
#: some twenty objects, from the request to its transaction.
REQUEST: Final = 4096
#: Octets of an id beyond which they are counted: those of one client's 1000
#: requests are 60 KiB without.
ID: Final = 64
#: Of a recipient: its address, its RCPT command, its status, its reply.
RECIPIENT: Final = 512

_log = Logger(__name__)


class UnderWay:
    """
    A request under way, whatever it asks for.

    :param answer: takes the reply, a line without its end; or, with
        ``as_it_is``, the outcome.
    :ivar client: whose it is, and who may cancel it.
    :ivar request: what was asked.
    :ivar trace: where its time went; None where nobody wants to know.
    :ivar cost: octets that it takes up.
    """

    __slots__ = (
        "_answer", "_as_it_is", "_awaited", "_deliveries", "_end", "_reason", "_started",
        "client", "cost", "request", "trace",
    )  # fmt: skip

    def __init__(
        self,
        deliveries: Deliveries,
        request: Request | ProbeRequest,
        answer: Answer | Tell,
        client: object,
        *,
        as_it_is: bool = False,
    ) -> None:
        self.client: object = client
        self.cost: int = REQUEST + _extra_of(request)
        self.request: Request | ProbeRequest = request
        self.trace: Trace | None = None
        self._deliveries: Deliveries = deliveries
        self._answer: Callable[[Any], None] = answer
        self._as_it_is: bool = as_it_is
        self._started = deliveries.seconds()
        #: what it waits for, in the way of a Deferred
        self._awaited: Any = None
        #: why it was cut off
        self._reason: DeliveryError | None = None
        self._end: IDelayedCall | None = None

    def start(self) -> None:
        """Hand it over."""
        request = self.request
        if request.trace or request.transcript or self._deliveries.wants_sample:
            self._deliveries.wants_sample = False
            self.trace = Trace(transcript=request.transcript)
        try:
            self._awaited = awaited = self._hand_over()
        except Exception:
            self._failed(Failure())
            return
        if request.deadline is not None:
            late = DeadlineExceeded(f"not done within {request.deadline:g} s")
            self._end = self._deliveries.clock.callLater(request.deadline, self._is_late, late)
        awaited.addCallbacks(self._succeeded, self._failed)

    def cut_off(self, reason: DeliveryError) -> None:
        """End it now; the client is told ``reason``, and what is known by then."""
        self._reason = reason
        if self._awaited is not None:
            self._awaited.cancel()

    def _is_late(self, late: DeliveryError) -> None:
        self._end = None
        self.cut_off(late)

    def _hand_over(self) -> Any:
        raise NotImplementedError

    def _encoded(self, outcome: Any, ask: Ask | None) -> Any:
        raise NotImplementedError

    def _encoded_error(self, error: DeliveryError, ask: Ask | None) -> Any:
        return Ended(error, ask) if self._as_it_is else encode_error(self.request.id, error, ask)

    def _told(
        self, recipients: Sequence[RecipientStatus], error: DeliveryError | None, seconds: float
    ) -> None:
        """Tell the journal."""
        raise NotImplementedError

    def _succeeded(self, outcome: Any) -> None:
        try:
            reply = Ended(outcome, self._ask()) if self._as_it_is else self._encoded(outcome, self._ask())
        except Exception:
            self._failed(Failure())
            return
        self._settle(reply, getattr(outcome, "recipients", ()), None)

    def _failed(self, failure: Failure) -> None:
        error = self._error_in(failure)
        try:
            reply = self._encoded_error(error, self._ask())
        except Exception:
            error = _fault(Failure())
            reply = self._encoded_error(error, None)
        self._settle(reply, error.recipients, error)

    def _error_in(self, failure: Failure) -> DeliveryError:
        error = failure.value
        if self._reason is not None and isinstance(error, (Cancelled, CancelledError)):
            return self._reason.concerning(getattr(error, "recipients", ()))
        if isinstance(error, DeliveryError):
            return error
        return _fault(failure)

    def _ask(self) -> Ask | None:
        request = self.request
        if self.trace is None or not (request.trace or request.transcript):
            return None
        return Ask(self.trace, request.trace)

    def _settle(self, reply: Any, recipients: Sequence[RecipientStatus], error: DeliveryError | None) -> None:
        if self._end is not None:
            self._end.cancel()
        try:
            self._answer(reply)
        except Exception:
            _log.failure("a reply could not be given to its client")
        deliveries = self._deliveries
        self._told(recipients, error, deliveries.seconds() - self._started)
        deliveries.ended(self)


class Delivering(UnderWay):
    """A mail."""

    __slots__ = ("_mail",)

    def __init__(
        self,
        deliveries: Deliveries,
        request: Request,
        answer: Answer | Tell,
        client: object,
        *,
        as_it_is: bool = False,
    ) -> None:
        super().__init__(deliveries, request, answer, client, as_it_is=as_it_is)
        #: the request, as what it is
        self._mail = request
        content = request.content
        # In the form of the wire it is another copy, where that differs.
        copies = 1 if content.size == len(content.message) else 2
        self.cost += copies * content.size + RECIPIENT * len(request.envelope.recipients)

    def _hand_over(self) -> Any:
        request, deliveries = self._mail, self._deliveries
        if request.key is not None:
            return deliveries.keys.deliver(request.key, request, self.trace, lambda: self._reason)
        return deliveries.begin(
            request.server, request.envelope, request.content, reuse=request.reuse, trace=self.trace
        )

    def _encoded(self, outcome: DeliveryResult, ask: Ask | None) -> Any:
        return encode_result(self._mail.id, outcome, ask)

    def _told(
        self, recipients: Sequence[RecipientStatus], error: DeliveryError | None, seconds: float
    ) -> None:
        request, journal = self._mail, self._deliveries.journal
        journal.tell(request.server, request.envelope.sender, recipients, error, seconds, self.trace)


class Probing(UnderWay):
    """A look at a server."""

    __slots__ = ()

    def _hand_over(self) -> Any:
        return self._deliveries.deliverer.probe(self.request.server, trace=self.trace)

    def _encoded(self, outcome: Probe, ask: Ask | None) -> Any:
        return encode_probe(self.request.id, outcome, ask)

    def _told(
        self, recipients: Sequence[RecipientStatus], error: DeliveryError | None, seconds: float
    ) -> None:
        self._deliveries.journal.tell_probe(self.request.server, error, seconds)


def _extra_of(request: Request | ProbeRequest) -> int:
    """Octets that few requests have."""
    extra = MAX_TRANSCRIPT if request.transcript else 0
    if type(request.id) is str and len(request.id) > ID:
        extra += len(request.id) if request.id.isascii() else 4 * len(request.id)
    return extra


def _fault(failure: Failure) -> InternalError:
    _log.failure("a delivery failed for a fault of this software", failure)
    return InternalError(FAULT)
