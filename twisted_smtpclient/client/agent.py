"""
``DeliveryAgent``: mails in, verdicts out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from ..errors import Cancelled, ConnectionLost, DeliveryError, ShuttingDown
from ..smtp.content import Content
from ..smtp.envelope import Envelope, Recipient
from ..smtp.policy import Mode, Protocol, Server, TLSMode
from ..smtp.result import DeliveryResult
from ..smtp.transaction import Transaction
from .connect import Connector, Reactor, Resolver
from .protocol import PipeliningESMTPClient
from .tls import ClientTLS, TrustRoot


class DeliveryCancelled(Cancelled, CancelledError):
    """
    A delivery was cancelled through its Deferred.

    It is Twisted's CancelledError and ours: it tells what is known of each
    recipient, and whether the mail may have been delivered all the same.
    """


class DeliveryAgent:
    """
    Delivers mails to any number of servers at a time.

    :param reactor: does TCP, UNIX sockets, time and threads.
    :param helo: the name for EHLO where a server's terms have none; None for
        the connection's own address as a literal (RFC 5321 section 4.1.3).
    :param trust_root: what certificates are trusted, such as
        :func:`twisted.internet.ssl.trustRootFromCertificates` gives; None for
        the platform's.
    :param resolver: looks host names up; None for the system's.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        helo: str | None = None,
        trust_root: TrustRoot | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self.reactor = reactor
        self.helo = helo
        self.tls = ClientTLS(trust_root)
        self.connector = Connector(reactor, resolver)
        self._deliveries: set[_Delivery] = set()
        self._sessions: set[PipeliningESMTPClient] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<DeliveryAgent {len(self._deliveries)} under way, {len(self._sessions)} sessions>"

    def deliver(self, server: Server, envelope: Envelope, content: Content) -> Deferred[DeliveryResult]:
        """
        Deliver one mail.

        :returns: the server's verdict on every recipient.  Errbacks with a
            :class:`~twisted_smtpclient.errors.DeliveryError` where there is
            none for at least one of them; that error tells what is known.
            Cancelling it errbacks at once, with :class:`DeliveryCancelled`;
            the agent is as good as before.
        """
        delivery = _Delivery(self, server, envelope, content)
        if self._closed:
            delivery.end(ShuttingDown("the agent is closed"))
        else:
            self._deliveries.add(delivery)
            delivery.begin()
        return delivery.result

    def close(self) -> Deferred[None]:
        """
        Take no further mail, and end those that are left with ShuttingDown.

        :returns: fires when every connection has ended.
        """
        self._closed = True
        for delivery in list(self._deliveries):
            delivery.cancel(ShuttingDown("the agent was closed"))
        gone = [session.when_gone() for session in self._sessions]
        for session in list(self._sessions):
            session.abort(ConnectionLost("the agent was closed"))
        return DeferredList(gone).addCallback(lambda _: None)

    def connect(self, server: Server, *, may_start_tls: bool, may_chunk: bool) -> Deferred[PipeliningESMTPClient]:
        """Open a session; fires when it is connected, before its greeting."""
        tls = self.tls.terms(server) if server.tls is not TLSMode.NO else None

        def build() -> PipeliningESMTPClient:
            session = PipeliningESMTPClient(
                identity=self.helo,
                server=server,
                reactor=self.reactor,
                tls=tls,
                may_start_tls=may_start_tls,
                may_chunk=may_chunk,
            )
            self._sessions.add(session)
            session.when_gone().addCallback(lambda _: self._sessions.discard(session))
            return session

        return self.connector.connect(server, build)

    def ended(self, delivery: _Delivery) -> None:
        """A delivery has its outcome."""
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
    return agent.deliver(server, envelope, Content(message))


class _Delivery:
    """One mail's way, over as many connections as it takes."""

    _log = Logger()

    def __init__(self, agent: DeliveryAgent, server: Server, envelope: Envelope, content: Content) -> None:
        self.result: Deferred[DeliveryResult] = Deferred(
            lambda _: self.cancel(DeliveryCancelled("the delivery was cancelled"))
        )
        self._agent = agent
        self._server = server
        self._envelope = envelope
        self._content = content
        self._may_start_tls = True
        self._may_chunk = True
        self._ended = False
        self._connecting: Deferred[PipeliningESMTPClient] | None = None
        self._session: PipeliningESMTPClient | None = None
        self._transaction: Transaction | None = None

    def begin(self) -> None:
        """Open a session and give it the mail."""
        self._connecting = self._agent.connect(
            self._server, may_start_tls=self._may_start_tls, may_chunk=self._may_chunk
        )
        self._connecting.addCallbacks(self._connected, lambda failure: self.end(failure.value))

    def cancel(self, error: DeliveryError) -> None:
        """End it now with ``error``, and with what is known by then."""
        if self._session is not None and self._transaction is not None:
            self._session.cancel(self._transaction, error)
            self._session.finish()
        elif self._connecting is not None:
            connecting, self._connecting = self._connecting, None
            self.end(error)
            connecting.cancel()

    def end(self, outcome: DeliveryResult | DeliveryError) -> None:
        """Tell the outcome, once."""
        if self._ended:
            return
        self._ended = True
        self._agent.ended(self)
        if isinstance(outcome, DeliveryError):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)

    def _connected(self, session: PipeliningESMTPClient) -> None:
        self._connecting = None
        self._session = session
        self._transaction = transaction = Transaction(
            self._envelope, self._content, lmtp=self._server.protocol is Protocol.LMTP
        )
        transaction.on_settled = self._settled
        session.submit(transaction)
        session.finish()

    def _settled(self, transaction: Transaction) -> None:
        outcome = transaction.outcome
        assert outcome is not None
        assert self._session is not None
        if transaction.untouched and isinstance(outcome, DeliveryError) and self._do_without(outcome):
            self._log.info(
                "{server}: {error}; trying again without",
                server=str(self._server),
                error=str(outcome),
            )
            self._session = self._transaction = None
            self.begin()
        else:
            self.end(outcome)

    def _do_without(self, error: DeliveryError) -> bool:
        """
        Whether the mail may go again without an extension that failed.

        STARTTLS that is only tried, and CHUNKING likewise, once each.
        """
        session = self._session
        assert session is not None
        if self._server.tls is TLSMode.TRY and self._may_start_tls and session.tls_was_at_fault:
            self._may_start_tls = False
            return True
        broken = session.pipeline.broken if session.pipeline is not None else None
        if broken == "CHUNKING" and self._server.chunking is Mode.TRY and self._may_chunk:
            self._may_chunk = False
            return True
        return False
