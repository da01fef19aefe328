"""
``DeliveryAgent``: mails in, verdicts out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import (
    ConnectionLost,
    DeliveryError,
    ExtensionUnsupported,
    InternalError,
    ShuttingDown,
    TLSFailed,
)
from ..smtp.content import Content
from ..smtp.envelope import Envelope, Recipient
from ..smtp.limits import UNLIMITED
from ..smtp.policy import Mode, Protocol, Server, TLSMode, helo_name
from ..smtp.result import DeliveryResult
from ..smtp.transaction import Transaction
from .connect import Connector, Reactor
from .delivery import Delivery, Share
from .pool import Pool
from .protocol import PipeliningESMTPClient
from .quirks import Quirks
from .resolve import Resolver
from .tls import ClientTLS, TrustRoot

_log = Logger()

#: Seconds for servers to answer QUIT when the agent is closed.
LAST_WORDS: Final = 1.0

#: What may be left out, and the field of :class:`Server` that says how it is
#: wanted.
_OPTIONAL: Final = {"PIPELINING": "pipelining", "CHUNKING": "chunking"}


class DeliveryAgent:
    """
    Delivers mails to any number of servers at a time, over kept connections.

    :param reactor: does TCP, UNIX sockets, time and threads.
    :param helo: the name for EHLO where a server's terms have none; None for
        the connection's own address as a literal (RFC 5321 section 4.1.3).
    :param trust_root: what certificates are trusted, such as
        :func:`twisted.internet.ssl.trustRootFromCertificates` gives; None for
        the platform's.
    :param resolver: looks host names up; None for the system's.
    :param connections_per_host: open connections to one server, on the same
        terms.
    :param pipelining_depth: mails under way on one connection, where the
        server offers PIPELINING.
    :param messages_per_connection: a connection is closed after so many.
    :param idle_timeout: seconds for which an unused connection is kept.
    :raises InvalidRequest: ``helo`` is no domain name or address literal.
    :raises ValueError: a limit is under 1.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        helo: str | None = None,
        trust_root: TrustRoot | None = None,
        resolver: Resolver | None = None,
        connections_per_host: int = 10,
        pipelining_depth: int = 10,
        messages_per_connection: int = 1000,
        idle_timeout: float = 30.0,
    ) -> None:
        for name, value in (
            ("connections_per_host", connections_per_host),
            ("pipelining_depth", pipelining_depth),
            ("messages_per_connection", messages_per_connection),
        ):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, not {value!r}")
        self._reactor = reactor
        self.helo = helo if helo is None else helo_name(helo)
        self._tls = ClientTLS(trust_root)
        self._connector = Connector(reactor, resolver)
        self._quirks = Quirks(reactor)
        self._depth = pipelining_depth
        self._messages = messages_per_connection
        self._idle_timeout = idle_timeout
        self._pool: Pool[Server, PipeliningESMTPClient, Share] = Pool(
            reactor, self._open, self._assign, self._refuse, limit=connections_per_host
        )
        self._deliveries: set[Delivery] = set()
        self._connecting: set[Deferred[Any]] = set()
        self._sessions: set[PipeliningESMTPClient] = set()
        self._closed = False
        # Bound once, not for each mail.
        self._on_settled = self._settled

    def __repr__(self) -> str:
        return f"<DeliveryAgent {len(self._deliveries)} under way, {self._pool!r}>"

    def deliver(
        self, server: Server, envelope: Envelope, content: Content, *, reuse: bool = True
    ) -> Deferred[DeliveryResult]:
        """
        Deliver one mail.

        :param reuse: whether it may share a kept connection and leave one
            behind.
        :returns: the server's verdict on every recipient.  Errbacks with a
            :class:`~twisted_smtpclient.errors.DeliveryError` where there is
            none for at least one of them; that error tells what is known.
            Cancelling it errbacks at once, with
            :class:`~.delivery.DeliveryCancelled`; neither the agent nor other
            mails on the same connection notice.
        :raises TypeError: an argument is not of its type.
        """
        for value, kind in ((server, Server), (envelope, Envelope), (content, Content)):
            if not isinstance(value, kind):
                raise TypeError(f"deliver() takes a {kind.__name__}, not {type(value).__name__}")
        delivery = Delivery(self, server, envelope, content, reuse=reuse)
        if self._closed:
            delivery.settle(delivery.add_share(), ShuttingDown("the agent is closed"))
            return delivery.result
        self._deliveries.add(delivery)
        share = delivery.add_share()
        if reuse:
            self._pool.submit(server, share)
        else:
            self._pool.submit_alone(server, share)
        return delivery.result

    def close(self) -> Deferred[None]:
        """
        Take no further mail, end those that are left with ShuttingDown, and
        close every connection; those without a mail say QUIT.

        :returns: fires when every connection has ended, within
            :data:`LAST_WORDS` seconds.
        """
        self._closed = True
        error = ShuttingDown("the agent was closed")
        gone = [session.when_gone() for session in self._sessions]
        for session in list(self._sessions):
            if session.idle:
                session.finish()
            else:
                session.abort(error)
        for delivery in list(self._deliveries):
            self.cancel(delivery, error)
        for connecting in list(self._connecting):
            connecting.cancel()
        bound = self._reactor.callLater(LAST_WORDS, self._abort_all, error)
        return DeferredList(gone).addCallback(lambda _: bound.cancel() if bound.active() else None)

    def _abort_all(self, error: DeliveryError) -> None:
        for session in list(self._sessions):
            session.abort(error)

    # Sessions.

    def _open(
        self, server: Server, leave_out: frozenset[str] = frozenset()
    ) -> Deferred[PipeliningESMTPClient]:
        """A session that is ready for mails."""
        if self._closed:
            return fail(ShuttingDown("the agent was closed"))
        unsupported = self._unsupported(server)
        if unsupported is not None:
            return fail(unsupported)
        connecting = self._connector.connect(server, lambda: self._build(server, leave_out))
        self._connecting.add(connecting)
        return connecting.addBoth(self._connected, connecting)

    def _connected(self, connected: Any, connecting: Deferred[Any]) -> Any:
        self._connecting.discard(connecting)
        if isinstance(connected, Failure):
            return connected
        session: PipeliningESMTPClient = connected
        return session.when_ready().addErrback(self._open_in_clear, session)

    def _open_in_clear(self, failure: Failure, session: PipeliningESMTPClient) -> Any:
        """STARTTLS failed where it is only tried: once more without (RFC 7435)."""
        server = session.server
        if server.tls is not TLSMode.TRY or not session.tls_was_at_fault or self._closed:
            return failure
        if isinstance(failure.value, TLSFailed | ConnectionLost):
            # What fails in this handshake will fail in the next.  A server
            # that says 421 may be busy, and a time-out was the request's own:
            # neither takes TLS away from others.
            self._quirks.remember(server, "STARTTLS", str(failure.value))
        return self._open(server, frozenset({"STARTTLS"}))

    def _build(self, server: Server, leave_out: frozenset[str]) -> PipeliningESMTPClient:
        breaks = self._quirks.breaks
        session = PipeliningESMTPClient(
            identity=self.helo,
            server=server,
            reactor=self._reactor,
            tls=self._tls.terms(server) if server.tls is not TLSMode.NO else None,
            leave_out=leave_out.union(k for k in ("STARTTLS", *_OPTIONAL) if breaks(server, k)),
            depth=self._depth,
            idle_timeout=self._idle_timeout,
        )
        self._sessions.add(session)
        session.when_gone().addCallback(lambda _: self._sessions.discard(session))
        return session

    # Mails.

    def _assign(self, session: PipeliningESMTPClient, share: Share) -> None:
        """The pool's choice: this mail goes on that session."""
        delivery = share.delivery
        envelope = delivery.envelope if share.positions is None else share.envelope
        server, limits = delivery.server, session.limits
        most = self._messages
        if limits is not UNLIMITED:
            most = min(most, limits.mails or most)
            if (limit := limits.recipients_of(envelope)) is not None:
                self._submit_again(share.split(limit))
                envelope = share.envelope
        transaction = Transaction(envelope, delivery.content, lmtp=server.protocol is Protocol.LMTP)
        transaction.owner = share
        transaction.on_settled = self._on_settled
        share.transaction = transaction
        share.session = session
        session.submit(transaction)
        if session.submitted >= most:
            session.finish()

    def _settled(self, transaction: Transaction) -> None:
        share: Share = transaction.owner
        session: PipeliningESMTPClient = share.session
        server = share.delivery.server
        outcome = transaction.outcome
        assert outcome is not None
        share.transaction = share.session = None
        if transaction.untouched and not self._closed:
            assert isinstance(outcome, DeliveryError)
            if session.broken is not None:
                self._leave_out(server, session.broken, str(outcome))
            unsupported = self._unsupported(server)
            if unsupported is not None:
                outcome = unsupported.concerning(outcome.recipients)
            elif self._moves(share, session):
                self._submit_again(share)
                self._pool.done(server, session)
                return
        # First of all room is made, for who is told may send the next mail.
        self._pool.done(server, session)
        rest = share.delivery.settle(share, outcome, all_accepted=transaction.all_accepted)
        if rest is not None:
            self._submit_again(rest)

    def _submit_again(self, share: Share) -> None:
        """What has waited its turn before goes first; one of its own stays so."""
        if share.delivery.reuse:
            self._pool.submit(share.delivery.server, share, first=True)
        else:
            self._pool.submit_alone(share.delivery.server, share)

    def _moves(self, share: Share, session: PipeliningESMTPClient) -> bool:
        """Whether a mail that was not done goes to another connection."""
        # What broke is not tried again, so that comes to an end by itself.
        if session.has_settled_mail or session.broken is not None:
            return True
        share.moves += 1
        return share.moves <= 1

    # Extensions that break.

    def _unsupported(self, server: Server) -> ExtensionUnsupported | None:
        """Why a server on which something broke is of no use to these terms."""
        for keyword, field in _OPTIONAL.items():
            if getattr(server, field) is Mode.DEPEND and self._quirks.breaks(server, keyword):
                return ExtensionUnsupported(
                    f"the server offers {keyword}, but broke on it, and {field} is {Mode.DEPEND.value}"
                )
        return None

    def _leave_out(self, server: Server, keyword: str, reason: str) -> None:
        """Do without it there, also on the connections that there are."""
        if self._quirks.breaks(server, keyword):
            return
        self._quirks.remember(server, keyword, reason)
        for session in self._sessions:
            if session.uses(keyword) and self._quirks.breaks(session.server, keyword):
                session.finish()

    def _refuse(self, share: Share, error: Exception) -> None:
        """No session could be had for this mail."""
        if not isinstance(error, DeliveryError):
            _log.failure("a session could not be opened", Failure(error))
            error = InternalError("a fault of the client; its log has the traceback")
        share.delivery.settle(share, error)

    def cancel(self, delivery: Delivery, error: DeliveryError) -> None:
        """A delivery was cancelled; for the delivery alone."""
        for share in list(delivery.shares):
            if share.transaction is not None:
                share.session.cancel(share.transaction, error)
            else:
                self._pool.withdraw(delivery.server, share)
                delivery.settle(share, error)

    def ended(self, delivery: Delivery) -> None:
        """A delivery has its result; for the delivery alone."""
        self._deliveries.discard(delivery)


