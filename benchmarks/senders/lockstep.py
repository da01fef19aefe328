"""
Twisted's own ``ESMTPClient``, on kept connections.

It asks for one mail after the other by its hooks; its factories send one and
hang up, so the class that keeps sending is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from twisted.internet.protocol import ClientFactory
from twisted.mail.smtp import ESMTPClient

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, fail, message


class ManyMails(ESMTPClient):
    """Sends mails as long as there are any left to begin."""

    def __init__(self, sending: Sending) -> None:
        ESMTPClient.__init__(self, None, None, HELO)
        self.requireAuthentication = False
        self.requireTransportSecurity = False
        self.sending = sending

    def getMailFrom(self) -> str | None:
        return SENDER if next(self.sending.numbers, None) is not None else None

    def getMailTo(self) -> list[str]:
        return self.sending.recipients

    def getMailData(self) -> BytesIO:
        return BytesIO(self.sending.content)

    def sentMail(self, code: int, resp: bytes, numOk: int, addresses: Any, log: Any) -> None:
        self.sending.sent(numOk)

    def sendError(self, exc: Exception) -> None:
        fail(exc)


class Sending(ClientFactory):
    """The mails of all connections."""

    noisy = False

    def __init__(self, reactor: Any, job: Job) -> None:
        self.reactor = reactor
        self.job = job
        self.recipients = addresses(job.recipients)
        # It makes CRLF of each LF.
        self.content = message(job.size).replace(b"\r\n", b"\n")
        self.numbers: Iterator[int] = iter(range(job.messages))
        self.left = job.messages
        self.meter = Meter()

    def begin(self) -> None:
        self.meter.start()
        for _ in range(self.job.connections):
            self.reactor.connectTCP(HOST, self.job.port, self)

    def buildProtocol(self, addr: Any) -> ManyMails:
        return ManyMails(self)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        fail(reason.value)

    def sent(self, accepted: int) -> None:
        if accepted != self.job.recipients:
            fail("not all accepted")
        self.left -= 1
        if not self.left:
            self.meter.stop()
            self.reactor.stop()


def main() -> None:
    """Send, and tell what it took."""
    from twisted.internet import reactor

    reactor.callWhenRunning(Sending(reactor, Job.from_command_line()).begin)
    reactor.run()


if __name__ == "__main__":
    main()
