"""
The project from Python: ``DeliveryAgent``, one process.
"""

from __future__ import annotations

import resource
from typing import Any

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, fail, message
from twisted_smtpclient import Content, DeliveryAgent, DeliveryResult, Envelope, Server


class Sending:
    """
    A window of deliveries under way: each that ends begins the next.

    Envelope and content are built anew for each, for that is what an
    application does.
    """

    def __init__(self, reactor: Any, job: Job) -> None:
        self.reactor = reactor
        self.job = job
        self.agent = DeliveryAgent(
            reactor,
            connections_per_host=job.connections,
            pipelining_depth=job.depth,
            # smtp-source -d keeps its connections to the end, too.
            messages_per_connection=1_000_000_000,
        )
        # What tells servers apart is all of their terms, the name we give among them.
        self.servers = [
            Server(host=HOST, port=job.port, helo=f"{number}.{HELO}") for number in range(job.servers)
        ]
        self.server = self.servers[0]
        self.recipients = addresses(job.recipients)
        self.message = b""
        self.to_begin = self.to_end = job.messages
        self.meter = Meter()

    def warm_up(self) -> None:
        """One mail that is not measured."""
        sent = self.agent.deliver(self.server, Envelope(SENDER, addresses(1)), Content(message(1024)))
        sent.addCallbacks(lambda _: self.reactor.callLater(0, self.begin), self.failed)

    def begin(self) -> None:
        """The mails that are measured."""
        self.meter.start()
        self.message = message(self.job.size)
        window = min(self.job.connections * self.job.depth, self.job.messages)
        for number in range(window):
            self.deliver(self.servers[number % len(self.servers)])

    def deliver(self, server: Server) -> None:
        self.to_begin -= 1
        delivered = self.agent.deliver(server, Envelope(SENDER, self.recipients), Content(self.message))
        delivered.addCallbacks(self.ended, self.failed)

    def ended(self, result: DeliveryResult) -> None:
        if not result.all_ok:
            fail(result)
        self.to_end -= 1
        if self.to_begin:
            self.deliver(self.server)
        elif not self.to_end:
            self.meter.stop()
            self.agent.close().addBoth(lambda _: self.reactor.stop())

    def failed(self, failure: Any) -> None:
        fail(failure.value)


def main() -> None:
    """Send, and tell what it took."""
    from twisted.internet import reactor

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = Job.from_command_line()
    sending = Sending(reactor, job)
    reactor.callWhenRunning(sending.warm_up if job.warm else sending.begin)
    reactor.run()


if __name__ == "__main__":
    main()
