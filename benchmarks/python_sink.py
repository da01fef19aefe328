"""
The sink of ``twisted_smtpclient.testing`` in the place of ``sink.c``, for
machines that have no compiler.  Far slower: it is what limits fast clients.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from twisted_smtpclient.testing import Mail, Session, Sink


class _CountingSink(Sink):
    """Counts the same that ``sink.c`` does."""

    def __init__(self, reactor: Any, **settings: Any) -> None:
        super().__init__(
            reactor,
            keep_content=False,
            keep_records=False,
            on_mail=self._count_mail,
            on_session=self._count_session,
            **settings,
        )
        self.recipients = self.octets = self.turns = 0
        self.open_now = self.peak = 0

    def begin_session(self, protocol: Any, peer: str) -> Session:
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        return super().begin_session(protocol, peer)

    def _count_session(self, session: Session) -> None:
        self.open_now -= 1
        self.turns += session.flights

    def _count_mail(self, mail: Mail) -> None:
        self.recipients += len(mail.recipients)
        self.octets += mail.size


async def run(reactor: Any, arguments: argparse.Namespace) -> None:
    """Take mail until standard input ends, then print the counts."""
    sink = _CountingSink(
        reactor,
        lmtp=arguments.lmtp,
        pipelining=not arguments.no_pipelining,
        chunking=not arguments.no_chunking,
        size=104_857_600,
        delay=arguments.delay / 1e6,
    )
    await sink.listen()
    sys.stdout.write(f"port {sink.port}\n")
    sys.stdout.flush()
    await deferToThread(sys.stdin.read)
    await sink.stop()
    result = {
        "messages": sink.mail_count,
        "recipients": sink.recipients,
        "octets": sink.octets,
        "connections": sink.session_count,
        "peak": sink.peak,
        "turns": sink.turns,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the options of ``sink.c``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-p", dest="no_pipelining", action="store_true")
    parser.add_argument("-c", dest="no_chunking", action="store_true")
    parser.add_argument("-l", dest="lmtp", action="store_true")
    parser.add_argument("-d", dest="delay", type=float, default=0.0, metavar="MICROSECONDS")
    arguments = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, arguments)))


if __name__ == "__main__":
    main()
