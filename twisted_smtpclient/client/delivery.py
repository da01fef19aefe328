"""
One mail's way: in one transaction, or in as many as the server wants it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred

from ..errors import Cancelled, DeliveryError
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Server
from ..smtp.reply import EnhancedStatusCode
from ..smtp.result import DeliveryResult, RecipientStatus, Status
from ..smtp.transaction import Transaction

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
    :ivar moves: how often it went elsewhere although the connection that it
        was on had done nothing yet.
    :ivar transaction: the one under way; None while it waits.
    :ivar session: the session of that transaction.
    """

    __slots__ = ("delivery", "moves", "positions", "session", "transaction")

    def __init__(self, delivery: Delivery, positions: Sequence[int] | None = None) -> None:
        self.delivery = delivery
        self.positions = positions
        self.moves = 0
        self.transaction: Transaction | None = None
        self.session: Any = None

    @property
    def envelope(self) -> Envelope:
        """The envelope of its transaction."""
        envelope = self.delivery.envelope
        if self.positions is None:
            return envelope
        recipients = envelope.recipients
        return envelope.part([recipients[position] for position in self.positions])

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
    :ivar result: the caller's Deferred.
    :ivar shares: what is not settled yet.
    """

    __slots__ = (
        "_error", "_owner", "_statuses",
        "content", "envelope", "result", "reuse", "server", "shares",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, server: Server, envelope: Envelope, content: Content, *, reuse: bool = True
    ) -> None:
        self.server = server
        self.envelope = envelope
        self.content = content
        self.reuse = reuse
        self.result: Deferred[DeliveryResult] = Deferred(self._cancelled)
        self.shares: set[Share] = set()
        self._owner = owner
        self._error: DeliveryError | None = None
        self._statuses: list[RecipientStatus | None] | None = None

    def _cancelled(self, _: Deferred[DeliveryResult]) -> None:
        self._owner.cancel(self, DeliveryCancelled("the delivery was cancelled"))

    def add_share(self, positions: Sequence[int] | None = None) -> Share:
        """Further recipients to be settled; None for all."""
        share = Share(self, positions)
        self.shares.add(share)
        return share

    def settle(
        self, share: Share, outcome: DeliveryResult | DeliveryError, *, all_accepted: bool = False
    ) -> Share | None:
        """
        A share has its outcome.

        :param all_accepted: whether none of its recipients was refused.

        :returns: a share of those recipients that the server wants in a
            further transaction, if any.
        """
        if share not in self.shares:
            return None
        rest = None
        if not all_accepted and isinstance(outcome, DeliveryResult) and len(outcome.recipients) > 1:
            rest = self._continue(share, outcome)
        self.shares.discard(share)
        if share.positions is None:
            self._end(outcome)
            return None
        self._merge(share, outcome)
        if not self.shares:
            self._end(self._merged())
        return rest

    def _continue(self, share: Share, outcome: DeliveryResult) -> Share | None:
        """
        452 to RCPT behind one that was accepted: the server takes the rest in
        a further transaction (RFC 5321 section 4.5.3.1.10).
        """
        recipients = outcome.recipients
        if not any(_too_many(entry) for entry in recipients):
            return None
        places = share.positions or range(len(recipients))
        rest: list[int] = []
        accepted = False
        for place, entry in zip(places, recipients, strict=True):
            if accepted and _too_many(entry):
                rest.append(place)
            elif _accepted(entry):
                accepted = True
        if not rest:
            return None
        share.positions = places
        return self.add_share(rest)

    def _merge(self, share: Share, outcome: DeliveryResult | DeliveryError) -> None:
        if self._statuses is None:
            self._statuses = [None] * len(self.envelope.recipients)
        if isinstance(outcome, DeliveryError):
            self._error = self._error or outcome
        assert share.positions is not None
        # An error from before MAIL knows nothing of its recipients; what is
        # known from a transaction before stands.
        for position, status in zip(share.positions, outcome.recipients, strict=False):
            self._statuses[position] = status

    def _merged(self) -> DeliveryResult | DeliveryError:
        assert self._statuses is not None
        recipients = self.envelope.recipients
        statuses = [
            status if status is not None else RecipientStatus(recipient.address, Status.UNKNOWN)
            for status, recipient in zip(self._statuses, recipients, strict=True)
        ]
        if any(status.status is Status.UNKNOWN for status in statuses):
            assert self._error is not None
            return self._error.concerning(statuses)
        return DeliveryResult(self.envelope.sender, statuses)

    def _end(self, outcome: DeliveryResult | DeliveryError) -> None:
        self._owner.ended(self)
        if isinstance(outcome, DeliveryError):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)


def _accepted(entry: RecipientStatus) -> bool:
    """Whether RCPT was accepted; what became of the content is another thing."""
    return entry.command not in ("RCPT", "MAIL")


def _too_many(entry: RecipientStatus) -> bool:
    return entry.command == "RCPT" and entry.code == 452 and entry.enhanced in (None, _TOO_MANY_RECIPIENTS)
