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

from .client.agent import DeliveryAgent
from .gateway.delivery import Deliverer, Deliveries
from .gateway.jsonlines import MAX_IN_FLIGHT, MAX_REQUEST, JSONLinesFactory
from .gateway.keys import KEY_TTL
from .gateway.limit import MAX_CLIENTS
from .gateway.memory import MAX_MEMORY, Memory
from .gateway.token import Tokens
from .metrics import Metrics
from .operations.life import Life, State

__all__ = ["DRAIN_TIMEOUT", "Daemon", "metrics_of"]

#: Seconds; with a client's last two for its replies it stays within the 30
#: that a container's runtime commonly waits between SIGTERM and SIGKILL.
DRAIN_TIMEOUT: Final = 25.0

_log = Logger(__name__)


class ClosableDeliverer(Deliverer, Protocol):
    """What delivers and can be ended."""

    def close(self) -> Deferred[None]:
        """End what is left; fires when no connection is open."""
        ...


class Daemon(MultiService):
    """
    Takes requests on each endpoint and hands them to one agent.

    It starts on all of its endpoints or not at all: a port in use is an
    exception from :meth:`startService`.  When it is stopped it first drains;
    its parts, the services of which it is the parent, are stopped behind that.

    :param clock: the reactor, as a clock.
    :param agent: delivers; it is closed when the daemon has stopped.
    :param endpoints: where clients connect.
    :param max_clients: clients at a time; more wait to be accepted.
    :param max_memory: octets of lines, messages and replies held.
    :param key_ttl: seconds for which the outcome of a request with a key is
        kept.
    :param tokens: those of which a client is to show one first; None for none.
    :param drain_timeout: seconds for what is under way, when stopped.
    :ivar life: what it is doing; has its files read again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        agent: ClosableDeliverer,
        endpoints: Sequence[IStreamServerEndpoint],
        *,
        max_request: int = MAX_REQUEST,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_clients: int = MAX_CLIENTS,
        max_memory: int = MAX_MEMORY,
        key_ttl: float = KEY_TTL,
        tokens: Tokens | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        MultiService.__init__(self)
        self.agent = agent
        self.endpoints = tuple(endpoints)
        self.drain_timeout = drain_timeout
        self.deliveries = Deliveries(agent, clock, memory=Memory(max_memory), key_ttl=key_ttl)
        self.clients = JSONLinesFactory(
            self.deliveries,
            clock,
            max_request=max_request,
            max_in_flight=max_in_flight,
            max_clients=max_clients,
            tokens=tokens,
        )
        #: Where it listens, in the order of the endpoints.
        self.ports: list[IListeningPort] = []
        self._listening: list[Deferred[Any]] = []
        self.life = Life()

    def privilegedStartService(self) -> None:
        """Listen, while the process may still bind to ports under 1024."""
        MultiService.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """Listen, where that was not done yet; it is ready when it does so everywhere."""
        MultiService.startService(self)
        self._listen()
        gatherResults(self._listening).addCallback(self._listens)

    def _listens(self, _: object) -> None:
        # One whose endpoint failed later is not.
        if self.running and len(self.ports) == len(self.endpoints):
            self.life.enter(State.READY)

    def hurry(self) -> None:
        """Do not wait any longer for what is under way, where it drains or once it does."""
        self.drain_timeout = 0.0
        self.deliveries.hurry()

    def _listen(self) -> None:
        if self._listening:
            return
        for endpoint in self.endpoints:
            failures: list[Failure] = []
            listening = endpoint.listen(self.clients)
            listening.addCallbacks(self._opened, failures.append)
            self._listening.append(listening)
            if failures:
                self._stop_listening()
                failures[0].raiseException()

    def _opened(self, port: IListeningPort) -> None:
        self.ports.append(port)
        self.clients.limit.watch(port)

    def _stop_listening(self) -> Deferred[Any]:
        for listening in self._listening:
            listening.cancel()
        self._listening = []
        self.clients.limit.forget_ports()
        ports, self.ports = self.ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Stop listening, drain, and only then close what delivers.

        :returns: a Deferred that fires when no client and no connection to a
            server is left, at most two seconds after ``drain_timeout``.
        """
        self.life.enter(State.DRAINING)
        _log.info("draining, {deliveries}", deliveries=self.deliveries)
        try:
            yield self._stop_listening()
        except Exception:
            # A port that does not close is no reason to drop what is under way.
            _log.failure("a port could not be closed")
        yield self.clients.drain(self.drain_timeout)
        yield maybeDeferred(MultiService.stopService, self)
        yield self.agent.close()
        self.life.enter(State.STOPPED)


def metrics_of(daemon: Daemon, agent: DeliveryAgent) -> Metrics:
    """What the daemon and its agent have to tell, from now on."""
    metrics = Metrics()
    metrics.ask(daemon.clients.state)
    metrics.ask(daemon.deliveries.state)
    metrics.ask(agent.state)
    metrics.ask_for_rejected(lambda: daemon.deliveries.rejected)
    agent.on_ready(metrics.connected)
    daemon.deliveries.journal.listeners.append(metrics.told)
    daemon.deliveries.sample()
    return metrics
