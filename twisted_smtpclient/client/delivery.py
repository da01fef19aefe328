"""
One mail's way: in one transaction, or in as many as the server wants it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred

from ..errors import Cancelled, DeliveryError
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Server
from ..smtp.reply import EnhancedStatusCode
from ..smtp.result import DeliveryResult, RecipientStatus, Status
from ..smtp.transaction import Transaction
from .pending import Pending

if TYPE_CHECKING:
    from .tracing import Tracing

#: RFC 3463 3.5: too many recipients.
_TOO_MANY_RECIPIENTS: Final = EnhancedStatusCode(4, 5, 3)


class DeliveryCancelled(Cancelled, CancelledError):
    """
    A delivery was cancelled through its Deferred.

    It is Twisted's CancelledError and ours: it tells what is known of each
    recipient, and whether the mail may have been delivered all the same.
    """


class Owner(Protocol):
    """What a delivery belongs to."""

    def cancel(self, delivery: Delivery, error: DeliveryError) -> None:
        """End what is under way of it with ``error``."""

    def ended(self, delivery: Delivery) -> None:
        """It has its result."""


class Share:
    """
    What goes of a delivery in one transaction: some of its recipients.

    :ivar positions: which, as places in the envelope; None for all.
    :ivar at_a_time: how many of them the next transaction has; None for all.
        The others follow where that one is taken well.
    :ivar moves: how often it went elsewhere although the connection that it
        was on had done nothing yet.
    :ivar settled: whether it has its outcome.
    :ivar transaction: the one under way; None while it waits.
    :ivar exchange: what moves it.
    """

    __slots__ = ("at_a_time", "delivery", "exchange", "moves", "positions", "settled", "transaction")

    def __init__(self, delivery: Delivery, positions: Sequence[int] | None = None) -> None:
        self.delivery = delivery
        self.positions = positions
        self.at_a_time: int | None = None
        self.moves = 0
        self.settled = False
        self.transaction: Transaction | None = None
        self.exchange: Any = None

    @property
    def envelope(self) -> Envelope:
        """The envelope of its transaction."""
        envelope = self.delivery.envelope
        if self.positions is None:
            return envelope
        recipients = envelope.recipients
        return envelope.part([recipients[position] for position in self.positions[: self.at_a_time]])

    def split(self, count: int) -> Share:
        """
        Keep the first ``count`` recipients.

        :returns: a share of the rest, which belongs to the delivery from now on.
        """
        positions = self.positions or range(len(self.delivery.envelope.recipients))
        self.positions = positions[:count]
        return self.delivery.add_share(positions[count:])


class Delivery:
    """
    One request of a caller, and its one result.

    :param owner: told when its Deferred is cancelled, and when it has ended.
    :param reuse: whether it may share connections with other deliveries.
    :param deferred: whether its result is a Deferred, or a
        :class:`~.pending.Pending`.
    :ivar result: the caller's.
    :ivar cancelled: why nothing more of it is to be sent; None where it goes on.
    :ivar tracing: fills in its trace; None where nobody asked.
    :ivar shares: what it goes in, more than one where the server wants so;
        none once it has ended.
    """

    __slots__ = (
        "_error", "_owner", "_statuses", "_unsettled", "cancelled",
        "content", "envelope", "result", "reuse", "server", "shares", "tracing",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        server: Server,
        envelope: Envelope,
        content: Content,
        *,
        reuse: bool = True,
        deferred: bool = True,
    ) -> None:
        self.server = server
        self.envelope = envelope
        self.content = content
        self.reuse = reuse
        self.result: Any = Deferred(self._cancelled) if deferred else Pending(self._cancelled)
        self.cancelled: DeliveryError | None = None
        self.tracing: Tracing | None = None
        self.shares = [Share(self)]
        self._unsettled = 1
        self._owner = owner
        self._error: DeliveryError | None = None
        self._statuses: list[RecipientStatus | None] | None = None

    def _cancelled(self, _: object) -> None:
        self._owner.cancel(self, DeliveryCancelled("the delivery was cancelled"))

    def add_share(self, positions: Sequence[int]) -> Share:
        """A further share, of recipients that were another's."""
        share = Share(self, positions)
        self.shares.append(share)
        self._unsettled += 1
        return share

    def settle(self, share: Share, outcome: DeliveryResult | DeliveryError) -> Share | None:
        """
        A share has its outcome.

        :returns: a share of those recipients that the server wants in a
            further transaction, if any.
        """
        if share.settled:
            return None
        share.settled = True
        self._unsettled -= 1
        rest = None
        if isinstance(outcome, DeliveryResult) and (len(outcome.recipients) > 1 or share.at_a_time):
            rest = self._continue(share, outcome)
        if share.positions is None and self._statuses is None:
            self._end(outcome)
            return None
        self._merge(share, outcome)
        if not self._unsettled:
            self._end(self._merged())
        return rest

    def _continue(self, share: Share, outcome: DeliveryResult) -> Share | None:
        """
        452 to RCPT behind one that was accepted: the server takes the rest in
        a further transaction (RFC 5321 section 4.5.3.1.10).

        From then on it is offered as many at a time as it took: to offer all
        that are left each time is to have 1,000 recipients refused 50,000 times.
        """
        recipients = outcome.recipients
        places = share.positions or range(len(recipients))
        behind = places[len(recipients) :]
        if not behind and share.transaction is not None and share.transaction.all_accepted:
            return None
        rest: list[int] = []
        accepted = False
        at_a_time = share.at_a_time
        for count, (place, entry) in enumerate(zip(places, recipients, strict=False)):
            if accepted and _too_many(entry):
                at_a_time = at_a_time if rest else count
                rest.append(place)
            elif _accepted(entry):
                accepted = True
        if not accepted or not (rest or behind):
            return None
        share.positions = places
        further = self.add_share([*rest, *behind])
        further.at_a_time = at_a_time
        return further

    def moves(self, share: Share) -> None:
        """
        A share goes elsewhere although MAIL was written: from now on the result
        tells of each of its recipients, whatever it is.

        What a server said to them that did not go on is no verdict.
        """
        statuses = self._kept()
        recipients = self.envelope.recipients
        for position in share.positions or range(len(recipients)):
            if statuses[position] is None:
                statuses[position] = RecipientStatus(recipients[position].address, Status.UNKNOWN)

    def _kept(self) -> list[RecipientStatus | None]:
        """What is known of each recipient, to be added to."""
        if self._statuses is None:
            self._statuses = [None] * len(self.envelope.recipients)
        return self._statuses

    def _merge(self, share: Share, outcome: DeliveryResult | DeliveryError) -> None:
        statuses = self._kept()
        if isinstance(outcome, DeliveryError):
            self._error = self._error or outcome
        # An error from before MAIL knows nothing of its recipients; what is
        # known from a transaction before stands.
        for position, status in zip(
            share.positions or range(len(statuses)), outcome.recipients, strict=False
        ):
            if status.reply is not None:
                # It was one of fewer there.
                status = status._replace(reply=status.reply.among(len(statuses)))
            statuses[position] = status

    def _merged(self) -> DeliveryResult | DeliveryError:
        assert self._statuses is not None
        if self._error is not None and not any(self._statuses):
            # MAIL was never written, for any of them.
            return self._error
        recipients = self.envelope.recipients
        statuses = [
            status if status is not None else RecipientStatus(recipient.address, Status.UNKNOWN)
            for status, recipient in zip(self._statuses, recipients, strict=True)
        ]
        if any(status.status is Status.UNKNOWN for status in statuses):
            assert self._error is not None
            return self._error.concerning(statuses)
        return DeliveryResult(self.envelope.sender, statuses)

    def give_up(self, error: DeliveryError) -> None:
        """A fault of ours was in the way of its outcome: tell what is known, if nothing was told."""
        if not self.result.called:
            self._end(error)

    def _end(self, outcome: DeliveryResult | DeliveryError) -> None:
        self._owner.ended(self)
        if self.tracing is not None:
            self.tracing.ended()
        # Each knows the other: a circle would keep the content in memory
        # until the next collection.
        self.shares.clear()
        result = self.result
        if not isinstance(outcome, DeliveryResult):
            result.errback(outcome)
        elif isinstance(result, Pending):
            # Known to the compiler, so it is called at once.
            result.callback(outcome)
        else:
            result.callback(outcome)


def _accepted(entry: RecipientStatus) -> bool:
    """Whether RCPT was accepted; what became of the content is another thing."""
    return entry.command not in ("RCPT", "MAIL")


def _too_many(entry: RecipientStatus) -> bool:
    return entry.command == "RCPT" and entry.code == 452 and entry.enhanced in (None, _TOO_MANY_RECIPIENTS)
