"""
Writing what many sessions have to say in one go.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.tcp import Connection
from twisted.logger import Logger

from .arrival import MOST, Arrivals
from .connect import Reactor

#: Octets that a session writes in this way in one go: what Twisted's TCP sends
#: at most with one call.  A server that reads as fast as we write would have all
#: of a large content in one turn, and every other connection would wait for it.
AT_ONCE: Final = 131072

_log = Logger(__name__)


class Leaving(Protocol):
    """Who has something to write, or will have."""

    def take_turn(self) -> None:
        """All is given that is given in one turn of the reactor; raises nothing."""

    def depart(self) -> None:
        """Write it now."""


class Departure:
    """
    Lets the sessions of an agent write at the end of a turn of the reactor.

    Twisted's TCP transports write when the reactor comes by, one after the
    other between other events, at the price of two changes of what it waits
    for and of as many calls as a mail takes.  What leaves here leaves in one
    go: the peers are woken once, and find the next when they have dealt with
    one.  Where one has answered by then, that is read, and answered in turn.

    :param reactor: tells when the turn is over.
    :param alone: whether it is one session's own: then there is nobody whose reply
        could have come while others write, and no socket is looked at.
    :ivar arrivals: the sockets that are looked at.
    """

    def __init__(self, reactor: Reactor, *, alone: bool = False) -> None:
        self.arrivals = Arrivals()
        self._alone = alone
        self._reactor = reactor
        self._turns: list[Leaving] = []
        self._due: list[Leaving] = []
        self._is_leaving = False

    def watch(self, transport: Any) -> None:
        """Read early what comes on this one."""
        if not self._alone:
            self.arrivals.watch(transport)

    def call_turn(self, leaving: Leaving) -> None:
        """
        Have it take its turn in a moment, with all others whose turn it is by then.

        With a delayed call for each a busy daemon made 0.20 of them a request; now 0.08.
        """
        if not self._turns:
            self._reactor.callLater(0, self._take_turns)
        self._turns.append(leaving)

    def _take_turns(self) -> None:
        turns, self._turns = self._turns, []
        taken = 0
        try:
            for leaving in turns:
                taken += 1
                leaving.take_turn()
        finally:
            # As below.
            if taken < len(turns):
                self._turns = turns[taken:] + self._turns
                self._reactor.callLater(0, self._take_turns)

    def add(self, leaving: Leaving) -> None:
        """Have it write before the reactor waits again."""
        if not (self._due or self._is_leaving):
            self._reactor.callLater(0, self._leave)
        self._due.append(leaving)

    def _leave(self) -> None:
        self._is_leaving = True
        try:
            left = MOST
            read = self._all_depart(left)
            while read and read < left:
                left -= read
                read = self._all_depart(left)
        finally:
            # Whatever has come in between, such as a signal: others are still to leave.
            self._is_leaving = False
            if self._due:
                self._reactor.callLater(0, self._leave)

    def _all_depart(self, most: int) -> int:
        """Who is due by now; how many have been answered since."""
        due, self._due = self._due, []
        for leaving in due:
            _depart(leaving)
        return self.arrivals.read(most)


def _depart(leaving: Leaving) -> None:
    try:
        leaving.depart()
    except Exception:
        # The others' flights are not to be lost with it.
        _log.failure("a session could not write")


def writes_at_once(transport: Any) -> bool:
    """
    Whether :func:`write_at_once` knows how to write to a transport: Twisted's
    own for TCP and UNIX sockets, without TLS; no wrapper, and none that writes in
    a way of its own, be it by its class or because somebody listens in.
    """
    own = getattr(getattr(transport, "write", None), "__func__", None)
    if own is not Connection.write or transport.TLS:
        return False
    # Unless some later Twisted keeps what waits in another place.
    return hasattr(transport, "dataBuffer") and hasattr(transport, "_tempDataBuffer")


def write_at_once(transport: Any, octets: bytes) -> None:
    """
    Write to the socket of a transport.

    What it does not take now, and what goes wrong with it, is the transport's
    as ever.
    """
    written = 0
    waits = transport.dataBuffer or transport._tempDataBuffer
    # Where the connection is gone there is no socket.
    if transport.connected and not (waits or transport.disconnecting):
        # A count; or an exception, where the connection is lost, which the reactor
        # will find out by itself.
        taken: Any = transport.writeSomeData(octets)
        if isinstance(taken, int) and taken > 0:
            written = taken
    if written < len(octets):
        transport.write(octets[written:])
