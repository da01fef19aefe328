"""
A session on a Twisted transport, from connecting to its end.

It moves octets and keeps time, in two phases: :mod:`.opening` and
:mod:`.exchange`.  What is said, and what the answers mean, is decided in
:mod:`twisted_smtpclient.smtp`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import (
    DeliveryError,
    ExtensionUnsupported,
    InternalError,
    Refused,
)
from ..smtp.credentials import Credentials
from ..smtp.handshake import Handshake
from ..smtp.limits import UNLIMITED, Limits
from ..smtp.login import Channel
from ..smtp.pipeline import End, Pipeline
from ..smtp.policy import Mode, Server, TLSMode, helo_name
from ..smtp.redaction import Redaction
from ..smtp.reply import ReplyParser
from ..smtp.transaction import Transaction
from .base import UnreachedESMTPClient
from .chronicle import Chronicle
from .connect import Reactor
from .departure import Departure
from .exchange import Exchange, tell
from .login import channel_of, check_resolved, log_in
from .opening import Opening
from .tls import ClientTLS, ServerTLS, certified_name
from .watch import Watch


@implementer(IHandshakeListener, IPushProducer)
class Session(UnreachedESMTPClient):
    """
    What :class:`~.protocol.PipeliningESMTPClient` is to its transport.

    Its parameters and attributes are told there.
    """

    _log = Logger()

    def __init__(
        self,
        secret: object = None,
        contextFactory: object = None,
        identity: bytes | str | None = None,
        logsize: int = 10,
        *,
        server: Server | None = None,
        credentials: Credentials | None = None,
        chronicle: Chronicle | None = None,
        reactor: Reactor = None,
        tls: ServerTLS | None = None,
        leave_out: Collection[str] = (),
        depth: int = 10,
        idle_timeout: float | None = None,
        departure: Departure | None = None,
    ) -> None:
        if identity:
            _check_helo(identity)
        if credentials is None and server is not None:
            credentials = server.auth
        check_resolved(credentials)
        super().__init__(secret, contextFactory, identity, logsize)  # type: ignore[no-untyped-call]  # Twisted has no types here
        if reactor is None:
            from twisted.internet import reactor
        self._server = server
        self._terms_are_given = server is not None
        self.credentials = credentials
        self._redaction: Redaction | None = None
        self._tls = tls
        self._leave_out = leave_out
        self._depth = depth
        self._idle_timeout = idle_timeout
        self._reactor = reactor
        self._departure = departure or Departure(reactor, alone=True)
        self.chronicle = chronicle or Chronicle(reactor.seconds)
        self._watch = Watch(reactor, lambda: self._guard(self._expired))
        self._parser = ReplyParser()
        self._opening: Opening | None = None
        self._exchange: Exchange | None = None
        #: mails that were given before the session was ready
        self._early: list[Transaction] = []
        self._finishing = False
        self._ready: list[Deferred[Any]] = []
        self._gone: list[Deferred[None]] = []
        self._error: DeliveryError | None = None
        self.capacity = 1
        self.limits = UNLIMITED
        #: what takes what is read.  One look a read: the base reads each attribute
        #: by a __getattr__ of its own, at six times the price.
        self._received: Callable[[bytes], None] = self._received_in_opening
        self._octets_in_opening = 0
        #: nothing is said any more, and nothing that comes is believed
        self._closing = False
        self._hung_up = False
        self._lost = False

    @property
    def server(self) -> Server:
        """The terms of the session."""
        if self._server is None:
            mode = TLSMode.TRY if self.context is not None else TLSMode.NO
            if self.requireTransportSecurity:
                mode = TLSMode.DEPEND
            self._server = Server(host="localhost", tls=mode)
        return self._server

    @property
    def handshake(self) -> Handshake | None:
        """The session up to its first mail; None before it is connected."""
        return self._opening.handshake if self._opening is not None else None

    @property
    def idle(self) -> bool:
        """Whether it is ready and has no mail under way."""
        return self._exchange is not None and not self._exchange.pipeline.under_way

    @property
    def _tls_is_verified(self) -> bool:
        """Whether TLS is on, and the certificate is what the terms would ask for."""
        # A contextFactory of the user's is not judged here.
        return self.context is None and self._tls is not None and self._tls.verified

    def finish(self) -> None:
        """No further mail will come: QUIT as soon as it can go, then close."""
        self._finishing = True
        if self._exchange is not None:
            self._exchange.pipeline.finish()
            self._exchange.call_turn()

    # What the transport calls.

    def connectionMade(self) -> None:
        if self._closing:
            self._drop()
        else:
            self._guard(self._connected)

    def _connected(self) -> None:
        if ITCPTransport.providedBy(self.transport) and not IUNIXTransport.providedBy(self.transport):
            # Nagle and delayed acknowledgments together cost 44 ms a mail.
            self.transport.setTcpNoDelay(True)
        secure = ISSLTransport.providedBy(self.transport)
        self._tlsMode = secure
        implicit = self.server.tls is TLSMode.IMPLICIT
        handshake = Handshake(
            self.server,
            self._helo(),
            secure=secure or implicit,
            may_start_tls="STARTTLS" not in self._leave_out,
            helo_fallback=self.heloFallback,
            login=log_in(
                self.server,
                self.credentials,
                self._channel,
                peer=self.transport.getPeer(),
                terms_are_given=self._terms_are_given,
                authenticators=self.authenticators,
                secret=self.secret,
                required=self.requireAuthentication,
            ),
        )
        if self._tls is None and self.server.tls is not TLSMode.NO:
            self._tls = ClientTLS().terms(self.server)
        self._redaction = handshake.redaction
        self._opening = Opening(
            handshake,
            self.transport,
            self._parser,
            self._watch,
            self.server.timeouts,
            self.context or self._tls,
            self.chronicle,
        )
        self._opening.begin(start_tls=implicit and not secure, has_tls=secure)

    def dataReceived(self, data: bytes) -> None:
        self._received(data)

    def handshakeCompleted(self) -> None:
        """TLS is on."""
        if self._closing or self._opening is None:
            return
        self._tlsMode = True
        self._guard(self._opening.tls_completed)

    def pauseProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause()

    def resumeProducing(self) -> None:
        if self._exchange is not None:
            self._guard(self._exchange.resume)

    def stopProducing(self) -> None:
        """The connection is being lost, which connectionLost will tell."""
        self.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._watch.stop()
        closing = self._closing
        self._believe_nothing_more()
        if self._exchange is not None:
            self._exchange.pipeline.lost(self._exchange.loss(reason))
            self._exchange.tell()
        elif not closing and self._opening is not None:
            self._tell_failed(self._opening.loss(reason))
        gone, self._gone = self._gone, []
        for waiting in gone:
            waiting.callback(None)

    # Between the transport and the phases.

    def _guard(self, step: Callable[..., object], *given: object) -> None:
        """Whatever goes wrong in a step becomes the outcome of mails."""
        try:
            step(*given)
        except Exception as error:
            self._faulted(error)

    def _faulted(self, error: Exception) -> None:
        """What was raised, and is being handled, ends the session."""
        if isinstance(error, DeliveryError):
            # Without its frames: their variables are what was said, and it may
            # be kept for long.
            self._fail(error.with_traceback(None))
        else:
            self._log.failure("a fault in a session with {server}", server=str(self._server))
            self._fail(InternalError("a fault of the client; its log has the traceback"))

    def _helo(self) -> str:
        if self.server.helo is not None:
            return self.server.helo
        if self.identity:
            return _check_helo(self.identity)
        address = self.transport.getHost()
        if isinstance(address, IPv6Address):
            return f"[IPv6:{address.host.partition('%')[0]}]"
        return f"[{address.host}]" if isinstance(address, IPv4Address) else "localhost"

    def _received_in_opening(self, data: bytes) -> None:
        """The transport has read something, and the session is not ready yet."""
        self._octets_in_opening += len(data)
        self._guard(self._take, data)

    def _received_at_the_end(self, _: bytes) -> None:
        """QUIT's reply; whatever it is, both sides have done."""
        self._hang_up()

    def _take(self, data: bytes) -> None:
        replies = self._parser.feed(data)
        if self._opening is None:
            return
        if self._redaction is not None:
            if self._parser.error is not None:
                self._parser.error = self._redaction.blunt(self._parser.error)
            # What the handshake waits for it reads as it stands: a challenge, or
            # what EHLO offers.
            replies = [*replies[:1], *self._redaction.clean(replies[1:])]
        if self._opening.take(replies):
            self._begin(self._opening.handshake)

    def _channel(self) -> Channel:
        """What the connection is by now to somebody who would log in on it."""
        if not self._tlsMode:
            return Channel()
        handle = self.transport.getHandle()
        if self.context is None and self._tls is not None:
            return channel_of(handle, self._tls_is_verified)
        return channel_of(handle, None, certified_name(self.server) if self._terms_are_given else None)

    def _begin(self, handshake: Handshake) -> None:
        """The handshake is done: mails may be sent."""
        offered = handshake.extensions
        if "REQUIRETLS" in offered and not self._tls_is_verified:
            # RFC 8689 4.2.1: it is worth no more than the server's name.
            offered = offered.without("REQUIRETLS")
        used = offered.without(*self._leave_out)
        self.limits = Limits.of(offered)
        pipeline = Pipeline(
            offered,
            grouped=used.pipelining and self.server.pipelining is not Mode.NO,
            chunked=used.chunking and self.server.chunking is not Mode.NO,
            depth=self._depth,
        )
        self.capacity = self._depth if pipeline.grouped else 1
        self._exchange = Exchange(
            self,
            pipeline,
            self.transport,
            self._watch,
            self.server.timeouts,
            self._end,
            self._guard,
            self._faulted,
            self._parser,
            self._redaction,
            self._departure,
            capacity=self.capacity,
            limits=self.limits,
            idle_timeout=self._idle_timeout,
        )
        self._received = self._exchange.received
        self.transport.registerProducer(self, True)
        early, self._early = self._early, []
        for transaction in early:
            self._exchange.submit(transaction)
        if self._finishing:
            pipeline.finish()
        ready, self._ready = self._ready, []
        for waiting in ready:
            waiting.callback(self)
        self._exchange.turn()

    # Ends.

    def _expired(self) -> None:
        """What the watch was set for has not come in time."""
        if self._closing:
            self._drop()
        elif self._exchange is not None:
            if self.idle and not self._finishing:
                self.finish()
            else:
                self._exchange.overdue()
        elif self._opening is not None:
            self._fail(self._opening.overdue())

    def _end(self, end: End) -> None:
        if self._closing:
            return
        self.transport.unregisterProducer()
        if end is End.CLOSE:
            self._hang_up()
        else:
            self._drop()

    def _fail(self, error: DeliveryError) -> None:
        """End the session for ``error``."""
        if self._exchange is not None:
            # What has gone wrong is not asked for anything more.
            self._exchange.pipeline.lost(error)
            self._exchange.tell()
            if not self._lost:
                self._drop()
            return
        try:
            if isinstance(error, Refused) and error.code == 421:
                self._hang_up()
            elif isinstance(error, (Refused, ExtensionUnsupported)):
                # RFC 5321 3.1: a server that refuses the session is told QUIT too.
                self._believe_nothing_more()
                self.transport.write(b"QUIT\r\n")
                self._watch.expect(self.server.timeouts.quit)
            else:
                self._drop()
        finally:
            # A transport whose TLS could not be started cannot even be closed.
            self._tell_failed(error)

    def _tell_failed(self, error: DeliveryError) -> None:
        """The session came to nothing before its first mail."""
        self._error = error
        early, self._early = self._early, []
        ready, self._ready = self._ready, []
        give_back(early, error)
        for waiting in ready:
            waiting.errback(error)

    def _believe_nothing_more(self) -> None:
        self._closing = True
        self._received = self._received_at_the_end
        self._departure.arrivals.forget(self.transport)

    def _hang_up(self) -> None:
        """Close in order, and do not wait long for the other side."""
        self._believe_nothing_more()
        if not self._hung_up:
            # Once: a server that talks on does not move the timer.
            self._hung_up = True
            self._watch.expect(self.server.timeouts.quit)
            self.transport.loseConnection()

    def _drop(self) -> None:
        """Close now."""
        self._believe_nothing_more()
        self._watch.stop()
        if self.transport is None:
            return
        # Not every transport has it; an in-memory one of Twisted's has not.
        abort: Any = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        abort()


def _check_helo(identity: bytes | str) -> str:
    """It goes on a command's line, so it is held to what the terms' name is."""
    name = identity if isinstance(identity, str) else bytes(identity).decode("ascii", "replace")
    return helo_name(name)


def give_back(transactions: list[Transaction], error: DeliveryError) -> None:
    """The outcome of mails that never came to the pipeline."""
    for transaction in transactions:
        transaction.outcome = error
        transaction.untouched = True
        tell(transaction)
