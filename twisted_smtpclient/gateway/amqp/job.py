"""
One request from a queue: from its arrival to its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from pika import BasicProperties
from twisted.logger import Logger

from ...errors import ConnectionLost, DeliveryError, InternalError, InvalidRequest, ShuttingDown
from ...smtp.probe import Probe
from ...smtp.result import DeliveryResult, RecipientStatus, Status
from ..codec import CancelRequest, ProbeRequest, Rejection, Request
from ..delivery import FAULT
from ..reply import Ask, encode_error, encode_probe, encode_result
from ..schema import RequestId
from ..under_way import Ended
from .consumer import Arrival, Ticket
from .identity import Identity
from .outcome import Outcome, State, merge, outstanding
from .progress import OUTCOME, REDELIVERED, Progress, carried, read
from .properties import PERSISTENT, OutcomeProperties
from .publisher import Fate, Publication
from .topology import RETRY_EXCHANGE, dead_queue, retry_key

if TYPE_CHECKING:
    from .gateway import AMQPGateway

__all__ = ["Job"]

_log = Logger(__name__)

#: Octets of properties and headers: they are one frame, by default of 131,072
#: octets with its own eight.
_MOST_HEADERS: Final = 130_000


class Job:
    """
    One request at one try.

    :ivar cost: octets of its body, which is kept for a further try.
    """

    __slots__ = (
        "_arrival", "_envelope", "_gateway", "_id", "_identity", "_progress", "_redelivered",
        "_tried", "cost", "tickets",
    )  # fmt: skip

    def __init__(self, gateway: AMQPGateway, arrival: Arrival) -> None:
        self._gateway = gateway
        self._arrival = arrival
        self._id: RequestId = UNSET
        self._identity: Identity | None = None
        self._progress = Progress(1, gateway.now())
        self._envelope: Any = None
        self._tried: Sequence[int] = ()
        #: Whether another process may have delivered it, now or in an earlier try,
        #: or it may have been published twice for this one.
        self._redelivered = arrival.redelivered
        #: What it came by: again and again, where connections were lost.
        self.tickets: list[Ticket] = [arrival.ticket]
        self.cost = len(arrival.body)

    def __repr__(self) -> str:
        return f"<Job: try {self._progress.attempt} of {self._arrival.properties.message_id!r}>"

    def begin(self) -> None:
        """Look at it, and hand it over, join it to another, or answer it."""
        gateway, arrival = self._gateway, self._arrival
        try:
            request = gateway.decode(arrival.body)
            if isinstance(request, Rejection):
                self._id = request.id
                raise request.error
            self._id = request.id
            if isinstance(request, CancelRequest):
                raise InvalidRequest("is for requests on one connection, and a queue is none", "cancel")
            self._progress = read(arrival.properties.headers, gateway.now())
            self._redelivered |= self._progress.redelivered
            if isinstance(request, Request):
                request = self._remaining(request)
            elif self._progress.verdicts:
                raise InvalidRequest("expected a mail, of which the headers tell verdicts")
        except DeliveryError as error:
            gateway.reject(error)
            self._answer(Outcome.INVALID, encode_error(self._id, error))
            return
        except Exception:
            _log.failure("a request could not be read for a fault of this software")
            self._answer(Outcome.PERMANENT, encode_error(self._id, InternalError(FAULT)))
            return
        if self._is_known(request):
            return
        if self._redelivered and gateway.redelivered_is_in_doubt and isinstance(request, Request):
            self._tell_doubt()
            return
        gateway.deliver(request, self._told)

    def _remaining(self, request: Request) -> Request:
        """The request for those recipients only whose turn it is."""
        progress, envelope = self._progress, request.envelope
        self._envelope = envelope
        recipients = envelope.recipients
        if not progress.verdicts:
            self._tried = range(len(recipients))
            return request
        if [entry.recipient for entry in progress.verdicts] != [entry.address for entry in recipients]:
            raise InvalidRequest("expected a verdict for each recipient", "x-smtpclient-verdicts")
        self._tried = outstanding(progress.verdicts, in_doubt=self._gateway.retries.in_doubt)
        if not self._tried:
            raise InvalidRequest("expected a recipient that needs another try", "x-smtpclient-verdicts")
        if len(self._tried) < len(recipients):
            request.envelope = envelope.part([recipients[place] for place in self._tried])
            if request.key is not None:
                # With fewer recipients it is another request, and every further
                # one of this key, with the same left, is the same as this.
                left = sha256(repr(list(self._tried)).encode()).hexdigest()
                request.key = f"{request.key}\0{left}"
        return request

    def _is_known(self, request: Request | ProbeRequest) -> bool:
        """Whether this process has it under way or has finished it."""
        properties = self._arrival.properties
        name = properties.message_id or (request.key if isinstance(request, Request) else None)
        if not name:
            return False
        queue = self._arrival.consumer.queue
        self._identity = identity = Identity(queue, name, self._progress.attempt, hash(self._arrival.body))
        known = self._gateway.known.get(identity) if self._redelivered else None
        if known is None:
            self._gateway.known.begins(identity, self)
            return False
        self._identity = None
        if isinstance(known, Job):
            known.tickets += self.tickets
        else:
            self._acknowledge()
        self._gateway.ended(self, self._arrival.consumer.queue)
        return True

    def _tell_doubt(self) -> None:
        unknown = [
            RecipientStatus(self._envelope.recipients[place].address, Status.UNKNOWN, in_doubt=True)
            for place in self._tried
        ]
        error = ConnectionLost("delivered by the broker once more, and another process may have sent it")
        self._ended(Ended(error.concerning(unknown), None))

    # What became of it.

    def _told(self, ended: Ended) -> None:
        try:
            self._ended(ended)
        except Exception:
            _log.failure("an outcome could not be told for a fault of this software")
            # The mail may have gone; only the log knows.
            self._answer(Outcome.INDOUBT, encode_error(self._id, InternalError(FAULT)))

    def _ended(self, ended: Ended) -> None:
        outcome, ask = ended
        if isinstance(outcome, Probe):
            self._answer(Outcome.OK, encode_probe(self._id, outcome, ask))
            return
        if self._envelope is None:
            assert isinstance(outcome, DeliveryError)
            word = Outcome.TEMPORARY if outcome.temporary else Outcome.PERMANENT
            self._answer(word, encode_error(self._id, outcome, ask))
            return
        if isinstance(outcome, DeliveryResult) and outcome.all_ok and not self._progress.verdicts:
            # Most are, and there is nothing to merge.
            self._answer(Outcome.OK, encode_result(self._id, outcome, ask, redelivered=self._redelivered))
            return
        gateway, recipients = self._gateway, self._envelope.recipients
        state = merge(
            self._progress.verdicts,
            self._tried,
            [entry.address for entry in recipients],
            outcome,
            retry_in_doubt=gateway.retries.in_doubt,
        )
        if state.again and self._try_again(state):
            return
        self._tell(state, ask)

    def _tell(self, state: State, ask: Ask | None) -> None:
        told = state.told(self._envelope.sender)
        if isinstance(told, DeliveryError):
            body = encode_error(self._id, told, ask, redelivered=self._redelivered)
        else:
            body = encode_result(self._id, told, ask, redelivered=self._redelivered)
        self._answer(state.outcome, body)

    def _try_again(self, state: State) -> bool:
        """Publish the request for a further try; False where there is none."""
        gateway, arrival, progress = self._gateway, self._arrival, self._progress
        if isinstance(state.error, ShuttingDown):
            # Not tried, and not to wait either: another process takes it.
            verdicts = state.recipients if state.known else ()
            following = Progress(progress.attempt, progress.first_seen, verdicts, self._redelivered)
            exchange, key = "", arrival.consumer.queue
        else:
            delay = gateway.retries.delay(progress, gateway.now())
            if delay is None:
                return False
            following = Progress(
                progress.attempt + 1, progress.first_seen, state.recipients, self._redelivered
            )
            exchange, key = RETRY_EXCHANGE, retry_key(arrival.consumer.queue, delay)
        properties = self._properties_of(following)
        if properties is None:
            _log.error(
                "amqp: {message_id!r} from {queue} is not tried again: its headers are over {most} octets, "
                "or cannot be written",
                message_id=arrival.properties.message_id,
                queue=arrival.consumer.queue,
                most=_MOST_HEADERS,
            )
            return False

        def published(fate: Fate) -> None:
            if fate is Fate.CONFIRMED:
                gateway.retried += not isinstance(state.error, ShuttingDown)
                self._finish()
                return
            if fate is Fate.REFUSED and isinstance(state.error, ShuttingDown):
                # The broker gives it out again itself, when we have gone.
                self._leave()
                return
            _log.error(
                "amqp: no queue takes {key!r} by {exchange!r} for a further try, so there is none; "
                "python -m twisted_smtpclient amqp-setup declares what is needed",
                key=key,
                exchange=exchange,
            )
            self._tell(state, None)

        def again() -> None:
            properties.headers[REDELIVERED] = True

        gateway.publisher.publish(Publication(exchange, key, arrival.body, properties, published, again))
        return True

    def _properties_of(self, following: Progress) -> BasicProperties | None:
        headers = following.headers()
        if headers is None:
            return None
        given = self._arrival.properties
        properties = BasicProperties(
            content_type=given.content_type,
            content_encoding=given.content_encoding,
            headers={**carried(given.headers), **headers},
            delivery_mode=PERSISTENT,
            correlation_id=given.correlation_id,
            reply_to=given.reply_to,
            message_id=given.message_id,
            timestamp=given.timestamp,
            type=given.type,
            app_id=given.app_id,
        )
        try:
            octets = sum(map(len, properties.encode()))
        except Exception:
            # A header of a kind that pika reads and does not write.
            return None
        return properties if octets <= _MOST_HEADERS else None

    def _answer(self, outcome: Outcome, body: bytes) -> None:
        """Publish the outcome."""
        given, gateway = self._arrival.properties, self._gateway
        if given.reply_to:
            exchange, key = "", given.reply_to
        elif gateway.replies is not None:
            exchange, key = gateway.replies, outcome.value
        else:
            self._finish()
            return
        properties = OutcomeProperties(
            outcome.value,
            given.correlation_id or given.message_id,
            gateway.next_message_id(),
            self._progress.attempt,
            int(self._progress.first_seen),
        )

        def published(fate: Fate) -> None:
            if fate is Fate.CONFIRMED:
                self._finish()
            else:
                self._keep(outcome, exchange, key, body, properties)

        gateway.publisher.publish(Publication(exchange, key, body, properties, published))

    def _keep(
        self, outcome: Outcome, exchange: str, key: str | bytes, body: bytes, properties: BasicProperties
    ) -> None:
        """No queue has taken the outcome: put it where an operator finds it."""
        gateway, queue = self._gateway, self._arrival.consumer.queue
        dead = dead_queue(queue)
        gateway.dead_lettered += 1
        properties.headers = {**properties.headers, OUTCOME: f"{outcome.value} for {key!r} by {exchange!r}"}

        def published(fate: Fate) -> None:
            if fate is not Fate.CONFIRMED:
                _log.error("amqp: nor does {dead}; the outcome is {body!r}", dead=dead, body=body.decode())
            self._finish()

        _log.error(
            "amqp: no queue takes the outcome {outcome} of {message_id!r} from {queue}, sent to {key!r} by "
            "{exchange!r}; it goes to {dead}",
            outcome=outcome.value,
            message_id=self._arrival.properties.message_id,
            queue=queue,
            key=key,
            exchange=exchange,
            dead=dead,
        )
        gateway.publisher.publish(Publication("", dead, body, properties, published))

    def _finish(self) -> None:
        """The broker has the outcome, or the next try: it may forget the request."""
        if self._identity is not None:
            self._gateway.known.ends(self._identity, self, finished=True)
        self._acknowledge()
        self._gateway.ended(self, self._arrival.consumer.queue)

    def _leave(self) -> None:
        """The broker has the request, and is to keep it."""
        if self._identity is not None:
            self._gateway.known.ends(self._identity, self, finished=False)
        self._gateway.ended(self, self._arrival.consumer.queue)

    def _acknowledge(self) -> None:
        for ticket in self.tickets:
            self._arrival.consumer.acknowledge(ticket)
