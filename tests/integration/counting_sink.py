"""
A sink as a process, that notes the local part of each recipient it takes.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_smtpclient.testing import Mail, Sink

from .child import LOOPBACK


def main(_: object, port: str, path: str) -> Deferred[None]:
    """Take mail until interrupted."""
    file = open(path, "w", buffering=1)  # noqa: SIM115  # until the process ends

    def note(mail: Mail) -> None:
        file.write("".join(f"{address.partition('@')[0]}\n" for address in mail.addresses))

    sink = Sink(reactor, on_mail=note, keep_records=False)
    forever: Deferred[None] = Deferred()
    return Deferred.fromCoroutine(sink.listen(f"tcp:{port}:interface={LOOPBACK}")).addCallback(
        lambda _: forever
    )


if __name__ == "__main__":
    react(main, sys.argv[1:])
