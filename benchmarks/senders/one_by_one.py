"""
``twisted.mail.smtp.sendmail``: a connection for each mail.
"""

from __future__ import annotations

from typing import Any

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, fail, message


class Sending:
    """As many calls under way as connections are wanted."""

    def __init__(self, reactor: Any, job: Job) -> None:
        self.reactor = reactor
        self.job = job
        self.recipients = addresses(job.recipients)
        self.content = message(job.size).replace(b"\r\n", b"\n")
        self.to_begin = self.to_end = job.messages
        self.meter = Meter()

    def begin(self) -> None:
        self.meter.start()
        for _ in range(min(self.job.connections, self.job.messages)):
            self.deliver()

    def deliver(self) -> None:
        from twisted.mail.smtp import sendmail

        self.to_begin -= 1
        sent = sendmail(
            HOST, SENDER, self.recipients, self.content, HELO, port=self.job.port, reactor=self.reactor
        )
        sent.addCallbacks(self.ended, self.failed)

    def ended(self, result: Any) -> None:
        if result[0] != self.job.recipients:
            fail("not all accepted")
        self.to_end -= 1
        if self.to_begin:
            self.deliver()
        elif not self.to_end:
            self.meter.stop()
            self.reactor.stop()

    def failed(self, failure: Any) -> None:
        fail(failure.value)


def main() -> None:
    """Send, and tell what it took."""
    from twisted.internet import reactor

    reactor.callWhenRunning(Sending(reactor, Job.from_command_line()).begin)
    reactor.run()


if __name__ == "__main__":
    main()
