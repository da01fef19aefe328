from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.daemons import LOOPBACK, PATIENCE, Client, Manager, Running, request, slow_server
from tests.integration.child import free_ports
from twisted_smtpclient import Content, DeliveryAgent, Envelope, Server, TLSFailed, TLSMode
from twisted_smtpclient.client.tls import TrustFile
from twisted_smtpclient.operations.life import Life, State
from twisted_smtpclient.operations.signals import Signals
from twisted_smtpclient.operations.systemd import ServiceManager
from twisted_smtpclient.testing import Sink, make_certificates

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


@pytest.fixture
def signals() -> Iterator[None]:
    """Those that a test changes are as they were."""
    taken = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = {each: signal.getsignal(each) for each in taken}
    yield
    for each, action in before.items():
        signal.signal(each, action)


# Life


def test_who_watches_is_told_each_state_and_one_that_fails_harms_no_other(logged_failures: Any) -> None:
    def fails(state: State) -> None:
        raise ZeroDivisionError

    life = Life()
    seen: list[State] = []
    life.watch(fails)
    life.watch(seen.append)
    life.enter(State.READY)
    life.enter(State.DRAINING)
    assert seen == [State.READY, State.DRAINING]
    assert life.state is State.DRAINING
    assert len(logged_failures.flush(ZeroDivisionError)) == 2


def test_files_are_read_again_and_a_broken_one_leaves_the_others_alone(
    log: list[LogEvent], logged_failures: Any
) -> None:
    def broken(error: Exception) -> Any:
        def reload() -> None:
            raise error

        return reload

    life = Life()
    seen: list[State] = []
    read: list[int] = []
    life.enter(State.READY)
    life.watch(seen.append)
    life.on_reload("--first", broken(ValueError("expected a file")))
    life.on_reload("--second", broken(OSError("no such file")))
    life.on_reload("--third", broken(KeyError("a fault")))
    life.on_reload("--fourth", lambda: read.append(1))
    life.reload()
    assert read == [1]
    assert seen == [State.RELOADING, State.READY]
    told = [(event["log_level"].name, formatEvent(event)) for event in log]
    assert told == [
        ("error", "--first: not read again, what was read before stands: expected a file"),
        ("error", "--second: not read again, what was read before stands: no such file"),
        ("critical", "--third: not read again, what was read before stands"),
        ("info", "--fourth: read again"),
    ]
    logged_failures.flush(KeyError)


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING, State.STOPPED])
def test_nothing_is_read_again_but_while_requests_are_taken(state: State) -> None:
    life, read = Life(), []
    life.on_reload("--file", lambda: read.append(1))
    life.enter(state)
    life.reload()
    assert not read
    assert life.state is state


# Files


def test_a_ca_file_that_is_broken_leaves_the_old_one_trusted(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    file = TrustFile(str(path))
    first = file.root
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="PEM certificates"):
        file.reload()
    assert file.root is first
    path.write_bytes(trustme.CA().cert_pem.bytes())
    assert file.reload() is file.root is not first


def test_a_ca_file_is_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.chdir(tmp_path)
    file = TrustFile("ca.pem")
    monkeypatch.chdir("/")
    assert file.reload() is file.root


# Signals


