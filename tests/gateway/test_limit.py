"""
Tests of how many clients there may be at a time, over real sockets: who waits is the kernel's affair.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.gateway.fakes import FakeAgent, line
from twisted_smtpclient.gateway.limit import ClientLimit
from twisted_smtpclient.gateway.token import Tokens
from twisted_smtpclient.service import Daemon

LOOPBACK = "127.0.0.1"


class Client:
    """One connection from outside, blocking but for what is read."""

    def __init__(self, address: Any) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(10)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.received = b""

    def ask(self, request: bytes = b"") -> None:
        self.socket.send(request or line(id=1) + b"\n")

    def answered(self) -> bool:
        with suppress(BlockingIOError):
            self.received += self.socket.recv(65536)
        return self.received.endswith(b"\n")

    def close(self) -> None:
        self.socket.close()


async def until(condition: Any) -> None:
    """Let the reactor turn until it is so; some seconds at most."""
    for _ in range(2000):
        if condition():
            return
        await deferLater(reactor, 0.002, lambda: None)
    raise AssertionError("it never was")


async def turns(number: int = 20) -> None:
    """As many turns of the reactor as anything here takes, and some more."""
    for _ in range(number):
        await deferLater(reactor, 0, lambda: None)


class Running:
    """A daemon that listens for real, and its clients."""

    def __init__(self, *endpoints: Any, **options: Any) -> None:
        self.agent = FakeAgent()
        self.agent.at_once = True
        self.daemon = Daemon(reactor, self.agent, endpoints, drain_timeout=1, **options)
        self.clients: list[Client] = []
        self.daemon.startService()

    def connect(self, number: int = 1, *, port: int = 0) -> list[Client]:
        host: Any = self.daemon.ports[port].getHost()
        address = (host.host, host.port) if hasattr(host, "port") else host.name.decode()
        fresh = [Client(address) for _ in range(number)]
        self.clients += fresh
        return fresh

    @property
    def served(self) -> int:
        return len(self.daemon.clients.clients)

    async def stop(self) -> None:
        for client in self.clients:
            client.close()
        await self.daemon.stopService()


def tcp() -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)


@pytest_twisted.ensureDeferred
async def test_one_more_than_the_limit_waits_and_is_served_when_one_goes() -> None:
    running = Running(tcp(), max_clients=3)
    clients = running.connect(4)
    for client in clients:
        client.ask()
    await until(lambda: sum(client.answered() for client in clients) == 3)
    await turns()
    assert running.served == 3
    (waiting,) = [client for client in clients if not client.answered()]
    served = next(client for client in clients if client.answered())
    served.close()
    await until(waiting.answered)
    assert json.loads(waiting.received)["status"] == "ok"
    assert running.served == 3
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_it_is_never_over_the_limit_however_many_come_at_once() -> None:
    running = Running(tcp(), max_clients=3)
    left = running.connect(40)
    for client in left:
        client.ask()
    most = 0
    while left:
        answered: list[Client] = []

        def some_are() -> bool:
            answered.extend(client for client in left if client.answered())  # noqa: B023 - called at once
            return bool(answered)  # noqa: B023

        await until(some_are)
        most = max(most, running.served)
        for client in answered:
            client.close()
            left.remove(client)
    assert most == 3
    assert len(running.agent.deliveries) == 40
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_the_limit_is_over_all_ports(tmp_path: Path) -> None:
    running = Running(tcp(), UNIXServerEndpoint(reactor, str(tmp_path / "s")), tcp(), max_clients=2)
    first, second = running.connect(port=0)[0], running.connect(port=1)[0]
    await until(lambda: running.served == 2)
    waiting = [running.connect(port=port)[0] for port in range(3)]
    for client in waiting:
        client.ask()
    await turns()
    assert running.served == 2
    assert not any(client.answered() for client in waiting)
    first.close()
    second.close()
    await until(lambda: sum(client.answered() for client in waiting) == 2)
    for client in waiting:
        if client.answered():
            client.close()
    await until(lambda: all(client.answered() for client in waiting if client.socket.fileno() >= 0))
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_clients_that_show_no_token_take_places_until_they_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("secret\n")
    running = Running(tcp(), max_clients=2, tokens=Tokens(str(path)))
    hostile = running.connect(2)
    await until(lambda: running.served == 2)
    (honest,) = running.connect()
    honest.ask(b'{"token": "secret"}\n' + line(id=1) + b"\n")
    await turns()
    assert not honest.answered()
    hostile[0].ask(b'{"token": "guess"}\n')
    await until(hostile[0].answered)
    hostile[0].close()
    await until(lambda: honest.answered() and honest.received.count(b"\n") == 2)
    assert [json.loads(each)["status"] for each in honest.received.splitlines()] == ["ok", "ok"]
    assert running.served == 2
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_is_full_can_be_stopped_and_accepts_nobody_then() -> None:
    running = Running(tcp(), max_clients=1)
    running.connect(2)
    await until(lambda: running.served == 1)
    address: Any = running.daemon.ports[0].getHost()
    await running.stop()
    await turns()
    assert running.served == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port))


@pytest_twisted.ensureDeferred
async def test_that_it_is_full_is_logged_once() -> None:
    with capturedLogs() as events:
        running = Running(tcp(), max_clients=1)
        for _ in range(3):
            (client,) = running.connect()
            await until(lambda: running.served == 1)
            client.close()
            await until(lambda: running.served == 0)
        await running.stop()
    told = [event for event in events if "no more are accepted" in str(event.get("log_format"))]
    assert [event["clients"] for event in told] == [1]


def test_a_port_that_is_not_twisted_s_is_left_alone() -> None:
    limit = ClientLimit(1)
    limit.watch(object())
    limit.count(1)
    limit.count(0)
    assert repr(limit) == "<ClientLimit: 0 of 1>"


@pytest_twisted.ensureDeferred
async def test_a_port_that_comes_late_waits_with_the_others() -> None:
    running = Running(tcp(), max_clients=1)
    running.connect()
    await until(lambda: running.served == 1)
    endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    listening: Deferred[IListeningPort] = endpoint.listen(running.daemon.clients)
    port = await listening
    running.daemon.ports.append(port)
    running.daemon.clients.limit.watch(port)
    (waiting,) = running.connect(port=1)
    waiting.ask()
    await turns()
    assert not waiting.answered()
    running.clients[0].close()
    await until(waiting.answered)
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_hundreds_that_come_at_once_wait_in_the_kernel_and_not_for_it() -> None:
    # Meanwhile the reactor has no turn, so nobody is accepted.
    running = Running(tcp())
    clients = running.connect(300)
    for client in clients:
        client.ask()
    await until(lambda: all(client.answered() for client in clients))
    await running.stop()


@pytest_twisted.ensureDeferred
async def test_how_many_wait_is_as_the_endpoint_string_says() -> None:
    running = Running(TCP4ServerEndpoint(reactor, 0, backlog=2, interface=LOOPBACK))
    host: Any = running.daemon.ports[0].getHost()
    waiting = []
    # The kernel takes one or two more than it is told.
    for _ in range(5):
        with suppress(TimeoutError):
            waiting.append(socket.create_connection((host.host, host.port), timeout=0.3))
    assert 2 <= len(waiting) <= 4
    for each in waiting:
        each.close()
    await running.stop()
