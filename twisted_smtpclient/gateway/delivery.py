"""
The requests under way for all clients of a daemon, whichever gateway they came
by; from the first to the last, when the daemon goes down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..errors import Cancelled, ShuttingDown
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Server
from ..smtp.probe import Probe
from ..smtp.result import DeliveryResult
from ..smtp.trace import Trace
from .codec import AnyRequest, CancelRequest, ProbeRequest, Request
from .journal import Journal
from .keys import KEY_TTL, Keys
from .memory import Memory
from .reply import encode_cancel, encode_error
from .under_way import (
    FAULT,
    Answer,
    Delivering,
    Ended,
    Probing,
    Tell,
    UnderWay,
)

__all__ = ["FAULT", "Answer", "Deliverer", "Deliveries"]

SHUTTING_DOWN: Final = "the daemon is shutting down"

_log = Logger(__name__)


class Awaited(Protocol):
    """What a Deferred is to a request."""

    def addCallbacks(self, callback: Callable[[Any], Any], errback: Callable[[Any], Any]) -> object:
        """Whom the result is given to, or the Failure; called once."""
        ...

    def cancel(self) -> None:
        """Errback at once."""
        ...


class Deliverer(Protocol):
    """What delivers: :class:`twisted_smtpclient.DeliveryAgent`, or a test's own."""

    def deliver(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        *,
        reuse: bool = True,
        trace: Trace | None = None,
    ) -> Deferred[DeliveryResult]:
        """
        Deliver one mail.

        :param reuse: whether it may share a kept connection and leave one
            behind.
        :param trace: is filled in as the delivery goes on.
        :returns: a Deferred of the server's verdicts, which errbacks with a
            :class:`~twisted_smtpclient.errors.DeliveryError` for the lack of
            them, and on ``cancel()`` at once, with
            :class:`~twisted_smtpclient.errors.Cancelled`.
        """
        ...

    def begin(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        *,
        reuse: bool = True,
        trace: Trace | None = None,
    ) -> Awaited:
        """As :meth:`deliver`, for one who wants no more of a Deferred than that."""
        ...

    def probe(self, server: Server, *, trace: Trace | None = None) -> Deferred[Probe]:
        """Look at a server; errors and ``cancel()`` as of :meth:`deliver`."""
        ...