def deliver(
    host: str,
    sender: str | None,
    recipients: Sequence[str | Recipient],
    message: bytes,
    *,
    port: int | None = None,
    helo: str | None = None,
    trust_root: TrustRoot | None = None,
    reactor: Reactor = None,
    **terms: Any,
) -> Deferred[DeliveryResult]:
    """
    Deliver one mail over a connection of its own.

    What sends more than one is better served by a :class:`DeliveryAgent`.

    :param host: a name, an address, or ``unix:/path``.
    :param sender: the reverse-path; None for ``<>``.
    :param recipients: addresses, each with its own RCPT.
    :param message: the message as octets.
    :param reactor: None takes the global one.
    :param terms: what else :class:`~twisted_smtpclient.Server` takes, such as
        ``tls=TLSMode.DEPEND``.
    :returns: the server's verdict on every recipient; errbacks with a
        :class:`~twisted_smtpclient.errors.DeliveryError` where there is none.
    :raises InvalidRequest: at once, naming the argument that is wrong.
    """
    if reactor is None:
        from twisted.internet import reactor
    server = Server(host=host, port=port, helo=helo, **terms)
    envelope = Envelope(sender, recipients)
    agent = DeliveryAgent(reactor, trust_root=trust_root)
    return agent.deliver(server, envelope, Content(message), reuse=False)
