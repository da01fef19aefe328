"""The sink driven by raw octets, over a transport in memory and a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_smtpclient.testing import Mail, Session, Sink

#: How the same octets may come in: in one read, a line a read, an octet a read.
WAYS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "whole": lambda octets: [octets],
    "line by line": lambda octets: octets.splitlines(keepends=True),
    "octet by octet": lambda octets: [octets[at : at + 1] for at in range(len(octets))],
}


class Driven:
    """
    One session of a sink.

    :ivar clock: the sink's reactor.
    """

    def __init__(self, sink: Sink | None = None, **settings: Any) -> None:
        self.sink = Sink(Clock(), **settings) if sink is None else sink
        self.clock: Clock = self.sink.reactor
        self.transport = StringTransport()
        protocol = self.sink.buildProtocol(None)
        assert protocol is not None
        self.protocol: IProtocol = protocol
        self.protocol.makeConnection(self.transport)
        self.session: Session = self.sink.sessions[-1]

    def heard(self) -> bytes:
        """What the sink has written since this was asked last."""
        octets: bytes = self.transport.value()
        self.transport.clear()
        return octets

    def codes(self) -> list[int]:
        """The codes of the replies in it."""
        return [int(line[:3]) for line in self.heard().splitlines() if line[3:4] == b" "]

    def send(self, octets: bytes) -> bytes:
        """Hand it over as one read; what the sink answers."""
        self.protocol.dataReceived(octets)
        return self.heard()

    def say(self, *commands: bytes) -> list[int]:
        """The commands in one read; the codes of the replies."""
        self.protocol.dataReceived(b"".join(command + b"\r\n" for command in commands))
        return self.codes()

    def begin(self, hello: bytes = b"EHLO client.example") -> Driven:
        """Past the greeting and the hello."""
        self.heard()
        assert self.say(hello) == [250]
        return self

    def send_each(self, octets: bytes, way: str) -> bytes:
        return b"".join(self.send(piece) for piece in WAYS[way](octets))

    @property
    def mail(self) -> Mail:
        """The only mail."""
        (mail,) = self.sink.mails
        return mail


ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
