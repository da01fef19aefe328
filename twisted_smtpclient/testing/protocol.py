"""The transport's side of one session of the sink."""

from __future__ import annotations

from typing import Any
from typing import Protocol as Interface

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ITCPTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .channel import TLSChannel
from .dialogue import Dialogue
from .faults import Fault, FaultPlan, Stage
from .outbox import Outbox
from .records import Closed, Mail, Session
from .replies import Settings


class Owner(Interface):
    """What the protocol asks of its sink."""

    reactor: IReactorTime
    settings: Settings
    plan: FaultPlan
    delay: float
    split: int | None

    def begin_session(self, protocol: SinkProtocol, peer: str) -> Session: ...
    def next_number(self) -> int: ...
    def arrived(self, mail: Mail) -> None: ...
    def tell(self) -> None: ...
    def end_session(self, protocol: SinkProtocol) -> None: ...


@implementer(IHandshakeListener)
class SinkProtocol(Protocol):
    """
    One connection of a :class:`~twisted_smtpclient.testing.Sink`.

    :ivar session: what is recorded of it.
    :ivar awaited: whether the sink's end waits for this connection's: it came
        in by one of its own ports.
    """

    session: Session

    def __init__(self, sink: Owner, *, awaited: bool, handshake_fault: Fault | None = None) -> None:
        self.awaited = awaited
        self._sink = sink
        self._handshake_fault = handshake_fault
        # A burst was counted whose replies have not all gone out.
        self._burst_open = False
        self._tls_begun = False
        self._idle_call: IDelayedCall | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        sink = self._sink
        self.session = sink.begin_session(self, _name_of(transport.getPeer()))
        self._outbox = Outbox(
            sink.reactor, transport, delay=sink.delay, split=sink.split, drained=self._drained
        )
        self._dialogue = Dialogue(
            sink.settings,
            sink.plan,
            self.session,
            busy=lambda: self._outbox.busy,
            channel=TLSChannel(transport),
            start_tls=self._start_tls,
            next_number=sink.next_number,
            arrived=sink.arrived,
        )
        if self._handshake_fault is not None:
            self._dialogue.fail_handshake(self._handshake_fault)
        else:
            self._dialogue.greet()
            self._flush()

    def dataReceived(self, data: bytes) -> None:
        self.session.octets += len(data)
        if self._tls_begun:
            # In-memory transports do not tell of the handshake.
            self.session.tls = True
        if self._idle_call is not None:
            self._outbox.call_off(self._idle_call)
            self._idle_call = None
        self._dialogue.receive(data)
        if self._dialogue.turn_ended() and not self._burst_open:
            self.session.flights += 1
            self._burst_open = True
            self._dialogue.batch.append(self._end_burst)
        self._flush()
        self._sink.tell()

    def handshakeCompleted(self) -> None:
        self.session.tls = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._outbox.shut()
        session = self.session
        session.unfinished = self._dialogue.unfinished()
        session.reason = reason.getErrorMessage()
        if session.closed is None:
            if self._dialogue.ended_by_fault:
                session.closed = Closed.SINK
            elif self._dialogue.quit:
                session.closed = Closed.QUIT
            else:
                session.closed = Closed.CLIENT if reason.check(ConnectionDone) else Closed.LOST
        self._sink.end_session(self)

    def abort(self) -> None:
        """The sink stops."""
        if self.session.closed is None and not self._dialogue.quit:
            self.session.closed = Closed.SINK
        self._outbox.shut()
        transport: Any = self.transport
        transport.abortConnection()

    def _flush(self) -> None:
        batch, self._dialogue.batch = self._dialogue.batch, []
        if batch:
            self._outbox.put(batch)

    def _end_burst(self, outbox: Outbox) -> bool:
        self._burst_open = False
        return True

    def _start_tls(self, outbox: Outbox) -> bool:
        self._dialogue.tls_begins()
        self._tls_begun = True
        transport: Any = self.transport
        transport.startTLS(self._sink.settings.starttls)
        return True

    def _drained(self) -> None:
        """All is written; the server's idle time may hold a fault."""
        if not self._dialogue.idle:
            return
        self._dialogue.idle = False
        fault = self._sink.plan.take(Stage.IDLE, self.session.number)
        if fault is None:
            return
        if fault.after:
            self._idle_call = self._outbox.later(fault.after, lambda: self._fail_idle(fault))
        else:
            self._fail_idle(fault)

    def _fail_idle(self, fault: Fault) -> None:
        self._idle_call = None
        self._dialogue.fail_idle(fault)
        batch, self._dialogue.batch = self._dialogue.batch, []
        self._outbox.put(batch, at_once=True)


def _name_of(peer: Any) -> str:
    return f"{peer.host}:{peer.port}" if hasattr(peer, "port") else str(peer)