class Threads:
    """A reactor, as far as signals need one."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []

    def callFromThread(self, *call: Any) -> None:
        self.called.append(call)

    def turn(self) -> None:
        called, self.called = self.called, []
        for action, *arguments in called:
            action(*arguments)


@pytest.mark.usefixtures("signals")
def test_sighup_reads_files_again_in_a_turn_of_the_reactor_and_only_while_it_runs() -> None:
    before = signal.getsignal(signal.SIGHUP)
    life, reactor, read = Life(), Threads(), []
    life.on_reload("--file", lambda: read.append(1))
    service = Signals(life, lambda: None, reactor)
    assert signal.getsignal(signal.SIGHUP) is before
    service.startService()
    life.enter(State.READY)
    os.kill(os.getpid(), signal.SIGHUP)
    assert not read
    reactor.turn()
    assert read == [1]
    service.stopService()
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_draining_and_a_third_the_process(which: signal.Signals) -> None:
    before = signal.getsignal(which)
    life, reactor, hurried = Life(), Threads(), []
    service = Signals(life, lambda: hurried.append(1), reactor)
    service.startService()
    life.enter(State.READY)
    assert signal.getsignal(which) is before
    life.enter(State.DRAINING)
    os.kill(os.getpid(), which)
    assert not hurried
    reactor.turn()
    assert hurried == [1]
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    service.stopService()
    assert signal.getsignal(which) is before


# The service manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def managed(manager: Manager, **environment: str) -> tuple[Life, Clock, ServiceManager]:
    life, clock = Life(), Clock()
    return life, clock, ServiceManager(life, clock, {"NOTIFY_SOCKET": manager.address, **environment})


def test_the_manager_is_told_each_state_that_it_knows(manager: Manager) -> None:
    life, _, service = managed(manager)
    service.startService()
    life.enter(State.READY)
    life.reload()
    life.enter(State.DRAINING)
    life.enter(State.STOPPED)
    service.stopService()
    ready, reloading, again, stopping = manager.heard()
    assert ready == again == {"READY": "1", "STATUS": "takes requests"}
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert stopping == {"STOPPING": "1", "STATUS": "finishes what is under way"}


def test_the_watchdog_is_fed_twice_in_its_time_until_it_has_drained(manager: Manager) -> None:
    life, clock, service = managed(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    service.startService()
    life.enter(State.DRAINING)
    clock.pump([5.0, 5.0])
    alive = {"WATCHDOG": "1"}
    assert [each for each in manager.heard() if "STOPPING" not in each] == [alive, alive, alive]
    service.stopService()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}],
)
def test_no_watchdog_is_fed_that_waits_for_nobody_or_for_another(
    environment: dict[str, str], manager: Manager
) -> None:
    _, clock, service = managed(manager, **environment)
    service.startService()
    assert not clock.getDelayedCalls()
    service.stopService()
    assert not manager.heard()


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_without_an_address_that_it_knows_nobody_is_told(address: str, log: list[LogEvent]) -> None:
    life, clock = Life(), Clock()
    ServiceManager(life, clock, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}).startService()
    life.enter(State.READY)
    assert not clock.getDelayedCalls()
    assert not log


def test_a_manager_that_has_gone_is_a_line_in_the_log(tmp_path: Path, log: list[LogEvent]) -> None:
    life = Life()
    ServiceManager(life, Clock(), {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    life.enter(State.READY)
    (event,) = log
    assert event["log_level"].name == "warn"
    assert "the service manager could not be told" in formatEvent(event)


# The daemon as a process


def get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def until_refused(port: int) -> None:
    """Return when nobody listens there any more."""
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < deadline:
            # One that is closed before it is accepted is reset.
            with contextlib.suppress(ConnectionResetError):
                Client(port).close()
        raise AssertionError("it still listens")


def tcp(port: int) -> str:
    return f"tcp:{port}:interface={LOOPBACK}"


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_ready_when_it_listens(abstract: bool, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"@smtpclient-{os.getpid()}-{port}" if abstract else None
    with Running(tmp_path, "--listen", tcp(port), address=address) as daemon:
        # At once: there is nothing to wait for.
        client = Client(port)
        client.say(id=1)
        assert client.hear()["error"] == "InvalidRequest"
        client.close()
        daemon.signal(signal.SIGTERM)
        assert daemon.manager.next()["STOPPING"] == "1"
        assert daemon.wait() in (0, -signal.SIGTERM)


def test_one_that_cannot_listen_is_never_ready(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        daemon = Running(tmp_path, "--listen", tcp(taken.getsockname()[1]))
        assert daemon.wait() != 0
        assert daemon.manager.heard() == []
        daemon.kill()
    assert "in use" in daemon.log.read_text()


def test_sigterm_lets_a_mail_end_that_is_between_its_content_and_its_verdict(tmp_path: Path) -> None:
    port, pages = free_ports(2)
    options = ("--listen", tcp(port), "--metrics", tcp(pages), "--log-format=json", "--drain-timeout=60")
    with slow_server() as server, Running(tmp_path, *options) as daemon:
        assert get(pages, "/readyz") == 200
        client = Client(port)
        client.say(**request(server.port, id=1))
        server.take_all_but_the_verdict()
        daemon.signal(signal.SIGTERM)
        assert daemon.manager.next()["STOPPING"] == "1"
        until_refused(port)
        client.say(**request(server.port, id=2))
        assert client.hear() | {"message": ""} == {
            "id": 2, "status": "error", "error": "ShuttingDown", "message": "", "temporary": True,
        }  # fmt: skip
        assert get(pages, "/readyz") == 503
        assert get(pages, "/healthz") == 200
        server.say("250 taken")
        reply = client.hear()
        assert (reply["id"], reply["status"]) == (1, "ok")
        assert reply["deliveryStatus"][0]["response"] == "250 taken"
        assert client.closed()
        client.close()
        assert daemon.wait() in (0, -signal.SIGTERM)
        told = [event for event in daemon.events() if event.get("sender") == "a@b.de"]
        assert [each["counts"] for each in told] == [{"Ok": 1}]


def test_a_second_sigterm_ends_it_at_once_and_says_what_is_in_doubt(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ("--listen", tcp(port), "--log-format=json", "--drain-timeout=3600")
    with slow_server() as server, Running(tmp_path, *options) as daemon:
        client = Client(port)
        client.say(**request(server.port, id=1))
        server.take_all_but_the_verdict()
        daemon.signal(signal.SIGTERM)
        assert daemon.manager.next()["STOPPING"] == "1"
        daemon.signal(signal.SIGTERM)
        reply = client.hear()
        assert (reply["error"], reply["indoubt"]) == ("ShuttingDown", True)
        assert client.closed()
        client.close()
        assert daemon.wait() in (0, -signal.SIGTERM)
        messages = [event["message"] for event in daemon.events()]
        assert "SIGTERM once more: draining ends now" in messages
        assert not any("traceback" in event for event in daemon.events())


def ask_until_closed(port: int, server: int, client: int, half_done: threading.Event) -> list[dict[str, Any]]:
    """What one of many clients hears, who sends all its requests at once."""
    connection = Client(port)
    for number in range(REQUESTS):
        connection.say(**request(server, id=number, sender=f"{client}.{number}@b.de"))
    replies = []
    with contextlib.closing(connection), contextlib.suppress(AssertionError, ConnectionResetError):
        while True:
            replies.append(connection.hear())
            if len(replies) == REQUESTS // 2:
                half_done.set()
    return replies


#: Of each client.
REQUESTS = 200


@pytest_twisted.ensureDeferred
async def test_sigterm_in_the_middle_of_many_deliveries_leaves_no_client_without_an_answer(
    tmp_path: Path,
) -> None:
    sink = Sink(reactor)
    await sink.listen(f"tcp:0:interface={LOOPBACK}")
    (port,) = free_ports(1)
    half_done = threading.Event()
    # Few at a time, so that most requests have not been read by then.
    options = ("--listen", tcp(port), "--log-format=json", "--max-in-flight=20")
    with Running(tmp_path, *options) as daemon:
        clients = [deferToThread(ask_until_closed, port, sink.port, client, half_done) for client in range(6)]
        await deferToThread(half_done.wait, PATIENCE)
        daemon.signal(signal.SIGTERM)
        heard = await gatherResults(clients)
        assert await deferToThread(daemon.wait) in (0, -signal.SIGTERM)
        logged = sum(1 for event in daemon.events() if "counts" in event)
    accepted = 0
    for replies in heard:
        identities = [reply["id"] for reply in replies]
        assert len(identities) == len(set(identities))
        assert {reply.get("error", "none") for reply in replies} <= {"none", "ShuttingDown"}
        # Nothing was cut off: there was time for all that was begun.
        assert not any(reply.get("indoubt") for reply in replies)
        accepted += sum(reply["status"] == "ok" for reply in replies)
    assert REQUESTS // 2 <= accepted == logged == sink.mail_count
    await sink.stop()


def ask_and_read_late(port: int, server: int, told: threading.Event) -> list[dict[str, Any]]:
    """What a client hears who still has much to say when the daemon goes down."""
    client = Client(port)
    client.flood(**request(server))
    told.set()
    replies = []
    with contextlib.closing(client), contextlib.suppress(AssertionError):
        while True:
            replies.append(client.hear())
    return replies


@pytest_twisted.ensureDeferred
async def test_no_reply_is_lost_because_a_client_had_more_to_say(tmp_path: Path) -> None:
    """A socket that is closed with something unread resets its connection."""
    sink = Sink(reactor)
    await sink.listen(f"tcp:0:interface={LOOPBACK}")
    (port,) = free_ports(1)
    flooded = threading.Event()
    options = ("--listen", tcp(port), "--log-format=json", "--max-in-flight=20")
    with Running(tmp_path, *options) as daemon:
        heard = deferToThread(ask_and_read_late, port, sink.port, flooded)
        await deferToThread(flooded.wait, PATIENCE)
        daemon.signal(signal.SIGTERM)
        replies = await heard
        assert await deferToThread(daemon.wait) in (0, -signal.SIGTERM)
        logged = sum(1 for event in daemon.events() if "counts" in event)
    assert sum(reply["status"] == "ok" for reply in replies) == logged == sink.mail_count > 0
    await sink.stop()


def token_accepted(port: int, token: str) -> bool:
    client = Client(port)
    client.say(token=token)
    reply = client.hear()
    client.close()
    return bool(reply["status"] == "ok")


def test_sighup_reads_the_token_file_and_the_ca_file_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    token, roots = tmp_path / "token", tmp_path / "ca.pem"
    token.write_text("first\n")
    roots.write_bytes(trustme.CA().cert_pem.bytes())
    options = (
        "--listen",
        tcp(port),
        "--token-file",
        str(token),
        "--ca-file",
        str(roots),
        "--log-format=json",
    )

    def reloaded() -> None:
        daemon.signal(signal.SIGHUP)
        assert daemon.manager.next()["RELOADING"] == "1"
        assert daemon.manager.next()["READY"] == "1"

    with Running(tmp_path / "daemon", *options) as daemon:
        assert token_accepted(port, "first")
        token.write_text("second\n")
        reloaded()
        assert token_accepted(port, "second")
        assert not token_accepted(port, "first")
        token.write_text("")
        roots.write_text("nonsense")
        reloaded()
        assert token_accepted(port, "second")
        daemon.signal(signal.SIGTERM)
        daemon.wait()
        told = [(event["level"], event["message"]) for event in daemon.events()]
        assert told.count(("info", "--token-file: read again")) == 1
        assert told.count(("info", "--ca-file: read again")) == 1
        errors = [message for level, message in told if level == "error"]
        assert [each.partition(":")[0] for each in sorted(errors)] == ["--ca-file", "--token-file"]
        assert not any("second" in message for _, message in told)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What a socket unit would hold."""
    with socket.create_server((LOOPBACK, 0), backlog=100) as listener:
        yield listener


