"""
The daemon of a run: a process of its own, or in this one, where more can be seen of it.
"""

from __future__ import annotations

import gc
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEventAsClassicLogText, globalLogPublisher
from zope.interface import implementer

from tests.daemons import LOOPBACK, Client, Running
from tests.soak.process import connections, descriptors, peak, resident
from twisted_smtpclient import DeliveryAgent
from twisted_smtpclient.client.protocol import PipeliningESMTPClient
from twisted_smtpclient.gateway.jsonlines import JSONLinesProtocol
from twisted_smtpclient.gateway.token import Tokens
from twisted_smtpclient.gateway.under_way import UnderWay
from twisted_smtpclient.service import Daemon

MIB: Final = 1024 * 1024

#: What the daemon may hold, and the longest line.
MAX_MEMORY: Final = 64 * MIB
MAX_REQUEST: Final = MIB
#: Resident memory that it may take beside: the same again, for the allocator,
#: for the connections to servers, and for what is read in one turn.
MARGIN: Final = MAX_MEMORY

#: Seconds for which connections are kept.
IDLE: Final = 1.0


class Subject(Protocol):
    """The daemon, wherever it runs."""

    #: what it took up, once it has ended
    told: str

    async def start(self, port: int, token: str, tokens: Path) -> None:
        """Begin, with a token that is in a file."""
        ...

    def resting(self) -> list[str]:
        """What is not as it was when it had started; once nobody talks to it."""
        ...

    async def stop(self) -> list[str]:
        """End it; what was wrong with it."""
        ...


class Child:
    """The daemon as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told = ""

    async def start(self, port: int, token: str, tokens: Path) -> None:
        self._daemon = Running(
            self._folder,
            f"--listen=tcp:{port}:interface={LOOPBACK}",
            f"--token-file={tokens}",
            f"--max-memory={MAX_MEMORY}",
            f"--max-request={MAX_REQUEST}",
            f"--idle-timeout={IDLE}",
            "--messages-per-connection=50",
            "--drain-timeout=5",
        ).__enter__()
        self._pid = self._daemon.process.pid
        # It says that it is ready before the reactor has opened what it needs;
        # who is answered comes behind that, and has a descriptor himself.
        first = Client(port)
        first.say(token=token)
        first.hear()
        self._descriptors = descriptors(self._pid) - 1
        self._memory = resident(self._pid)
        first.close()

    def resting(self) -> list[str]:
        now = descriptors(self._pid)
        if now <= self._descriptors:
            return []
        return [f"{now} descriptors, {self._descriptors} before: {connections(self._pid)}"]

    async def stop(self) -> list[str]:
        grown = peak(self._pid) - self._memory
        self.told = f"peak memory {grown / MIB:.0f} MiB over {self._memory / MIB:.0f} MiB at the beginning"
        wrong = []
        if grown > MAX_MEMORY + MARGIN:
            wrong.append(f"{self.told}; at most {(MAX_MEMORY + MARGIN) / MIB:.0f} were expected")
        self._daemon.signal(signal.SIGTERM)
        status = await deferToThread(self._daemon.wait)
        # twistd ends by the signal that it was sent.
        if status not in (0, -signal.SIGTERM):
            wrong.append(f"exit status {status}")
        log = self._daemon.log.read_text(errors="replace")
        for word in ("Traceback", "#critical", "#error"):
            if word in log:
                at = log.index(word)
                wrong.append(f"in the log: {log[max(0, at - 200) : at + 2000]}")
                break
        self._daemon.kill()
        return wrong


@implementer(ILogObserver)
class Errors(list[str]):
    """What was logged as an error."""

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            self.append(str(formatEventAsClassicLogText(event)))


class Inside:
    """The daemon in this process."""

    #: What there may be none of at the end.
    KINDS: Final = (JSONLinesProtocol, PipeliningESMTPClient, UnderWay)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._errors = Errors()
        self.told = "in this process"

    async def start(self, port: int, token: str, tokens: Path) -> None:
        globalLogPublisher.addObserver(self._errors)
        agent = DeliveryAgent(self._reactor, idle_timeout=IDLE, messages_per_connection=50)
        self._daemon = Daemon(
            self._reactor,
            agent,
            [TCP4ServerEndpoint(self._reactor, port, interface=LOOPBACK)],
            max_request=MAX_REQUEST,
            max_memory=MAX_MEMORY,
            tokens=Tokens(str(tokens)),
            drain_timeout=5.0,
        )
        self._daemon.startService()

    def resting(self) -> list[str]:
        deliveries = self._daemon.deliveries
        states = {**self._daemon.clients.state(), **deliveries.state(), **self._daemon.agent.state()}  # type: ignore[attr-defined]  # the agent's own
        # Keys are remembered for long, and nothing else is.
        names = (
            "clients",
            "requests_waiting",
            "in_flight",
            "connections_open",
            "connections_opening",
            "queue_length",
        )
        wrong = [f"{name} is {states[name]}" for name in names if states[name]]
        if deliveries.memory.in_lines or deliveries.memory.in_pieces:
            wrong.append(f"{deliveries.memory!r} holds lines")
        return wrong

    async def stop(self) -> list[str]:
        await self._daemon.stopService()
        globalLogPublisher.removeObserver(self._errors)
        held = self._daemon.deliveries.memory.held
        del self._daemon
        wrong = [f"in the log: {each}" for each in self._errors[:1]]
        if held:
            wrong.append(f"{held} octets are counted as held at the end")
        gc.collect()
        left = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, self.KINDS))
        if left:
            wrong.append(f"objects that nobody needs any more: {dict(left)}")
        return wrong
