"""What stands in for the agent and for a client's connection."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_smtpclient.client.pending import Pending
from twisted_smtpclient.errors import Cancelled
from twisted_smtpclient.gateway.delivery import Deliveries
from twisted_smtpclient.gateway.jsonlines import JSONLinesFactory
from twisted_smtpclient.gateway.memory import Memory
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Server
from twisted_smtpclient.smtp.probe import Probe
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.result import VERDICTS, DeliveryResult, RecipientStatus, Status
from twisted_smtpclient.smtp.trace import Trace

MESSAGE = b"Subject: test\r\n\r\nTest\r\n"
BASE64 = base64.b64encode(MESSAGE).decode()

#: Two requests of clients of the system before this one, as they stand.
LEGACY_LINES = [
    b'{"host":"192.168.1.100","port":25,"helo":"localhost","pipelining":"TRY","connection_timout":5,'
    b'"sender":"foo@bar.de","recpients":["rcpt1@bar2.de","rcpt2@bar2.de"],'
    b'"message":"U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="}',
    b'{"host":"localhost","port":1025,"helo":"localhost","pipeling":"TRY","connection_timeout":5,'
    b'"sender":"foo@bar.de","recipients":["foo@bar.de","foo2@bar.de"],'
    b'"message":"U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="}',
]


def fields(**changed: Any) -> dict[str, Any]:
    """A good request, but for what is changed; ``...`` leaves a field out."""
    given = {
        "host": "mx.example",
        "sender": "foo@bar.de",
        "recipients": ["valid@valid.de"],
        "message": BASE64,
        **changed,
    }
    return {name: value for name, value in given.items() if value is not ...}


def line(**changed: Any) -> bytes:
    return json.dumps(fields(**changed)).encode()


def verdict(recipient: str, text: str = "250 2.0.0 ok", command: str = ".") -> RecipientStatus:
    code = int(text[:3])
    reply = Reply(code, tuple(text.encode().split(b"\n")))
    return RecipientStatus(recipient, VERDICTS[code // 100], reply, command)


def unknown(recipient: str, *, in_doubt: bool) -> RecipientStatus:
    return RecipientStatus(recipient, Status.UNKNOWN, in_doubt=in_doubt)


class Delivery:
    """One call of deliver(), for the test to end."""

    def __init__(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        reuse: bool = True,
        trace: Trace | None = None,
    ) -> None:
        self.server = server
        self.envelope = envelope
        self.content = content
        self.reuse = reuse
        self.trace = trace
        #: What cancelling it tells of the recipients.
        self.on_cancel: tuple[RecipientStatus, ...] = ()
        self.deferred: Deferred[DeliveryResult] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[DeliveryResult]) -> None:
        error = Cancelled("cancelled")
        error.recipients = self.on_cancel
        deferred.errback(error)

    def succeed(self, text: str = "250 2.0.0 ok") -> None:
        recipients = [verdict(recipient.address, text) for recipient in self.envelope.recipients]
        self.deferred.callback(DeliveryResult(self.envelope.sender, recipients))

    def fail(self, error: Exception) -> None:
        self.deferred.errback(error)


class Probing:
    """One call of probe(), for the test to end."""

    def __init__(self, server: Server, trace: Trace | None = None) -> None:
        self.server = server
        self.trace = trace
        self.deferred: Deferred[Probe] = Deferred(lambda deferred: deferred.errback(Cancelled("cancelled")))


class FakeAgent:
    """Delivers when the test says so."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.probes: list[Probing] = []
        self.closed = 0
        #: Raised by the next call.
        self.fault: Exception | None = None
        #: Whether each delivery has succeeded when deliver() returns.
        self.at_once = False

    def deliver(
        self,
        server: Server,
        envelope: Envelope,
        content: Content,
        *,
        reuse: bool = True,
        trace: Trace | None = None,
    ) -> Deferred[DeliveryResult]:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        delivery = Delivery(server, envelope, content, reuse, trace)
        self.deliveries.append(delivery)
        if self.at_once:
            delivery.succeed()
        return delivery.deferred

    def begin(self, *mail: Any, **how: Any) -> Any:
        deferred = self.deliver(*mail, **how)
        pending = Pending(lambda _: deferred.cancel())
        deferred.addCallbacks(pending.callback, lambda failure: pending.errback(failure.value))
        return pending

    def probe(self, server: Server, *, trace: Trace | None = None) -> Deferred[Probe]:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        self.probes.append(Probing(server, trace))
        return self.probes[-1].deferred

    def close(self) -> Deferred[None]:
        self.closed += 1
        closed: Deferred[None] = Deferred()
        closed.callback(None)
        return closed

    def senders(self) -> list[str | None]:
        return [delivery.envelope.sender for delivery in self.deliveries]


class Transport(StringTransport):
    """One that counts its writes and what its producer is told."""

    def __init__(self) -> None:
        StringTransport.__init__(self)
        self.writes = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        StringTransport.write(self, data)

    def abortConnection(self) -> None:
        self.aborted = True
        StringTransport.loseConnection(self)


class Daemon:
    """A factory, its clock and its agent."""

    def __init__(self, *, memory: Memory | None = None, key_ttl: float = 600.0, **bounds: Any) -> None:
        self.clock = Clock()
        self.agent = FakeAgent()
        self.deliveries = Deliveries(self.agent, self.clock, memory=memory, key_ttl=key_ttl)
        self.factory = JSONLinesFactory(self.deliveries, self.clock, **bounds)

    def client(self) -> Client:
        return Client(self)


class Client:
    """One connection, seen from the client's side."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.transport: Any = Transport()
        self.protocol: Any = daemon.factory.buildProtocol(None)
        Protocol.makeConnection(self.protocol, self.transport)

    def send(self, *lines: bytes) -> None:
        self.send_octets(b"".join(line + b"\n" for line in lines))

    def send_octets(self, octets: bytes) -> None:
        self.protocol.dataReceived(octets)

    def half_close(self) -> None:
        self.protocol.readConnectionLost()

    def go_away(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def replies(self) -> list[dict[str, Any]]:
        """All that was written since the last call, once the reactor's turn is over."""
        self.daemon.clock.advance(0)
        octets = self.transport.value()
        self.transport.clear()
        assert not octets or octets.endswith(b"\n")
        return [json.loads(each) for each in octets.splitlines()]

    def reply(self) -> dict[str, Any]:
        (reply,) = self.replies()
        return reply

    def reading(self) -> bool:
        return bool(self.transport.producerState == "producing")

    def closed(self) -> bool:
        return bool(self.transport.disconnecting)

    def aborted(self) -> bool:
        return bool(self.transport.aborted)
