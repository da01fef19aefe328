from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as plain
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.gateway.fakes import FakeAgent, line
from twisted_smtpclient.metrics import Metrics
from twisted_smtpclient.operations.life import Life, State
from twisted_smtpclient.operations.pages import IDLE, MAX_CONNECTIONS, Pages, PagesFactory, pages_of
from twisted_smtpclient.service import Daemon

LOOPBACK = "127.0.0.1"


class Transport(StringTransport):
    """One that can be aborted."""

    def __init__(self) -> None:
        StringTransport.__init__(self)

    def abortConnection(self) -> None:
        StringTransport.loseConnection(self)


class Asked:
    """One connection to the pages, seen from the client's side."""

    def __init__(self, factory: PagesFactory) -> None:
        self.transport: Any = Transport()
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        self.protocol: Any = protocol
        self.protocol.makeConnection(self.transport)

    def say(self, octets: bytes) -> bytes:
        """What is answered."""
        self.protocol.dataReceived(octets)
        answered: bytes = self.transport.value()
        self.transport.clear()
        return answered

    def go_away(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Here:
    """The pages of a life."""

    def __init__(self, pages: Mapping[bytes, Any] | None = None) -> None:
        self.clock = Clock()
        self.life = Life()
        self.factory = PagesFactory(pages or pages_of(Metrics(), self.life), self.clock)

    def ask(self, path: str, method: str = "GET", headers: str = "") -> tuple[int, dict[str, str], bytes]:
        client = Asked(self.factory)
        answer = client.say(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode("latin-1"))
        client.go_away()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        return int(status.split()[1]), dict(each.lower().split(": ", 1) for each in lines), body


def test_the_metrics_are_served_as_prometheus_reads_them() -> None:
    status, headers, body = Here().ask("/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["content-length"] == str(len(body))
    assert "smtpclient_deliveries" in {family.name for family in plain(body.decode())}


def test_who_accepts_openmetrics_is_served_it() -> None:
    accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n"
    _, headers, body = Here().ask("/metrics", headers=accept)
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.STARTING, 503),
        (State.READY, 200),
        (State.RELOADING, 200),
        (State.DRAINING, 503),
        (State.STOPPED, 503),
    ],
)
def test_it_is_ready_while_it_takes_requests_and_alive_all_the_while(state: State, status: int) -> None:
    here = Here()
    here.life.enter(state)
    assert here.ask("/readyz")[::2] == (status, state.value.encode() + b"\n")
    assert here.ask("/healthz")[::2] == (200, b"alive\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz?verbose=1"])
def test_head_is_get_without_the_body(path: str) -> None:
    here = Here()
    here.life.enter(State.READY)
    status, headers, body = here.ask(path, "HEAD")
    assert status == 200
    assert int(headers["content-length"]) > 0
    assert body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"])
