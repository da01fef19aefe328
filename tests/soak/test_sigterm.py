"""SIGTERM in the middle of thousands of deliveries: what each client is told, and what its server has."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.daemons import LOOPBACK, PATIENCE, Running, request
from tests.integration.child import free_ports
from tests.soak.clients import Connection
from tests.soak.ledger import Ledger
from twisted_smtpclient.gateway.jsonlines import LINGER
from twisted_smtpclient.testing import Action, Fault, Sink, Stage

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 10, 500
CONNECTIONS = DEPTH = 10

#: Seconds for a process to end that has nothing more to do, on a machine that is busy.
END = 5.0


class Terminated:
    """
    A daemon with 5,000 deliveries, and what has come of them.

    :ivar replies: of each client, in the order in which they came.
    :ivar seconds: from SIGTERM until it had ended.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.replies: list[list[dict[str, Any]]] = []
        self.seconds = 0.0
        self.status: int | None = None

    async def run(self, sink: Sink, folder: Path, drain: float, when: Callable[[], bool]) -> None:
        """Have them begin, and end the daemon once it is time."""
        (port,) = free_ports(1)
        options = (
            f"--listen=tcp:{port}:interface={LOOPBACK}",
            f"--drain-timeout={drain}",
            f"--connections-per-host={CONNECTIONS}",
            f"--pipelining-depth={DEPTH}",
        )
        with Running(folder, *options) as daemon:
            clients = [await _connected(port) for _ in range(CLIENTS)]
            for client in clients:
                for _ in range(REQUESTS):
                    asked = self.ledger.ask(2, truthful=True, awaited=False)
                    fields = request(
                        sink.port, id=asked.number, sender=asked.sender, recipients=asked.recipients
                    )
                    client.transport.write(json.dumps(fields).encode() + b"\n")
            await _until(when)
            began = time.monotonic()
            daemon.signal(signal.SIGTERM)
            self.status = await deferToThread(daemon.wait)
            self.seconds = time.monotonic() - began
            for client in clients:
                await _until(partial(getattr, client, "gone"))
                self.replies.append([json.loads(line) for line in client.heard])
            assert "Traceback" not in daemon.log.read_text()
        for reply in (reply for replies in self.replies for reply in replies):
            self.ledger.tell(self.ledger.asked[reply["id"]], reply)
        self.ledger.check()

    def told(self, error: str | None, *, in_doubt: bool = False) -> int:
        """How many were told an error, or with None a verdict."""
        replies = [reply for replies in self.replies for reply in replies]
        return sum(
            reply.get("error") == error and reply.get("indoubt", False) == in_doubt for reply in replies
        )


async def _connected(port: int) -> Connection:
    endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, port)
    connection: Connection = await connectProtocol(endpoint, Connection())
    return connection


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never was"
        turn: Deferred[None] = deferLater(reactor, 0.002)
        await turn


@asynccontextmanager
async def listening(terminated: Terminated, **settings: Any) -> AsyncIterator[Sink]:
    sink = Sink(reactor, keep_content=False, keep_records=False, on_mail=terminated.ledger.record, **settings)
    await sink.listen()
    try:
        yield sink
    finally:
        await sink.stop()


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest_twisted.ensureDeferred
async def test_within_its_time_no_mail_is_cut_off_and_each_client_is_told(
    chunking: bool, tmp_path: Path
) -> None:
    it = Terminated()
    async with listening(it, chunking=chunking, delay=0.02 if chunking else 0.005) as sink:
        await it.run(sink, tmp_path, 25.0, lambda: sink.mail_count >= 500)
        assert it.ledger.broken == []
        # In the middle: some were done, some were under way, and all had a verdict.
        assert sink.mail_count == it.told(None) > 500
        assert sum(len(replies) for replies in it.replies) == it.told(None) + it.told("ShuttingDown")
        assert it.seconds < 25.0
        assert it.status in (0, -signal.SIGTERM)


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest_twisted.ensureDeferred
async def test_after_its_time_what_a_server_keeps_waiting_is_in_doubt_and_the_rest_is_not(
    chunking: bool, tmp_path: Path
) -> None:
    it = Terminated()
    # Each connection is heard out twenty times, and not the next time.
    at = Stage.BDAT if chunking else Stage.END_OF_DATA
    faults = [Fault(at, Action.STALL, nth=21, connection=number) for number in range(1, CONNECTIONS + 1)]
    async with listening(it, chunking=chunking, faults=faults) as sink:
        await it.run(sink, tmp_path, 1.0, lambda: sink.mail_count >= 20 * CONNECTIONS)
        assert it.ledger.broken == []
        assert it.told(None) >= 20 * CONNECTIONS
        # Of each connection one mail at the least, and at the most as many as are under way on it.
        assert CONNECTIONS <= it.told("ShuttingDown", in_doubt=True) <= CONNECTIONS * DEPTH
        assert it.told("ShuttingDown") > 0
        assert 1.0 <= it.seconds < 1.0 + LINGER + END
        # All that were read have a reply, whatever it is.
        assert sum(map(len, it.replies)) == CLIENTS * REQUESTS
        assert it.status in (0, -signal.SIGTERM)
