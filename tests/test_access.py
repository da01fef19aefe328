"""
Tests of the whole daemon, in this process: who gets in, and where to.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from tests.gateway.fakes import line
from twisted_smtpclient import tap
from twisted_smtpclient.service import Daemon
from twisted_smtpclient.testing import Sink

Ask = Callable[..., Awaitable[list[dict[str, Any]]]]


class Client(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost.callback(self.received)


def daemon(*arguments: str) -> Daemon:
    options = tap.Options()
    UsageOptions.parseOptions(options, list(arguments))
    service = tap.makeService(options)
    assert isinstance(service, Daemon)
    return service


async def ask(service: Daemon, *lines: bytes) -> list[dict[str, Any]]:
    """All replies to these lines, on a connection that is half-closed behind them."""
    address: Any = service.ports[0].getHost()
    endpoint = (
        TCP4ClientEndpoint(reactor, address.host, address.port)
        if hasattr(address, "port")
        else UNIXClientEndpoint(reactor, os.fsdecode(address.name))
    )
    client = await connectProtocol(endpoint, Client())
    transport: Any = client.transport
    transport.write(b"".join(each + b"\n" for each in lines))
    transport.loseWriteConnection()
    return [json.loads(each) for each in (await client.lost).splitlines()]


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Ask]:
    """A daemon with these options, and what asks it."""
    service = daemon("--listen=tcp:0:interface=127.0.0.1", *arguments)
    service.startService()
    try:
        yield lambda *lines: ask(service, *lines)
    finally:
        await service.stopService()


def error_of(replies: list[dict[str, Any]]) -> str:
    (reply,) = replies
    return str(reply.get("error", reply["status"]))


async def outcome(host: str, port: int, *arguments: str, **fields: Any) -> str:
    """``ok`` or the error's name, of one request to a daemon with these options."""
    async with running(*arguments) as ask:
        return error_of(await ask(line(id=1, host=host, port=port, tls="NO", **fields)))


# Where to.


@pytest_twisted.ensureDeferred
async def test_a_name_that_resolves_to_a_forbidden_address_is_not_allowed() -> None:
    sink = Sink(reactor)
    await sink.listen()
    try:
        deny = "--deny-host=127.0.0.0/8", "--deny-host=::1"
        assert await outcome("localhost", sink.port, *deny) == "NotAllowed"
        assert await outcome("127.0.0.1", sink.port, *deny) == "NotAllowed"
        assert await outcome("::ffff:127.0.0.1", sink.port, *deny) == "NotAllowed"
        assert await outcome("0.0.0.0", sink.port, *deny) == "NotAllowed"
        assert not sink.sessions
        assert await outcome("127.0.0.1", sink.port) == "ok"
    finally:
        await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_is_allowed_by_name_or_address_and_port() -> None:
    sink = Sink(reactor)
    await sink.listen()
    port = sink.port
    try:
        assert await outcome("localhost", port, "--allow-host=local*") == "ok"
        assert await outcome("127.0.0.1", port, f"--allow-host=127.0.0.1:{port}") == "ok"
        assert await outcome("localhost", port, f"--allow-host=127.0.0.0/8:{port}") == "ok"
        assert await outcome("localhost", port, "--allow-host=127.0.0.0/8:25") == "NotAllowed"
        assert await outcome("localhost", port, "--allow-host=*.example") == "NotAllowed"
        both = "--allow-host=localhost", "--deny-host=127.0.0.1"
        assert await outcome("127.0.0.1", port, *both) == "NotAllowed"
        assert len(sink.sessions) == 3
    finally:
        await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_unix_server_is_allowed_where_it_is_named(tmp_path: Path) -> None:
    sink = Sink(reactor)
    host = f"unix:{tmp_path}/lmtp"
    await sink.listen(host)
    try:
        assert await outcome(host, 25) == "NotAllowed"
        assert await outcome(host, 25, "--allow-host=*") == "NotAllowed"
        assert not sink.sessions
        assert await outcome(host, 25, f"--allow-host={host}") == "ok"
    finally:
        await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_probe_is_held_to_the_same_rules() -> None:
    async with running("--deny-host=127.0.0.0/8") as ask:
        probe = json.dumps({"probe": True, "host": "127.0.0.1", "port": 25}).encode()
        assert error_of(await ask(probe)) == "NotAllowed"


@pytest_twisted.ensureDeferred
async def test_what_is_not_allowed_is_answered_as_any_error_and_the_connection_goes_on() -> None:
    async with running("--deny-host=*") as ask:
        first, second = await ask(line(id=1, host="mx.example"), line(id=2, host="192.0.2.1"))
    assert first == {
        "id": 1,
        "status": "error",
        "error": "NotAllowed",
        "message": "Error while deliver messages: Not allowed: mx.example:25: a rule denies it",
        "temporary": False,
    }
    assert second["error"] == "NotAllowed"


# Who.


@pytest_twisted.ensureDeferred
async def test_only_who_shows_the_token_gets_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("secret\n")
    async with running(f"--token-file={path}", "--deny-host=*") as ask:
        assert error_of(await ask(line(id=1))) == "NotAllowed"
        assert error_of(await ask(b'{"token": "guess"}', line(id=1))) == "NotAllowed"
        welcome, reply = await ask(b'{"token": "secret"}', line(id=1))
        assert welcome == {"status": "ok"}
        assert (reply["id"], reply["error"]) == (1, "NotAllowed")


@pytest.mark.parametrize("mode", ["600", "660", "666"])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_has_the_mode_that_it_was_given(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o002)
    try:
        service = daemon(f"--listen=unix:{path}:mode={mode}", "--deny-host=*")
        service.startService()
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    assert error_of(await ask(service, line())) == "NotAllowed"
    await service.stopService()
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_a_socket_that_a_crash_has_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    # As the lock of a process that is no more; no process has so high an id.
    os.symlink("2147483646", f"{path}.lock")
    service = daemon(f"--listen=unix:{path}:mode=600", "--deny-host=*")
    service.startService()
    assert error_of(await ask(service, line())) == "NotAllowed"
    await service.stopService()


def test_a_socket_that_another_daemon_listens_on_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    os.symlink(str(os.getpid()), f"{path}.lock")
    with pytest.raises(CannotListenError):
        daemon(f"--listen=unix:{path}").startService()
