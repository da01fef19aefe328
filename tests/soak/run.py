"""
One run: servers, a daemon, clients; and whether all is as it was behind them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from tests.integration.child import free_ports
from tests.soak.clients import Clients
from tests.soak.ledger import Ledger
from tests.soak.servers import Servers
from tests.soak.subject import MAX_REQUEST, Child, Inside, Subject

#: Seconds for all to be as it was behind the last client.
REST: Final = 20.0

#: Seconds for the last clients to have their replies.
LAST_REPLIES: Final = 120.0


class Soak:
    """
    One run.

    :param clients: how many there are at a time.
    """

    def __init__(self, reactor: Any, seed: int, folder: Path, *, clients: int, in_process: bool) -> None:
        self.ledger = Ledger()
        self._reactor = reactor
        self._seed = seed
        self._count = clients
        self._folder = folder
        self._subject: Subject = Inside(reactor) if in_process else Child(folder / "daemon")
        self._servers = Servers(reactor, random.Random(f"{seed}/servers"), self.ledger.record)
        self._clients: Clients
        self._seconds = 0.0

    async def through(self, seconds: float) -> None:
        """All of it."""
        began = time.monotonic()
        # The reactor's own descriptors come with its first turn.
        await deferLater(self._reactor, 0.0)
        delayed, files = self._delayed(), self._files()
        token = "soak"
        tokens = self._folder / "tokens"
        tokens.write_text(f"{token}\n")
        (port,) = free_ports(1)
        await self._servers.listen()
        await self._subject.start(port, token, tokens)
        self._clients = Clients(
            self._reactor,
            port,
            self.ledger,
            self._servers.terms,
            self._seed,
            token=token,
            max_request=MAX_REQUEST,
        )
        await self._storm(seconds)
        await self._rest()
        self.ledger.broken += await self._subject.stop()
        await self._servers.stop()
        self.ledger.check()
        await self._settled(delayed, files)
        self._seconds = time.monotonic() - began

    async def _storm(self, seconds: float) -> None:
        begin = LoopingCall(lambda: self._clients.keep(self._count))
        harm = LoopingCall(self._servers.misbehave)
        running = [each.start(interval) for each, interval in ((begin, 0.05), (harm, 0.1))]
        await deferLater(self._reactor, seconds)
        begin.stop()
        harm.stop()
        for each in running:
            await each
        self._servers.behave()
        end: Deferred[None] = self._clients.stop()
        end.addTimeout(LAST_REPLIES, self._reactor)
        try:
            await end
        except Exception:
            left = Counter(self._clients.under_way.values())
            self.ledger.breach(f"clients that wait for ever: {dict(left)}")

    async def _rest(self) -> None:
        """Let what was kept be given up; then all is to be as it was."""
        until = time.monotonic() + REST
        while (wrong := self._subject.resting()) and time.monotonic() < until:
            await deferLater(self._reactor, 0.1)
        self.ledger.broken += wrong

    async def _settled(self, delayed: int, files: int) -> None:
        # What was closed is told of in the reactor's next turns.
        for _ in range(20):
            if self._delayed() <= delayed and self._files() <= files:
                return
            await deferLater(self._reactor, 0.05)
        if self._delayed() > delayed:
            self.ledger.breach(f"delayed calls that are left: {self._reactor.getDelayedCalls()}")
        if self._files() > files:
            self.ledger.breach(f"{self._files()} sockets, {files} before: {self._reactor.getReaders()}")

    def _delayed(self) -> int:
        return len(self._reactor.getDelayedCalls())

    def _files(self) -> int:
        return len(self._reactor.getReaders()) + len(self._reactor.getWriters())

    def summary(self) -> str:
        """What came of it, a line each."""
        mails = len(self.ledger.asked)
        lines = [
            f"seed {self._seed}: {mails} mails of {self._clients.begun} clients in {self._seconds:.0f} s, "
            f"{sum(self.ledger.recorded.values())} recorded in {self._servers.sessions} sessions",
            "told: " + ", ".join(f"{name} {count}" for name, count in sorted(self.ledger.counts.items())),
            self._subject.told,
        ]
        if self.ledger.broken:
            lines.append(f"BROKEN with seed {self._seed}, {len(self.ledger.broken)} times; the first:")
            lines.append(self.ledger.broken[0])
        else:
            lines.append("no rule was broken")
        return "\n".join(lines) + "\n"
