"""
From an endpoint of the user's to a connection, within one bound.

Whatever connects (a SOCKS proxy, an SSH tunnel, memory) is Twisted's
:class:`~twisted.internet.interfaces.IStreamClientEndpoint`; what it is, and
which name or address it connects to, is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer, error
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from ..errors import (
    Cancelled,
    ConnectionFailed,
    ConnectionRefused,
    ConnectionTimeout,
    DeliveryError,
    HostNotFound,
    TLSFailed,
)
from ..smtp.policy import Server

P = TypeVar("P", bound=Protocol)


def connect_through(reactor: Any, server: Server, build: Callable[[], P]) -> Deferred[P]:
    """
    Connect by ``server.endpoint``, within ``server.connection_timeout`` seconds.

    :param reactor: for time.
    :param build: makes the protocol, once, when the endpoint has connected.
    :returns: fires with the protocol once the endpoint says that it is
        connected; errbacks with what :func:`judge` makes of its failure, with
        ConnectionTimeout, or with Cancelled where it was cancelled.  A
        protocol that was built for nothing is told that its connection is
        lost.
    """
    return _Connecting(reactor, server, build).result


class _Connecting(Factory, Generic[P]):
    """One connecting; to the endpoint it is the factory."""

    noisy = False

    def __init__(self, reactor: Any, server: Server, build: Callable[[], P]) -> None:
        self.result: Deferred[P] = Deferred(lambda _: self._end(Cancelled("cancelled while connecting")))
        self._server = server
        self._build = build
        self._built: P | None = None
        self._done = False
        self._bound = reactor.callLater(server.connection_timeout, self._timed_out)
        endpoint: Any = server.endpoint
        self._connecting: Deferred[Any] = maybeDeferred(endpoint.connect, self)
        self._connecting.addCallbacks(self._connected, self._failed)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """The endpoint has a connection; one that comes too late has no protocol."""
        if self._done or self._built is not None:
            return None
        try:
            self._built = self._build()
        except Exception as error:
            # Not by way of the endpoint, which may take it for its own.
            self._end(error)
        return self._built

    def _connected(self, _: object) -> None:
        if self._built is None:
            self._end(ConnectionFailed(f"Cannot connect to {self._server}: the endpoint built no protocol"))
        elif self._built.transport is None:
            self._end(
                ConnectionFailed(
                    f"Cannot connect to {self._server}: the endpoint did not connect its protocol"
                )
            )
        else:
            self._end(self._built)

    def _failed(self, failure: Failure) -> None:
        self._end(judge(failure, self._server))

    def _timed_out(self) -> None:
        seconds = self._server.connection_timeout
        self._end(
            ConnectionTimeout(f"Connection timed out: {self._server}: not connected within {seconds:g} s")
        )

    def _end(self, outcome: P | Exception) -> None:
        if self._done:
            return
        self._done = True
        if self._bound.active():
            self._bound.cancel()
        if not isinstance(outcome, Exception):
            self.result.callback(outcome)
            return
        self._connecting.cancel()
        if self._built is not None:
            _drop(self._built, outcome)
        self.result.errback(outcome)


def _drop(protocol: Protocol, error: Exception) -> None:
    """End a protocol that nobody will have."""
    transport: Any = protocol.transport
    if transport is None:
        # It may never be connected, and would wait for that for good.
        protocol.connectionLost(Failure(error))
    else:
        # Not every transport has it; an in-memory one of Twisted's has not.
        getattr(transport, "abortConnection", transport.loseConnection)()


def judge(failure: Failure, server: Server) -> DeliveryError:
    """What it means that an endpoint failed; its own exception is the cause."""
    if isinstance(failure.value, DeliveryError):
        return failure.value
    told = str(failure.value) or type(failure.value).__name__
    judged: DeliveryError
    if failure.check(error.ConnectionRefusedError, ConnectionRefusedError):
        judged = ConnectionRefused(f"Connection refused: {server}")
    elif failure.check(error.TimeoutError, error.TCPTimedOutError, defer.TimeoutError, TimeoutError):
        judged = ConnectionTimeout(f"Connection timed out: {server}: {told}")
    elif failure.check(error.DNSLookupError):
        # Twisted's resolver does not tell "no such name" from "ask again".
        judged = HostNotFound(f"Host not found: {server}: {told}", temporary=True)
    elif failure.check(SSL.Error, VerificationError):
        judged = TLSFailed(f"the TLS handshake failed: {told}")
    else:
        judged = ConnectionFailed(f"Cannot connect to {server}: {told}")
    judged.__cause__ = failure.value
    return judged
