"""
From a server's name to a connection: look-up, TCP over IPv4 and IPv6, UNIX
sockets, and one bound over all of it.  Endpoints of the user's have a module of
their own, :mod:`.endpoint`.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from twisted.internet import error
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from ..errors import (
    Cancelled,
    ConnectionFailed,
    ConnectionRefused,
    ConnectionTimeout,
    DeliveryError,
    HostNotFound,
    NotAllowed,
)
from ..smtp.policy import Server
from .access import Access
from .endpoint import connect_through
from .resolve import Resolver, SystemResolver

#: RFC 8305 section 5: a second attempt starts after so many seconds.
ATTEMPT_DELAY: Final = 0.25

#: Addresses of one name that are tried; more would outlast any bound.
MAX_ADDRESSES: Final = 16

#: A reactor that does TCP, UNIX sockets, time and threads.  The interfaces are
#: zope's, of which a type cannot ask four at once, and Twisted types its
#: global reactor as a module.
Reactor = Any


P = TypeVar("P", bound=Protocol)


class Connector:
    """
    Opens connections.

    :param reactor: TCP, UNIX, time, and threads for the default resolver.
    :param resolver: looks names up; None for the system's.
    :param access: which servers may be connected to; None for all.
    """

    def __init__(
        self, reactor: Reactor, resolver: Resolver | None = None, access: Access | None = None
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver if resolver is not None else SystemResolver(reactor)
        self._access = access

    def connect(self, server: Server, build: Callable[[], P]) -> Deferred[P]:
        """
        Connect within ``server.connection_timeout`` seconds, look-up included.

        :param build: makes the protocol, once, for the connection that wins.
        :returns: fires with the protocol when it is about to be connected;
            errbacks with ConnectionRefused, ConnectionTimeout, HostNotFound,
            ConnectionFailed or NotAllowed, or with Cancelled where it was
            cancelled; by an endpoint also with TLSFailed.
        """
        path = server.unix_path
        if self._access is not None:
            try:
                path = self._access.check(server)
            except NotAllowed as error:
                return fail(error)
        if server.endpoint is not None:
            return connect_through(self._reactor, server, build)
        return _Connecting(self._reactor, self._resolver, self._access, server, path, build).result


class _Connecting(Generic[P]):
    """One connecting, over however many addresses."""

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        access: Access | None,
        server: Server,
        path: str | None,
        build: Callable[[], P],
    ) -> None:
        self.result: Deferred[P] = Deferred(lambda _: self._end(Cancelled("cancelled while connecting")))
        self._reactor = reactor
        self._access = access
        self._server = server
        self._build = build
        self._done = False
        self._addresses: list[str] = []
        self._connectors: list[IConnector] = []
        self._failed: list[Failure] = []
        self._under_way = 0
        self._next: Any = None
        self._bound = reactor.callLater(server.connection_timeout, self._timed_out)
        if path is not None:
            self._attempt_unix(path)
            self._lookup: Deferred[Any] = succeed(None)
        else:
            self._lookup = self._look_up(resolver, server.host)
            self._lookup.addCallback(self._found).addErrback(self._not_found)

    def _look_up(self, resolver: Resolver, host: str) -> Deferred[Sequence[str]]:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return maybeDeferred(resolver, host)
        return succeed([host])

    def _found(self, addresses: Sequence[str]) -> None:
        if self._done:
            return
        if self._access is not None:
            # What is connected to is what is left here, not another look-up's.
            addresses = self._access.admitted(self._server, addresses)
        self._addresses = _preferred(addresses, self._server.source_address)
        if not self._addresses:
            kind = " of the source address's family" if addresses else ""
            self._end(HostNotFound(f"Host not found: {self._server.host}: it has no address{kind}"))
        else:
            self._attempt_next()

    def _not_found(self, failure: Failure) -> None:
        if not self._done:
            error = failure.value
            if not isinstance(error, DeliveryError):
                # A resolver of the user's failed in a way of its own, or gave
                # what are no addresses.
                error = HostNotFound(f"Host not found: {self._server.host}: {error!r}", temporary=True)
            self._end(error)

    def _attempt_next(self) -> None:
        self._next = None
        address = self._addresses.pop(0)
        if self._addresses:
            self._next = self._reactor.callLater(ATTEMPT_DELAY, self._attempt_next)
        source = self._server.source_address
        bind = (source, 0) if source is not None else None
        self._under_way += 1
        timeout = self._server.connection_timeout + 1
        try:
            connector = self._reactor.connectTCP(address, self._server.port, _Attempt(self), timeout, bind)
        except OSError:
            # The zone of an IPv6 address is looked up on the spot.
            self.attempt_failed(Failure())
        else:
            self._connectors.append(connector)

    def _attempt_unix(self, path: str) -> None:
        self._under_way += 1
        timeout = self._server.connection_timeout + 1
        self._connectors.append(self._reactor.connectUNIX(path, _Attempt(self), timeout))

    def won(self) -> P | None:
        """An attempt has connected; the first one is given the protocol."""
        if self._done:
            return None
        try:
            protocol = self._build()
        except Exception as error:
            self._end(error)
            return None
        self._end(protocol)
        return protocol

    def attempt_failed(self, reason: Failure) -> None:
        """An attempt has come to nothing."""
        self._under_way -= 1
        self._failed.append(reason)
        if self._done:
            return
        if self._addresses:
            if self._next is not None:
                self._next.cancel()
            self._attempt_next()
        elif not self._under_way:
            self._end(_judge(self._failed, self._server))

    def _timed_out(self) -> None:
        seconds = self._server.connection_timeout
        self._end(
            ConnectionTimeout(f"Connection timed out: {self._server}: not connected within {seconds:g} s")
        )

    def _end(self, outcome: P | BaseException) -> None:
        if self._done:
            return
        self._done = True
        for call in (self._bound, self._next):
            if call is not None and call.active():
                call.cancel()
        if isinstance(outcome, BaseException):
            self._lookup.cancel()
        for connector in self._connectors:
            if getattr(connector, "state", None) == "connecting":
                connector.stopConnecting()
        if isinstance(outcome, BaseException):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)


class _Attempt(ClientFactory):
    """One address."""

    noisy = False

    def __init__(self, connecting: _Connecting[Any]) -> None:
        self._connecting = connecting

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return self._connecting.won()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._connecting.attempt_failed(reason)


def _preferred(addresses: Sequence[str], source_address: str | None) -> list[str]:
    """
    The addresses to try: families in turn, the resolver's first choice first
    (RFC 8305 section 4); with a source address, those of its family.
    """
    families: dict[int, list[str]] = {}
    for address in addresses:
        families.setdefault(ipaddress.ip_address(address).version, []).append(address)
    if source_address is not None:
        return families.get(ipaddress.ip_address(source_address).version, [])[:MAX_ADDRESSES]
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None][:MAX_ADDRESSES]


def _judge(failures: list[Failure], server: Server) -> DeliveryError:
    """One error for all attempts: the one that tells most."""
    for failure in failures:
        if failure.check(error.ConnectionRefusedError):
            return ConnectionRefused(f"Connection refused: {server}")
    for failure in failures:
        if failure.check(error.TimeoutError):
            return ConnectionTimeout(f"Connection timed out: {server}")
    last = failures[-1].value
    if isinstance(last, error.ConnectBindError) and server.source_address is not None:
        return ConnectionFailed(f"Cannot connect from {server.source_address} to {server}: {last}")
    return ConnectionFailed(f"Cannot connect to {server}: {last}")
