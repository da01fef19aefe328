"""
The daemon: what delivers, the gateways in front of it, where they listen.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from .gateway.delivery import Deliverer, Deliveries
from .gateway.jsonlines import MAX_IN_FLIGHT, MAX_REQUEST, JSONLinesFactory

__all__ = ["DRAIN_TIMEOUT", "Daemon"]

#: Seconds; with a client's last two for its replies it stays within the 30
#: that a container's runtime commonly waits between SIGTERM and SIGKILL.
DRAIN_TIMEOUT: Final = 25.0

_log = Logger()


class ClosableDeliverer(Deliverer, Protocol):
    """What delivers and can be ended."""

    def close(self) -> Deferred[None]:
        """End what is left; fires when no connection is open."""
        ...


class Daemon(MultiService):
    """
    Takes requests on each endpoint and hands them to one agent.

    It starts on all of its endpoints or not at all: a port in use is an
    exception from :meth:`startService`.  When it is stopped it first drains.

    :param clock: the reactor, as a clock.
    :param agent: delivers; it is closed when the daemon has stopped.
    :param endpoints: where clients connect.
    :param drain_timeout: seconds for what is under way, when stopped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        agent: ClosableDeliverer,
        endpoints: Sequence[IStreamServerEndpoint],
        *,
        max_request: int = MAX_REQUEST,
        max_in_flight: int = MAX_IN_FLIGHT,
        drain_timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        MultiService.__init__(self)
        self.agent = agent
        self.endpoints = tuple(endpoints)
        self.drain_timeout = drain_timeout
        self.deliveries = Deliveries(agent, clock)
        self.clients = JSONLinesFactory(
            self.deliveries, clock, max_request=max_request, max_in_flight=max_in_flight
        )
        #: Where it listens, in the order of the endpoints.
        self.ports: list[IListeningPort] = []
        self._listening: list[Deferred[Any]] = []

    def privilegedStartService(self) -> None:
        """Listen, while the process may still bind to ports under 1024."""
        MultiService.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """Listen, where that was not done yet."""
        MultiService.startService(self)
        self._listen()

    def _listen(self) -> None:
        if self._listening:
            return
        for endpoint in self.endpoints:
            failures: list[Failure] = []
            listening = endpoint.listen(self.clients)
            listening.addCallbacks(self.ports.append, failures.append)
            self._listening.append(listening)
            if failures:
                self._stop_listening()
                failures[0].raiseException()

    def _stop_listening(self) -> Deferred[Any]:
        for listening in self._listening:
            listening.cancel()
        self._listening = []
        ports, self.ports = self.ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Stop listening, drain, and only then close what delivers.

        :returns: a Deferred that fires when no client and no connection to a
            server is left, at most two seconds after ``drain_timeout``.
        """
        _log.info("draining, {deliveries}", deliveries=self.deliveries)
        try:
            yield self._stop_listening()
        except Exception:
            # A port that does not close is no reason to drop what is under way.
            _log.failure("a port could not be closed")
        yield self.clients.drain(self.drain_timeout)
        yield maybeDeferred(MultiService.stopService, self)
        yield self.agent.close()
