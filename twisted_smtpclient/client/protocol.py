"""
``PipeliningESMTPClient``: a session on a Twisted transport.

Here stands what its users call; what its transport calls stands in
:mod:`.session`.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from ..errors import ConnectionLost, DeliveryError, ProtocolError
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.pipeline import Pipeline
from ..smtp.policy import Protocol
from ..smtp.probe import TLSSession
from ..smtp.result import DeliveryResult
from ..smtp.transaction import Transaction
from .certificate import tls_session
from .delivery import DeliveryCancelled
from .exchange import Exchange
from .session import Session, give_back


class PipeliningESMTPClient(Session):
    """
    One session with an SMTP or LMTP server, for as many mails as it takes.

    For its users it is an :class:`~twisted.mail.smtp.ESMTPClient`: the same
    constructor, ``context``, ``requireTransportSecurity``,
    ``requireAuthentication``, ``heloFallback``, ``registerAuthenticator`` and
    ``tlsMode``.  Mails are not fetched by overriding ``getMailFrom`` and its
    kin but given to :meth:`deliver`, any number of them at a time.  Of the
    base's behavior nothing is reached; :data:`~.base.UNREACHED` lists what is
    replaced.  On a transport that came with TLS none is started; where the
    terms ask for a certificate that verifies, the one shown there must.

    :param secret: what the base's ``registerAuthenticator`` mechanisms are
        given.  They are tried beside those that ``credentials`` are good for,
        and before ours of the same name; where nothing fits, no mail is sent.
    :param contextFactory: makes STARTTLS's connection in place of the terms;
        what it accepts is accepted, and counts as verified where it asks
        OpenSSL to verify at all.
    :param identity: the name for EHLO where the terms have none; empty for
        the connection's own address as a literal.  One that could not be a
        server's ``helo`` raises InvalidRequest.
    :param server: the terms of the session; None makes them from the base's
        switches: ``requireTransportSecurity`` is ``DEPEND``, a
        ``contextFactory`` is ``TRY``, neither is ``NO``.
    :param credentials: who logs in; None for whom the terms name.  A token is
        to be one, and no provider.
    :param reactor: for time; None takes the global one.
    :param tls: makes and judges TLS by the terms; None for the platform's
        trust roots.
    :param leave_out: what is not used although the server offers it:
        ``STARTTLS``, ``PIPELINING``, ``CHUNKING``.
    :param depth: how many mails may be under way at a time, where the server
        offers PIPELINING.
    :param idle_timeout: seconds after which a session without a mail ends;
        None for never.
    :param chronicle: is told how the session comes to be; None makes one.
    :param departure: what writes, where other sessions have a part in it too;
        None makes one.
    :raises InvalidRequest: ``identity`` or ``credentials`` will not do.
    :ivar capacity: how many mails may be under way on it at a time.
    :ivar limits: what the server takes in one transaction and on one
        connection (RFC 9422).
    """

    @property
    def tlsMode(self) -> bool:
        """Whether TLS is on, its handshake complete."""
        return bool(self._tlsMode)

    @property
    def pipeline(self) -> Pipeline | None:
        """The session's mails; None before it is ready."""
        return self._exchange.pipeline if self._exchange is not None else None

    @property
    def tls_session(self) -> TLSSession | None:
        """What came of the TLS handshake; None where the connection is in clear."""
        if not self._tlsMode:
            return None
        if self.context is not None or self._tls is None:
            # A contextFactory of the user's has decided by itself.
            complaint: str | None = "it was not judged by these terms"
        else:
            complaint = self._tls.complaint
        return tls_session(self.transport.getHandle(), complaint)

    @property
    def tls_version(self) -> str | None:
        """The version of TLS, such as ``TLSv1.3``; None in clear."""
        return self.transport.getHandle().get_protocol_version_name() if self._tlsMode else None

    @property
    def accepts(self) -> bool:
        """Whether the session takes a further mail."""
        if self._closing or self._finishing:
            return False
        return self._exchange is None or self._exchange.pipeline.accepts

    @property
    def exchange(self) -> Exchange | None:
        """What moves its mails; None before it is ready."""
        return self._exchange

    @property
    def submitted(self) -> int:
        """How many mails it was given."""
        return self._exchange.submitted if self._exchange is not None else len(self._early)

    @property
    def flights(self) -> int:
        """How often something of the mails was written, all that there was to say."""
        return self._exchange.flights if self._exchange is not None else 0

    @property
    def octets_sent(self) -> int:
        """How many octets that was."""
        return self._exchange.octets_sent if self._exchange is not None else 0

    @property
    def octets_received(self) -> int:
        """How many octets the server has said."""
        said = self._exchange.octets_received if self._exchange is not None else 0
        return self._octets_in_opening + said

    def uses(self, keyword: str) -> bool:
        """Whether its mails go by ``PIPELINING`` or ``CHUNKING``."""
        pipeline = self.pipeline
        if pipeline is None:
            return False
        return pipeline.grouped if keyword == "PIPELINING" else pipeline.chunked

    def when_ready(self) -> Deferred[PipeliningESMTPClient]:
        """
        Fires with the session when mails can be sent, errbacks with the
        :class:`~twisted_smtpclient.errors.DeliveryError` that ended it before.
        Cancelling it until then ends the session.
        """
        ready: Deferred[PipeliningESMTPClient] = Deferred(
            lambda _: self.abort(DeliveryCancelled("the session was cancelled"))
        )
        if self._error is not None:
            ready.errback(self._error)
        elif self._exchange is not None:
            ready.callback(self)
        else:
            self._ready.append(ready)
        return ready

    def when_gone(self) -> Deferred[None]:
        """Fires when the connection has ended."""
        gone: Deferred[None] = Deferred()
        if self._lost:
            gone.callback(None)
        else:
            self._gone.append(gone)
        return gone

    def deliver(self, envelope: Envelope, content: Content) -> Deferred[DeliveryResult]:
        """
        Send one mail, behind those that were given before.

        :returns: the server's verdict.  Errbacks with a
            :class:`~twisted_smtpclient.errors.DeliveryError` where there is
            none; cancelling errbacks at once, with what is known by then.
        """
        transaction = Transaction(envelope, content, lmtp=self.server.protocol is Protocol.LMTP)
        result: Deferred[DeliveryResult] = Deferred(
            lambda _: self.cancel(transaction, DeliveryCancelled("the delivery was cancelled"))
        )

        def settled(transaction: Transaction) -> None:
            if isinstance(transaction.outcome, DeliveryResult):
                result.callback(transaction.outcome)
            else:
                result.errback(transaction.outcome)

        transaction.on_settled = settled
        self.submit(transaction)
        return result

    def submit(self, transaction: Transaction) -> None:
        """
        What :meth:`deliver` is made of: ``transaction.on_settled`` is called
        once, when ``transaction.outcome`` is there.
        """
        exchange = self._exchange
        if exchange is not None and exchange.pipeline.accepts and not self._closing:
            exchange.submit(transaction)
        elif not self.accepts:
            give_back([transaction], self._error or ConnectionLost("the session takes no further mail"))
        else:
            self._early.append(transaction)

    def cancel(self, transaction: Transaction, error: DeliveryError) -> None:
        """
        Settle one mail with ``error`` now; its neighbors go on.

        A mail that was written whole may be delivered all the same: then the
        error says that it is in doubt.
        """
        if transaction in self._early:
            self._early.remove(transaction)
            give_back([transaction], error)
        elif self._exchange is not None:
            self._exchange.cancel(transaction, error)

    def abort(self, error: DeliveryError) -> None:
        """End the connection now; every mail left gets its outcome."""
        if self._exchange is not None:
            self._exchange.pipeline.lost(error)
            self._exchange.turn()
        elif not self._closing:
            self._fail(error)
        if not self._lost:
            # Nor is the reply to a QUIT waited for.
            self._drop()

    @property
    def tls_was_at_fault(self) -> bool:
        """
        Whether the session failed in STARTTLS, and may go without it.

        A reply before the handshake is an attack, and no failure of it; nor
        is it one that nobody waits for the session any more.
        """
        if self.handshake is None or not self.handshake.tls_may_be_at_fault:
            return False
        return self._error is not None and not isinstance(self._error, ProtocolError | CancelledError)
