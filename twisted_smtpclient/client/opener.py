"""
Opening sessions: the connection, TLS or none, the login, and what is known of
servers that break on what they offer.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.python.failure import Failure

from ..errors import ConnectionLost, DeliveryError, ExtensionUnsupported, ShuttingDown, TLSFailed
from ..smtp.credentials import Credentials
from ..smtp.policy import Mode, Server, TLSMode
from .chronicle import Chronicle
from .connect import Connector, Reactor
from .departure import Departure
from .login import ask_for_token, open_with_token
from .protocol import PipeliningESMTPClient
from .quirks import Quirks
from .sessions import Sessions
from .tls import ClientTLS, TrustRoot

#: Seconds for servers to answer QUIT when all is closed.
LAST_WORDS: Final = 1.0

#: What may be left out, and the field of :class:`Server` that says how it is
#: wanted.
_OPTIONAL: Final = {"PIPELINING": "pipelining", "CHUNKING": "chunking"}


class Opener:
    """
    Opens sessions, and knows those that there are.

    :param connector: makes the connections.
    :param tls: makes their TLS.
    :param helo: the name for EHLO where a server's terms have none.
    :param depth: how many mails may be under way on one.
    :param idle_timeout: seconds for which an unused one is kept.
    :ivar sessions: those that there are.
    """

    def __init__(
        self,
        reactor: Reactor,
        connector: Connector,
        tls: ClientTLS,
        *,
        helo: str | None,
        depth: int,
        idle_timeout: float,
    ) -> None:
        self.sessions = Sessions()
        self._reactor = reactor
        self._connector = connector
        self._tls = tls
        self._helo = helo
        self._depth = depth
        self._idle_timeout = idle_timeout
        self._departure = Departure(reactor)
        self._quirks = Quirks(reactor)
        #: of each server, how the newest session that is being opened comes to be
        self._openings: dict[Server, Chronicle] = {}
        self._connecting: set[Deferred[Any]] = set()
        self._closed = False

    def trust(self, trust_root: TrustRoot | None) -> None:
        """Trust other certificates, on connections that are opened from now on."""
        self._tls.trust(trust_root)

    def state(self) -> dict[str, float]:
        """How it stands: figures by the names that the daemon's metrics have."""
        return {**self.sessions.state(), "broken_servers": len(self._quirks)}

    def begun(self, server: Server) -> Chronicle | None:
        """How far the newest session is that is being opened to ``server``."""
        return self._openings.get(server)

    def close(self, error: DeliveryError) -> Deferred[Any]:
        """
        Open nothing more, and close what is open; those without a mail say
        QUIT.  What is being opened is for :meth:`stop_connecting` to end.

        :param error: what becomes of the mails that are left.
        :returns: fires when every connection has ended, within
            :data:`LAST_WORDS` seconds.
        """
        self._closed = True
        gone = [session.when_gone() for session in self.sessions]
        for session in self.sessions:
            if session.idle:
                session.finish()
            else:
                session.abort(error)
        bound = self._reactor.callLater(LAST_WORDS, self._abort_all, error)
        return DeferredList(gone).addCallback(lambda _: bound.cancel() if bound.active() else None)

    def stop_connecting(self) -> None:
        """Give up what is being opened."""
        for connecting in list(self._connecting):
            connecting.cancel()

    def _abort_all(self, error: DeliveryError) -> None:
        for session in self.sessions:
            session.abort(error)

    def open(self, server: Server) -> Deferred[PipeliningESMTPClient]:
        """A session that is ready for mails."""
        chronicle = Chronicle(self._reactor.seconds)
        self._openings[server] = chronicle

        def opened(outcome: Any) -> Any:
            if self._openings.get(server) is chronicle:
                del self._openings[server]
            self.sessions.opened(chronicle, not isinstance(outcome, Failure))
            if isinstance(outcome, Failure) and isinstance(outcome.value, DeliveryError):
                outcome.value.chronicle = chronicle
            return outcome

        return self._open_session(server, chronicle).addBoth(opened)

    def _open_session(
        self,
        server: Server,
        chronicle: Chronicle,
        leave_out: frozenset[str] = frozenset(),
        credentials: Credentials | None = None,
    ) -> Deferred[PipeliningESMTPClient]:
        """The same, logged in with the server's credentials unless told."""
        if self._closed:
            return fail(ShuttingDown("the agent was closed"))
        unsupported = self.unsupported(server)
        if unsupported is not None:
            return fail(unsupported)
        credentials = credentials or server.auth
        if credentials is not None and credentials.token_provider is not None:
            return open_with_token(
                credentials,
                lambda: self._await(ask_for_token(server, self._reactor)),
                lambda resolved: self._open_session(server, chronicle, leave_out, resolved),
            )
        connecting = self._connector.connect(
            server, lambda: self._build(server, chronicle, leave_out, credentials)
        )
        return self._await(connecting).addCallback(self._connected)

    def _await(self, waiting: Deferred[Any]) -> Deferred[Any]:
        """The same, canceled where the agent is closed."""
        self._connecting.add(waiting)

        def ended(outcome: Any) -> Any:
            self._connecting.discard(waiting)
            return outcome

        return waiting.addBoth(ended)

    def _connected(self, session: PipeliningESMTPClient) -> Deferred[PipeliningESMTPClient]:
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
        session.chronicle.enter("connect")
        return self._open_session(server, session.chronicle, frozenset({"STARTTLS"}), session.credentials)

    def _build(
        self,
        server: Server,
        chronicle: Chronicle,
        leave_out: frozenset[str],
        credentials: Credentials | None,
    ) -> PipeliningESMTPClient:
        breaks = self._quirks.breaks
        session = PipeliningESMTPClient(
            identity=self._helo,
            server=server,
            credentials=credentials,
            chronicle=chronicle,
            reactor=self._reactor,
            # An endpoint may come with TLS of its own, which is told of.
            tls=self._tls.terms(server)
            if server.tls is not TLSMode.NO or server.endpoint is not None
            else None,
            leave_out=leave_out.union(k for k in ("STARTTLS", *_OPTIONAL) if breaks(server, k)),
            depth=self._depth,
            idle_timeout=self._idle_timeout,
            departure=self._departure,
        )
        self.sessions.add(session)
        return session

    def unsupported(self, server: Server) -> ExtensionUnsupported | None:
        """Why a server on which something broke is of no use to these terms."""
        for keyword, field in _OPTIONAL.items():
            if getattr(server, field) is Mode.DEPEND and self._quirks.breaks(server, keyword):
                return ExtensionUnsupported(
                    f"the server offers {keyword}, but broke on it, and {field} is {Mode.DEPEND.value}"
                )
        return None

    def leave_out(self, server: Server, keyword: str, reason: str) -> None:
        """Do without it there, also on the connections that there are."""
        if self._quirks.breaks(server, keyword):
            return
        self._quirks.remember(server, keyword, reason)
        for session in self.sessions:
            if session.uses(keyword) and self._quirks.breaks(session.server, keyword):
                session.finish()