def test_a_page_can_only_be_read(method: str) -> None:
    status, headers, _ = Here().ask("/metrics", method)
    assert status == 405
    assert headers["allow"] == "get, head"


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/Metrics", "/../metrics", "//metrics", "/metrics%2F", "*", "/x"]
)
def test_another_path_is_not_found(path: str) -> None:
    assert Here().ask(path)[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/x"])
def test_no_answer_tells_what_software_answers_or_may_be_kept(path: str) -> None:
    _, headers, _ = Here().ask(path)
    assert "server" not in headers
    assert headers["cache-control"] == "no-store"


def test_a_page_that_fails_is_a_500_and_a_traceback_in_the_log(logged_failures: Any) -> None:
    def fails(accept: str) -> Any:
        raise KeyError("secret")

    status, _, body = Here({b"/metrics": fails}).ask("/metrics")
    assert status == 500
    assert b"secret" not in body
    assert len(logged_failures.flush(KeyError)) == 1


# Bounds


@pytest.mark.parametrize("headers", ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_with_a_body_is_refused_before_it_has_come(method: str, headers: str) -> None:
    here = Here()
    client = Asked(here.factory)
    answer = client.say(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert client.transport.disconnecting
    # Nor is it kept, should it come all the same.
    assert client.say(b"1\r\nx\r\n" * 1000) == b""
    client.go_away()


@pytest.mark.parametrize(
    "octets", [b"GET /" + b"x" * 20_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000, b"\r\n" * 20_000]
)
def test_a_request_without_end_ends_the_connection(octets: bytes) -> None:
    here = Here()
    client = Asked(here.factory)
    client.say(octets)
    if not client.transport.disconnecting:
        here.clock.advance(IDLE + 1)
    assert client.transport.disconnecting
    client.go_away()


def test_a_connection_that_says_nothing_is_closed() -> None:
    here = Here()
    client = Asked(here.factory)
    here.clock.advance(IDLE - 1)
    assert not client.transport.disconnecting
    here.clock.advance(2)
    assert client.transport.disconnecting
    client.go_away()


def test_connections_are_bounded_and_room_is_made_by_those_that_leave() -> None:
    here = Here()
    clients = [Asked(here.factory) for _ in range(MAX_CONNECTIONS)]
    assert here.factory.buildProtocol(None) is None
    clients.pop().go_away()
    clients.append(Asked(here.factory))
    assert clients[-1].say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"alive\n")
    here.factory.close()
    assert all(client.transport.disconnecting for client in clients)
    for client in clients:
        client.go_away()


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"GET /metrics HTTP/1.1\r\n", b"\r\n", b":"])))
def test_no_octets_are_an_error_in_the_log(octets: list[bytes]) -> None:
    here = Here()
    client = Asked(here.factory)
    for each in octets:
        # What is closed is not read from.
        if not client.transport.disconnecting:
            client.say(each)
    client.go_away()


# As a part of the daemon


class TakenEndpoint:
    def listen(self, factory: Any) -> Deferred[Any]:
        return fail(CannotListenError(LOOPBACK, 9100, OSError("in use")))


def test_a_port_in_use_is_an_exception_when_it_is_started() -> None:
    endpoint: Any = TakenEndpoint()
    pages = Pages(endpoint, Here().factory)
    with pytest.raises(CannotListenError, match="9100"):
        pages.privilegedStartService()


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest_twisted.inlineCallbacks
def test_a_daemon_that_drains_is_alive_and_not_ready() -> Generator[Deferred[Any], Any, None]:
    agent = FakeAgent()
    clock = Clock()
    daemon = Daemon(clock, agent, [TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)], drain_timeout=10)
    calls: Any = reactor
    before = set(calls.getDelayedCalls())
    pages = Pages(
        TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK),
        PagesFactory(pages_of(Metrics(), daemon.life), reactor),
    )
    daemon.addService(pages)  # type: ignore[no-untyped-call]  # Twisted has no types here
    assert daemon.life.state is State.STARTING
    daemon.startService()
    assert pages.port is not None
    port = pages.port.getHost().port  # type: ignore[attr-defined]
    assert (yield deferToThread(get, port, "/readyz")) == (200, b"ready\n")
    client = daemon.clients.buildProtocol(None)
    Protocol.makeConnection(client, StringTransport())
    client.dataReceived(line(id=1) + b"\n")
    stopped = daemon.stopService()
    while daemon.ports or not daemon.deliveries.draining:
        yield deferToThread(get, port, "/healthz")
    assert (yield deferToThread(get, port, "/readyz")) == (503, b"draining\n")
    assert (yield deferToThread(get, port, "/healthz")) == (200, b"alive\n")
    agent.deliveries[0].succeed()
    clock.advance(0)
    client.connectionLost()
    yield stopped
    assert daemon.life.state is State.STOPPED
    with pytest.raises(urllib.error.URLError, match="refused"):
        yield deferToThread(get, port, "/healthz")
    assert {call for call in calls.getDelayedCalls() if call.active()} <= before
