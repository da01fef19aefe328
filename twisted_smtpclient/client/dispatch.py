"""
The mails of an agent: each to a connection, and from one that fails to the
next.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import DeliveryError, InternalError, ShuttingDown
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.limits import UNLIMITED
from ..smtp.policy import Protocol, Server
from ..smtp.trace import Trace
from ..smtp.transaction import Transaction
from .connect import Reactor
from .delivery import Delivery, Share
from .exchange import Exchange
from .opener import Opener
from .pending import Pending
from .pool import Pool
from .protocol import PipeliningESMTPClient
from .tracing import Tracing

_log = Logger(__name__)

_LMTP: Final = Protocol.LMTP

_FAULT = "a fault of the client; its log has the traceback"


class Dispatch:
    """
    Gives deliveries, or the shares that they go in, to sessions of a pool.

    :param opener: opens the sessions.
    :param limit: how many to one server may be open.
    :param messages: a session takes so many mails, and is closed behind them.
    :ivar pool: what is open, and who waits for it.
    :ivar deliveries: those under way.
    :ivar closed: whether nothing goes to another connection any more.
    """

    def __init__(self, reactor: Reactor, opener: Opener, *, limit: int, messages: int) -> None:
        self.pool: Pool[Server, Exchange, Share] = Pool(
            reactor, self._open, self._assign, self._refuse, limit=limit
        )
        self.deliveries: set[Delivery] = set()
        self.closed = False
        self._reactor = reactor
        self._opener = opener
        self._messages = messages
        # Bound once, not for each mail.
        self._on_settled = self._settled

    def _open(self, server: Server) -> Deferred[Exchange]:
        return self._opener.open(server).addCallback(_exchange_of)

    def deliver(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        reuse: bool,
        tracing: Tracing | None = None,
        deferred: bool = True,
    ) -> Delivery:
        """A delivery, which has its turn or waits for it."""
        delivery = Delivery(self, server, envelope, content, reuse=reuse, deferred=deferred)
        share = delivery.shares[0]
        if self.closed:
            delivery.settle(share, ShuttingDown("the agent is closed"))
            return delivery
        delivery.tracing = tracing
        self.deliveries.add(delivery)
        if reuse:
            self.pool.submit(server, share)
        else:
            self.pool.submit_alone(server, share)
        return delivery

    def begin(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        *,
        reuse: bool = True,
        trace: Trace | None = None,
    ) -> Pending:
        """
        As :meth:`DeliveryAgent.deliver() <.agent.DeliveryAgent.deliver>`, for a
        gateway that has checked what it gives.

        :returns: what has of a Deferred no more than ``addCallbacks()``, once,
            and ``cancel()``.
        """
        tracing = None if trace is None else Tracing(trace, self._reactor.seconds)
        pending: Pending = self.deliver(server, envelope, content, reuse, tracing, deferred=False).result
        return pending

    def _assign(self, exchange: Exchange, share: Share) -> None:
        """The pool's choice: this mail goes on that session."""
        try:
            self._give(exchange, share)
        except Exception:
            _log.failure("a fault with a mail that was to be sent")
            # In a moment: the pool is in the middle of giving others theirs.
            self._reactor.callLater(0, self._crashed, exchange, share)

    def _crashed(self, exchange: Exchange, share: Share) -> None:
        """A mail that a fault of ours has ended before it began."""
        self.pool.done(exchange)
        share.delivery.settle(share, InternalError(_FAULT))

    def _give(self, exchange: Exchange, share: Share) -> None:
        delivery = share.delivery
        envelope = delivery.envelope if share.positions is None else share.envelope
        server, limits = delivery.server, exchange.limits
        most = self._messages
        if limits is not UNLIMITED:
            most = min(most, limits.mails or most)
            if (limit := limits.recipients_of(envelope)) is not None:
                self._submit_again(share.split(limit))
                envelope = share.envelope
        transaction = Transaction(envelope, delivery.content, lmtp=server.protocol is _LMTP)
        transaction.owner = share
        transaction.on_settled = self._on_settled
        share.transaction = transaction
        share.exchange = exchange
        if delivery.tracing is not None:
            delivery.tracing.assigned(exchange.session, transaction)
        exchange.submit(transaction)
        if exchange.submitted >= most:
            exchange.finish()

    def _settled(self, transaction: Transaction) -> None:
        share: Share = transaction.owner
        try:
            self._take_outcome(transaction, share)
        except Exception:
            _log.failure("a fault with the outcome of a mail")
            assert transaction.outcome is not None
            share.delivery.give_up(InternalError(_FAULT).concerning(transaction.outcome.recipients))

    def _take_outcome(self, transaction: Transaction, share: Share) -> None:
        exchange: Exchange = share.exchange
        server = share.delivery.server
        outcome = transaction.outcome
        assert outcome is not None
        if share.delivery.tracing is not None:
            share.delivery.tracing.left()
        cancelled = share.delivery.cancelled
        if transaction.untouched and cancelled is not None:
            # It was on its way to another connection, and is wanted on none.
            outcome = cancelled.concerning(outcome.recipients)
        elif transaction.untouched and not self.closed:
            assert isinstance(outcome, DeliveryError)
            if exchange.pipeline.broken is not None:
                self._opener.leave_out(server, exchange.pipeline.broken, str(outcome))
            unsupported = self._opener.unsupported(server)
            if unsupported is not None:
                outcome = unsupported.concerning(outcome.recipients)
            elif self._moves(share, exchange):
                if outcome.recipients:
                    share.delivery.moves(share)
                self._submit_again(share)
                self.pool.done(exchange)
                return
        # First of all room is made, for who is told may send the next mail.
        self.pool.done(exchange)
        rest = share.delivery.settle(share, outcome)
        share.transaction = share.exchange = None
        if rest is not None and cancelled is not None:
            share.delivery.settle(rest, cancelled)
        elif rest is not None:
            self._submit_again(rest)

    def _submit_again(self, share: Share) -> None:
        """What has waited its turn before goes first; one of its own stays so."""
        share.transaction = share.exchange = None
        if share.delivery.reuse:
            self.pool.submit(share.delivery.server, share, first=True)
        else:
            self.pool.submit_alone(share.delivery.server, share)

    def _moves(self, share: Share, exchange: Exchange) -> bool:
        """Whether a mail that was not done goes to another connection."""
        # What broke is not tried again, so that comes to an end by itself.
        if exchange.pipeline.answered or exchange.pipeline.broken is not None:
            return True
        share.moves += 1
        return share.moves <= 1

    def _refuse(self, share: Share, error: Exception) -> None:
        """No session could be had for this mail."""
        if not isinstance(error, DeliveryError):
            _log.failure("a session could not be opened", Failure(error))
            error = InternalError(_FAULT)
        if share.delivery.tracing is not None:
            share.delivery.tracing.waited_for(error.chronicle)
        share.delivery.settle(share, error)

    def cancel(self, delivery: Delivery, error: DeliveryError) -> None:
        """A delivery was cancelled; for the delivery alone."""
        delivery.cancelled = error
        for share in list(delivery.shares):
            if share.settled:
                continue
            if share.transaction is not None:
                share.exchange.cancel(share.transaction, error)
            else:
                self.pool.withdraw(delivery.server, share)
                if delivery.tracing is not None:
                    delivery.tracing.waited_for(self._opener.begun(delivery.server))
                delivery.settle(share, error)

    def ended(self, delivery: Delivery) -> None:
        """A delivery has its result; for the delivery alone."""
        self.deliveries.discard(delivery)


def _exchange_of(session: PipeliningESMTPClient) -> Exchange:
    """What a session that is ready has mails moved by."""
    assert session.exchange is not None
    return session.exchange
