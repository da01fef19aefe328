"""
Sessions in memory, with a sink or with what a test itself says.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from tests.client.memory import End, Network, Outcome
from twisted_smtpclient import (
    Content,
    DeliveryAgent,
    DeliveryResult,
    Envelope,
    PipeliningESMTPClient,
    Server,
    TLSMode,
)
from twisted_smtpclient.testing import Sink

HOST = "192.0.2.1"
SENDER = "me@example.org"
RECIPIENTS = ("a@example.net", "b@example.net")
#: Seconds after which a sink has closed what it wanted closed.
OUTLASTS_A_SINK = 3.0
MESSAGE = b"Subject: hi\r\n\r\nhello\r\n"


def terms(**changes: Any) -> Server:
    """Terms of a session in memory; in clear unless told."""
    changes.setdefault("host", HOST)
    changes.setdefault("tls", TLSMode.NO)
    return Server(**changes)


def envelope(*recipients: str) -> Envelope:
    return Envelope(SENDER, recipients or RECIPIENTS)


class Script(Protocol):
    """
    A server of which each word is the test's.

    :ivar heard: what the client has said since it was last asked for.
    """

    def __init__(self) -> None:
        self._heard = b""
        self.all = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        self.all += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    @property
    def heard(self) -> bytes:
        heard, self._heard = self._heard, b""
        return heard


class Session:
    """
    One client's session with a script.

    :ivar end: the client's end of the connection.
    """

    def __init__(
        self,
        server: Server | None = None,
        *,
        address: IPv4Address | IPv6Address | UNIXAddress | None = None,
        client: PipeliningESMTPClient | None = None,
        **options: Any,
    ) -> None:
        self.network = Network()
        if client is None:
            client = PipeliningESMTPClient(server=server or terms(), reactor=self.network, **options)
        self.client = client
        self.script = Script()
        self.ready: Outcome[PipeliningESMTPClient] = Outcome(client.when_ready())
        self.gone: Outcome[None] = Outcome(client.when_gone())
        self.end: End = self.network.join(client, self.script, address)
        self.network.settle()

    def say(self, *lines: bytes) -> bytes:
        """Say lines in one segment; what the client says then."""
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def send(self, octets: bytes) -> bytes:
        """The same, octets as they stand."""
        assert isinstance(self.end.other, End)
        self.end.other.write_raw(octets)
        self.network.settle()
        return self.script.heard

    def octet_by_octet(self, *lines: bytes) -> bytes:
        heard = b""
        for octet in b"".join(line + b"\r\n" for line in lines):
            heard += self.send(bytes([octet]))
        return heard

    def hang_up(self) -> None:
        self.end.other.lose()
        self.network.settle()

    def open(self, *offers: bytes) -> bytes:
        """Greet, and answer EHLO; what the client says then."""
        self.say(b"220 server.example ESMTP")
        words = [b"server.example", *offers]
        lines = [b"250-" + word for word in words[:-1]]
        return self.say(*lines, b"250 " + words[-1])

    def deliver(
        self, *recipients: str, message: bytes = MESSAGE
    ) -> tuple[Deferred[DeliveryResult], Outcome[DeliveryResult]]:
        result = self.client.deliver(envelope(*recipients), Content(message))
        outcome = Outcome(result)
        self.network.settle()
        return result, outcome

    @property
    def over(self) -> bool:
        """Whether the connection has gone on both sides, and its timers with it."""
        gone = not self.end.connected and self.script.lost and self.gone.came == 1
        return gone and self.network.getDelayedCalls() == []


class Post:
    """
    An agent and a sink in memory.

    :param agent: what the agent is given; the rest is the sink's.
    """

    def __init__(self, *, agent: Mapping[str, Any] = MappingProxyType({}), **sink: Any) -> None:
        self.network = Network()
        self.sink = Sink(self.network, **sink)
        self.network.serve(self.sink, HOST)
        self.agent = DeliveryAgent(self.network, **agent)

    def deliver(self, *recipients: str, message: bytes = MESSAGE, **changes: Any) -> Deferred[DeliveryResult]:
        return self.agent.deliver(terms(**changes), envelope(*recipients), Content(message))

    def delivered(
        self, *recipients: str, message: bytes = MESSAGE, bound: float = 0.0, **changes: Any
    ) -> Outcome[DeliveryResult]:
        return self.network.until(self.deliver(*recipients, message=message, **changes), bound)

    def close(self) -> None:
        """Close the agent, which leaves nothing behind."""
        assert self.network.until(self.agent.close(), 10.0).value is None
        self.network.elapse(OUTLASTS_A_SINK)
        self.network.assert_nothing_is_left()


class Single:
    """
    One session with a sink, for the mails that it is given and no more.

    :param changes: the terms; in clear unless told.
    """

    def __init__(self, changes: Mapping[str, Any] = MappingProxyType({}), **sink: Any) -> None:
        self.network = Network()
        self.sink = Sink(self.network, **sink)
        self.client = PipeliningESMTPClient(server=terms(**changes), reactor=self.network)
        self.end: End

    def deliver(self, *recipients: str, message: bytes = MESSAGE) -> Deferred[DeliveryResult]:
        return self.client.deliver(envelope(*recipients), Content(message))

    def connect(self) -> None:
        self.end = self.network.join(self.client, self.sink.buildProtocol(None))

    def delivered(
        self, *recipients: str, message: bytes = MESSAGE, bound: float = 0.0
    ) -> Outcome[DeliveryResult]:
        """Deliver one mail and finish."""
        result = self.deliver(*recipients, message=message)
        self.client.finish()
        self.connect()
        return self.network.until(result, bound)

    def end_in_time(self) -> None:
        """The session ends within QUIT's bound, and leaves nothing behind."""
        self.network.elapse(5.5)
        assert not self.end.connected
        self.network.elapse(OUTLASTS_A_SINK)
        self.network.assert_nothing_is_left()
