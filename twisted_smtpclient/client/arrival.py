"""
Reading what has come by the time that everybody has written.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Reads in one turn of the reactor, which waits for them: at some 50 µs each, what
#: they are answered with included, 3 ms.
MOST: Final = 64

#: Nothing but that there is something to read.
_READABLE: Final = getattr(select, "EPOLLIN", 1)

_log = Logger(__name__)


class Arrivals:
    """
    The sockets of sessions that wait for a reply with each mail.

    What the reactor does to give a session what was read is a quarter of the cost
    of such a mail.  A server that is near has answered the first of many sessions
    when the last has written; those are asked for at once, all with one call.
    Where nothing has come that is one call a turn.

    The reactor goes on to watch these sockets as ever, and what else happens to
    them is left to it.
    """

    def __init__(self) -> None:
        self._epoll: Any = None
        self._transports: dict[int, Any] = {}
        #: by what id() says of the transport, which need not be hashable
        self._descriptors: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Arrivals on {len(self._transports)} sockets>"

    def watch(self, transport: Any) -> None:
        """Look for what comes on this one, where the system has a way to, and room."""
        descriptor: int = transport.fileno()
        if descriptor < 0 or not hasattr(select, "epoll"):
            return
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
            self._epoll.register(descriptor, _READABLE)
        except OSError:
            # No descriptor is left, or no watch: the reactor reads it, as ever.
            return
        self._transports[descriptor] = transport
        self._descriptors[id(transport)] = descriptor

    def forget(self, transport: Any) -> None:
        """Look no more; its socket may be closed by now."""
        descriptor = self._descriptors.pop(id(transport), None)
        if descriptor is None or self._transports.get(descriptor) is not transport:
            return
        del self._transports[descriptor]
        with suppress(OSError):
            self._epoll.unregister(descriptor)
        if not self._transports:
            self._epoll.close()
            self._epoll = None

    def read(self, most: int) -> int:
        """
        Give sessions what has come.

        :param most: how many at the most.
        :returns: how many there were.
        """
        if self._epoll is None:
            return 0
        count = 0
        for descriptor, event in self._epoll.poll(0, most):
            # One may have ended for what another was told.
            transport = self._transports.get(descriptor)
            if transport is not None and event == _READABLE:
                _read(transport)
                count += 1
        return count


def _read(transport: Any) -> None:
    """What the reactor does where there is something to read, its log context aside."""
    try:
        why = transport.doRead()
    except Exception as error:
        _log.failure("a fault with what was read")
        why = error
    if why is not None:
        try:
            _disconnect(transport, why)
        except Exception:
            # There are others to read from.
            _log.failure("a fault with a connection that was lost")


def _disconnect(transport: Any, why: Exception) -> None:
    """As the reactor does it, which gives reasons without Twisted's words for them."""
    transport.stopReading()
    if isinstance(why, ConnectionDone):
        transport.readConnectionLost(Failure(ConnectionDone()))
        return
    transport.stopWriting()
    transport.connectionLost(Failure(ConnectionLost() if isinstance(why, ConnectionLost) else why))