def answered(port: int) -> bool:
    client = Client(port)
    client.say(id=1)
    with contextlib.closing(client):
        return bool(client.hear()["error"] == "InvalidRequest")


@pytest.mark.parametrize("which", ["index=0", "name=clients"])
def test_it_listens_on_the_socket_that_the_service_manager_holds(
    which: str, listener: socket.socket, tmp_path: Path
) -> None:
    port = listener.getsockname()[1]
    # A client that came before the daemon did.
    early = Client(port)
    early.say(id=1)
    options = ("--listen", f"systemd:domain=INET:{which}")
    with Running(tmp_path / "first", *options, inherited=[listener]) as daemon:
        assert early.hear()["error"] == "InvalidRequest"
        early.close()
        assert answered(port)
        daemon.signal(signal.SIGTERM)
        daemon.wait()
    # The socket has stayed, and who comes meanwhile waits for the next one.
    late = Client(port)
    late.say(id=1)
    with Running(tmp_path / "second", *options, inherited=[listener]):
        assert late.hear()["error"] == "InvalidRequest"
        late.close()


def test_several_processes_take_clients_from_one_socket(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    options = ("--listen", "systemd:domain=INET:index=0")
    with (
        Running(tmp_path / "1", *options, inherited=[listener]) as first,
        Running(tmp_path / "2", *options, inherited=[listener]) as second,
    ):
        second.signal(signal.SIGSTOP)
        assert all(answered(port) for _ in range(10))
        second.signal(signal.SIGCONT)
        first.signal(signal.SIGTERM)
        first.wait()
        assert all(answered(port) for _ in range(10))


def started_by(unit: str, *, instance: str, pages: int) -> list[str]:
    """The options with which a sample unit starts the daemon, its pages on a free port."""
    text = (DOCS / "systemd" / unit).read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    program, *options = shlex.split(command.partition("=")[2])
    assert program.endswith("/bin/twistd")
    assert options[:3] == ["--nodaemon", "--pidfile=", "smtpclient"]
    told = [re.sub(r"tcp:9\d\d\S+?:", f"tcp:{pages}:", each.replace("%i", instance)) for each in options[3:]]
    assert f"tcp:{pages}:interface={LOOPBACK}" in told
    return told


def test_the_sample_units_start_a_daemon_that_is_ready(listener: socket.socket, tmp_path: Path) -> None:
    first, second = free_ports(2)
    one = started_by("twisted_smtpclient.service", instance="", pages=first)
    several = started_by("twisted_smtpclient@.service", instance="1", pages=second)
    port = listener.getsockname()[1]
    with (
        Running(tmp_path / "1", *one, inherited=[listener]),
        Running(tmp_path / "2", *several, inherited=[listener]),
    ):
        assert answered(port)
        assert get(first, "/readyz") == get(second, "/readyz") == 200


def test_each_line_of_a_json_log_is_an_object_from_the_first_to_the_last(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Running(tmp_path, "--listen", tcp(port), "--log-format=json") as daemon:
        client = Client(port)
        client.say(**request(9, id=1))
        assert client.hear()["error"] == "ConnectionRefused"
        client.close()
        daemon.signal(signal.SIGTERM)
        daemon.wait()
        events = daemon.events()
    assert all({"time", "level", "namespace", "message"} <= set(event) for event in events)
    (told,) = [event for event in events if event.get("error") == "ConnectionRefused"]
    assert told["level"] == "info"
    assert told["server"] == f"{LOOPBACK}:9"
    assert not any("U3ViamVj" in json.dumps(event) or "Subject" in json.dumps(event) for event in events)


@pytest_twisted.ensureDeferred
async def test_connections_that_are_opened_after_it_trust_what_the_agent_was_told_last() -> None:
    ours, others = make_certificates(), make_certificates()
    sink = Sink(reactor, starttls=ours.server_context())
    await sink.listen(f"tcp:0:interface={LOOPBACK}")
    agent = DeliveryAgent(reactor, trust_root=others.trust_root())
    server = Server(host="localhost", port=sink.port, tls=TLSMode.DEPEND)
    mail = Envelope("a@b.de", ["c@d.de"]), Content(b"x\r\n")
    with pytest.raises(TLSFailed):
        await agent.deliver(server, *mail)
    agent.trust(ours.trust_root())
    assert (await agent.deliver(server, *mail)).all_ok
    agent.trust(others.trust_root())
    # One that was verified stays so; a new one is not.
    assert (await agent.deliver(server, *mail)).all_ok
    with pytest.raises(TLSFailed):
        await agent.deliver(server, *mail, reuse=False)
    await agent.close()
    await sink.stop()