class Deliveries:
    """
    The requests under way for all clients of a daemon.

    They belong to nobody else: a client that goes away takes none with it.

    :param deliverer: what delivers.
    :param clock: tells the seconds of the log, and when draining is over.
    :param memory: what they are counted in.
    :param key_ttl: seconds for which the outcome of a request with a key is
        kept.
    :ivar begin: the deliverer's, as it was in the beginning.
    :ivar draining: whether new requests are answered ShuttingDown.
    :ivar rejected: how many were answered without having been under way, by
        the error's name.
    :ivar journal: tells the log of each that has ended.
    :ivar keys: the requests with a key.
    :ivar wants_sample: whether the next has a trace, asked for or not.
    """

    def __init__(
        self,
        deliverer: Deliverer,
        clock: IReactorTime,
        *,
        memory: Memory | None = None,
        key_ttl: float = KEY_TTL,
    ) -> None:
        self.deliverer = deliverer
        self.clock = clock
        # Bound once, not for each delivery.
        self.seconds = clock.seconds
        self.begin = deliverer.begin
        self.draining = False
        self.rejected: Counter[str] = Counter()
        self.wants_sample = False
        self.journal = Journal(clock)
        self.memory = memory or Memory()
        self.keys = Keys(self._deliver, clock, self.memory, ttl=key_ttl)
        #: by client, for whom to look through all would be to wait for others
        self._under_way: dict[object, set[UnderWay]] = {}
        self._drained: list[Deferred[None]] = []
        self._end_of_draining: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Deliveries: {self.under_way} under way{', draining' if self.draining else ''}>"

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return sum(map(len, self._under_way.values()))

    def start(self, request: AnyRequest, answer: Answer, client: object = None) -> None:
        """
        Deliver what ``request`` asks for, look at its server, or end others.

        :param answer: is called exactly once, with the reply; maybe before
            this returns.
        :param client: whose it is, for a cancel reaches none of others'.
        """
        if type(request) is CancelRequest:
            answer(encode_cancel(request.id, self.cancel(client, request.target)))
            return
        if self.draining:
            self.rejected["ShuttingDown"] += 1
            answer(encode_error(request.id, ShuttingDown(SHUTTING_DOWN)))
            return
        if isinstance(request, Request):
            self._begin(Delivering(self, request, answer, client))
        else:
            assert isinstance(request, ProbeRequest)
            self._begin(Probing(self, request, answer, client))

    def tell(self, request: Request | ProbeRequest, tell: Tell, client: object = None) -> None:
        """
        As :meth:`start`, for who wants the outcome as it is.

        :param tell: is called exactly once; maybe before this returns.
        """
        if self.draining:
            tell(Ended(ShuttingDown(SHUTTING_DOWN), None))
        elif isinstance(request, Request):
            self._begin(Delivering(self, request, tell, client, as_it_is=True))
        else:
            self._begin(Probing(self, request, tell, client, as_it_is=True))

    def _begin(self, under_way: UnderWay) -> None:
        client = under_way.client
        theirs = self._under_way.get(client)
        if theirs is None:
            theirs = self._under_way[client] = set()
        theirs.add(under_way)
        self.memory.take(under_way.cost)
        under_way.start()

    def cancel(self, client: object, request_id: int | str) -> bool:
        """
        End each request of ``client`` that bears this id.

        :returns: whether there was one.
        """
        found = [each for each in self._under_way.get(client, ()) if each.request.id == request_id]
        for each in found:
            each.cut_off(Cancelled("cancelled by the client"))
        return bool(found)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Take nothing more, and finish what is under way.

        :param seconds: what is under way after so long is cancelled, and
            answered ShuttingDown.
        :returns: fires when nothing is under way.
        """
        self.draining = True
        if not self._under_way:
            self._at_rest()
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._end_of_draining = end = self.clock.callLater(seconds, self._cancel_all)

        def stop_waiting(result: None) -> None:
            if end.active():
                end.cancel()

        self._drained.append(drained)
        return drained.addCallback(stop_waiting)

    def ended(self, under_way: UnderWay) -> None:
        """For a request to say: it is over."""
        self.memory.give_back(under_way.cost)
        theirs = self._under_way[under_way.client]
        theirs.discard(under_way)
        if not theirs:
            del self._under_way[under_way.client]
            if self.draining and not self._under_way:
                self._at_rest()
                waiting, self._drained = self._drained, []
                for drained in waiting:
                    drained.callback(None)

    def _at_rest(self) -> None:
        # The reactor may have no further turn.
        self.journal.flush()
        self.keys.stop()

    def sample(self) -> None:
        """
        From now on let one of those that are logged together have a trace:
        each of a quiet daemon, one in :data:`.journal.MAX_LINES` of a busy one.
        """
        self.wants_sample = True
        self.journal.listeners.append(self._sample_next)

    def _sample_next(self, _: object) -> None:
        self.wants_sample = True

    def hurry(self) -> None:
        """Do not wait any longer for what is under way, where it drains."""
        if self._end_of_draining is not None and self._end_of_draining.active():
            self._end_of_draining.reset(0)

    def state(self) -> dict[str, float]:
        """How it stands, by the names of the daemon's metrics."""
        return {
            "in_flight": self.under_way,
            "draining": int(self.draining),
            "memory_bytes": self.memory.held,
            "keys": len(self.keys),
        }

    def _cancel_all(self) -> None:
        _log.warn("{count} deliveries are cut off by the end of draining", count=self.under_way)
        for theirs in list(self._under_way.values()):
            for each in tuple(theirs):
                each.cut_off(ShuttingDown(SHUTTING_DOWN))

    def _deliver(self, request: Request, trace: Trace | None) -> Deferred[DeliveryResult]:
        return self.deliverer.deliver(
            request.server, request.envelope, request.content, reuse=request.reuse, trace=trace
        )
