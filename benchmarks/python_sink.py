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
from twisted.internet.task import LoopingCall, react
from twisted.internet.threads import deferToThread

from twisted_smtpclient.testing import Mail, Session, Sink


class _Counts:
    """The same that ``sink.c`` counts."""

    def __init__(self) -> None:
        self.recipients = self.octets = self.turns = self.peak = 0

    def mail(self, mail: Mail) -> None:
        self.recipients += len(mail.recipients)
        self.octets += mail.size

    def session(self, session: Session) -> None:
        self.turns += session.flights

    def look(self, connections: int) -> None:
        self.peak = max(self.peak, connections)


async def run(reactor: Any, arguments: argparse.Namespace) -> None:
    """Take mail until standard input ends, then print the counts."""
    counts = _Counts()
    sink = Sink(
        reactor,
        lmtp=arguments.lmtp,
        pipelining=not arguments.no_pipelining,
        chunking=not arguments.no_chunking,
        size=104_857_600,
        delay=arguments.delay / 1e6,
        keep_content=False,
        keep_records=False,
        on_mail=counts.mail,
        on_session=counts.session,
    )
    watch = LoopingCall(lambda: counts.look(len(sink.open_sessions)))
    watch.start(0.05)
    await sink.listen()
    sys.stdout.write(f"port {sink.port}\n")
    sys.stdout.flush()
    await deferToThread(sys.stdin.read)
    await sink.stop()
    result = {
        "messages": sink.mail_count,
        "recipients": counts.recipients,
        "octets": counts.octets,
        "connections": sink.session_count,
        "peak": counts.peak,
        "turns": counts.turns,
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
