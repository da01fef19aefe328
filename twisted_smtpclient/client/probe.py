"""
Looking at servers: connections that are opened, read from, and closed.

They are none of the pool's.  A probe is made to find out about a server, why
mails wait for it included; so it does not wait for their connections, and no
mail waits for its.  What a server sees of us is bounded all the same: beside
``connections_per_host`` no more than :data:`AT_A_TIME`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import DeliveryError, InternalError
from ..smtp.limits import Limits
from ..smtp.policy import Server
from ..smtp.probe import Probe
from .chronicle import Chronicle
from .delivery import DeliveryCancelled
from .protocol import PipeliningESMTPClient
from .tracing import Tracing

#: Probes of one server, on the same terms, that have a connection at a time;
#: further ones take their turn.  One that hangs lets the next one through.
AT_A_TIME: Final = 2

_log = Logger(__name__)


class Probes:
    """
    The probes of an agent: those under way, and those that wait their turn.

    :param open_session: opens a session; cancelling what it returns ends it.
    """

    def __init__(self, open_session: Callable[[Server], Deferred[PipeliningESMTPClient]]) -> None:
        self.open_session = open_session
        # Of each server in the order in which they came; a dict, for one may
        # leave from the middle.
        self._lanes: dict[Server, dict[_Probing, None]] = {}
        self._going_on: set[Server] = set()

    def start(self, server: Server, tracing: Tracing | None = None) -> Deferred[Probe]:
        """Look at a server, behind those of it that came before."""
        probing = _Probing(self, server, tracing)
        self._lanes.setdefault(server, {})[probing] = None
        self._go_on(server)
        return probing.result

    def end(self, error: DeliveryError) -> None:
        """End all of them with ``error``."""
        for lane in list(self._lanes.values()):
            # From behind, so that none of those that wait has its turn now.
            for probing in reversed(list(lane)):
                probing.end(error)

    def left(self, probing: _Probing) -> None:
        """For a probe to say: it has no connection any more."""
        del self._lanes[probing.server][probing]
        self._go_on(probing.server)

    def _go_on(self, server: Server) -> None:
        if server in self._going_on:
            # One that began below has ended at once; thousands may do so.
            return
        self._going_on.add(server)
        lane = self._lanes[server]
        while begins := [probing for probing in islice(lane, AT_A_TIME) if not probing.begun]:
            begins[0].begin()
        self._going_on.discard(server)
        if not lane:
            del self._lanes[server]


class _Probing:
    """One of them."""

    def __init__(self, probes: Probes, server: Server, tracing: Tracing | None) -> None:
        self.server = server
        self._tracing = tracing
        self.result: Deferred[Probe] = Deferred(
            lambda _: self.end(DeliveryCancelled("the probe was cancelled"))
        )
        self._probes = probes
        self._opening: Deferred[PipeliningESMTPClient] | None = None
        self._has_result = False

    @property
    def begun(self) -> bool:
        """Whether its turn has come."""
        return self._opening is not None

    def begin(self) -> None:
        """Its turn has come."""
        self._opening = maybeDeferred(self._probes.open_session, self.server)
        self._opening.addCallbacks(self._opened, self._failed)

    def end(self, error: DeliveryError) -> None:
        """Errback now, and give up what is under way."""
        if self._has_result:
            return
        self._has_result = True
        if self._opening is not None:
            self._opening.cancel()
        else:
            self._probes.left(self)
        self._tell(error.chronicle)
        self.result.errback(error)

    def _opened(self, session: PipeliningESMTPClient) -> None:
        session.finish()
        session.when_gone().addCallback(lambda _: self._probes.left(self))
        if not self._has_result:
            self._has_result = True
            self._tell(session.chronicle, session)
            self.result.callback(_seen(session))

    def _failed(self, failure: Failure) -> None:
        self._probes.left(self)
        if self._has_result:
            return
        self._has_result = True
        error = failure.value
        if not isinstance(error, DeliveryError):
            _log.failure("a session could not be opened", failure)
            error = InternalError("a fault of the client; its log has the traceback")
        self._tell(error.chronicle)
        self.result.errback(error)

    def _tell(self, chronicle: Chronicle | None, session: PipeliningESMTPClient | None = None) -> None:
        if self._tracing is not None:
            self._tracing.waited_for(chronicle)
            if session is not None:
                self._tracing.goes_by(session)
            self._tracing.ended()


def _seen(session: PipeliningESMTPClient) -> Probe:
    """What a session, ready for its first mail, has found out."""
    handshake = session.handshake
    assert handshake is not None
    assert handshake.greeting is not None
    return Probe(
        greeting=handshake.greeting.text,
        extensions=handshake.told_extensions,
        tls=session.tls_session,
        authenticated=handshake.authenticated,
        limits=Limits.of(handshake.extensions),
    )
