"""
Tests of connecting: look-up, addresses in turn, source addresses, UNIX sockets, and one bound over all.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error as failures
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectBindError, ConnectError, NoRouteError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from tests.client.memory import Connector as Attempt
from tests.client.memory import Network, Outcome
from tests.client.sessions import envelope
from twisted_smtpclient import (
    Cancelled,
    ConnectionFailed,
    ConnectionRefused,
    ConnectionTimeout,
    Content,
    DeliveryAgent,
    HostNotFound,
    Server,
    TLSMode,
)
from twisted_smtpclient.client.connect import ATTEMPT_DELAY, MAX_ADDRESSES, Connector
from twisted_smtpclient.client.resolve import MAX_LOOK_UPS, SystemResolver
from twisted_smtpclient.testing import Sink

FOUR, OTHER_FOUR = "192.0.2.1", "192.0.2.2"
SIX, OTHER_SIX = "2001:db8::1", "2001:db8::2"


class Greeter(Protocol):
    """A server that remembers what was said to it."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class Client(Protocol):
    """A client that speaks first."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]  # it is connected


class Trial:
    """
    One connecting in memory.

    :param found: what the look-up gives: addresses, an error, or None for never.
    """

    def __init__(
        self, found: Sequence[str] | Exception | None = (FOUR,), *, host: str = "mx.example", **terms: Any
    ) -> None:
        self.network = Network()
        self.asked: list[str] = []
        self.greeters: list[Greeter] = []
        self.built: list[Client] = []
        self._found = found
        self.lookup: Deferred[Any] = Deferred(lambda _: None)
        self.server = Server(host=host, tls=TLSMode.NO, **terms)

    def buildProtocol(self, address: object) -> Greeter:
        self.greeters.append(Greeter())
        return self.greeters[-1]

    def _resolve(self, host: str) -> Deferred[Sequence[str]]:
        self.asked.append(host)
        if self._found is None:
            return self.lookup
        return fail(self._found) if isinstance(self._found, Exception) else succeed(self._found)

    def _build(self) -> Client:
        self.built.append(Client())
        return self.built[-1]

    def begin(self) -> Deferred[Client]:
        return Connector(self.network, self._resolve).connect(self.server, self._build)

    def run(self, bound: float = 20, step: float = 0.125) -> Outcome[Client]:
        return self.network.until(self.begin(), bound, step)

    @property
    def tried(self) -> list[tuple[str, float]]:
        """Each address, and when it was tried."""
        return [(str(getattr(each.address, "host", "")), each.began) for each in self.network.attempts]

    def assert_nothing_is_under_way(self) -> None:
        assert self.network.getDelayedCalls() == []
        assert all(attempt.state != "connecting" for attempt in self.network.attempts)


# Look-up.


def test_a_name_is_looked_up_and_its_address_connected_to() -> None:
    trial = Trial()
    trial.network.serve(trial, FOUR)
    outcome = trial.run()
    assert outcome.value is trial.built[0]
    assert trial.asked == ["mx.example"]
    assert trial.tried == [(FOUR, 0.0)]
    assert trial.greeters[0].heard == b"hello"
    trial.assert_nothing_is_under_way()


@pytest.mark.parametrize("host", [FOUR, SIX, f"[{SIX}]"])
def test_an_address_is_not_looked_up(host: str) -> None:
    trial = Trial(host=host)
    trial.network.serve(trial, host.strip("[]"))
    assert trial.run().value is trial.built[0]
    assert trial.asked == []


def test_a_look_up_that_never_answers_ends_within_the_bound() -> None:
    trial = Trial(None, connection_timeout=3)
    outcome = trial.run()
    assert isinstance(outcome.error, ConnectionTimeout)
    assert isinstance(outcome.error, TimeoutError)
    assert str(outcome.error) == "Connection timed out: mx.example:25: not connected within 3 s"
    assert outcome.error.temporary
    assert outcome.seconds == 3
    trial.assert_nothing_is_under_way()


def test_a_look_up_that_will_not_be_cancelled_and_answers_too_late_is_nobodys() -> None:
    trial = Trial(None, connection_timeout=3)
    # One that a cancel ends with an answer is the latest that there is.
    trial.lookup = Deferred(lambda lookup: lookup.callback([FOUR]))
    assert isinstance(trial.run().error, ConnectionTimeout)
    trial.network.settle()
    assert trial.tried == []
    trial.assert_nothing_is_under_way()


@pytest.mark.parametrize("temporary", [True, False])
def test_a_look_up_that_fails_says_whether_to_ask_again(temporary: bool) -> None:
    error = HostNotFound("Host not found: mx.example: for a reason", temporary=temporary)
    trial = Trial(error)
    outcome = trial.run()
    assert outcome.error is error
    trial.assert_nothing_is_under_way()


def test_a_resolver_that_fails_in_a_way_of_its_own_is_a_temporary_failure() -> None:
    trial = Trial(KeyError("mine"))
    error = trial.run().error
    assert isinstance(error, HostNotFound)
    assert error.temporary
    assert str(error) == "Host not found: mx.example: KeyError('mine')"


def test_a_resolver_that_raises_is_a_temporary_failure() -> None:
    trial = Trial()

    def raises(host: str) -> Deferred[Sequence[str]]:
        raise RuntimeError("mine")

    error = trial.network.until(Connector(trial.network, raises).connect(trial.server, trial._build)).error
    assert isinstance(error, HostNotFound)
    assert error.temporary
    trial.assert_nothing_is_under_way()


def test_a_resolver_that_gives_no_deferred_is_taken_at_its_word() -> None:
    trial = Trial()
    trial.network.serve(trial, FOUR)
    resolver: Any = lambda host: [FOUR]  # noqa: E731 - as a user writes it
    connecting = Connector(trial.network, resolver).connect(trial.server, trial._build)
    assert trial.network.until(connecting).value is trial.built[0]


@pytest.mark.parametrize("found", [["mx2.example"], [FOUR, "nonsense"], [None], 7])
def test_a_resolver_that_gives_no_addresses_is_a_temporary_failure_at_once(found: Any) -> None:
    trial = Trial(found)
    outcome = trial.run()
    assert isinstance(outcome.error, HostNotFound)
    assert outcome.error.temporary
    assert outcome.seconds == 0
    trial.assert_nothing_is_under_way()


def test_a_name_without_an_address_is_not_found() -> None:
    outcome = Trial([]).run()
    assert isinstance(outcome.error, HostNotFound)
    assert not outcome.error.temporary
    assert str(outcome.error) == "Host not found: mx.example: it has no address"


# Several addresses.


def test_families_are_tried_in_turn_beginning_with_the_resolvers_first() -> None:
    trial = Trial([SIX, OTHER_SIX, FOUR, OTHER_FOUR])
    for address in (SIX, OTHER_SIX, FOUR, OTHER_FOUR):
        trial.network.serve(None, address)
    trial.run(bound=2, step=ATTEMPT_DELAY)
    assert trial.tried == [(SIX, 0.0), (FOUR, 0.25), (OTHER_SIX, 0.5), (OTHER_FOUR, 0.75)]


def test_a_refusal_does_not_wait_for_the_next_attempts_turn() -> None:
    trial = Trial([SIX, FOUR])
    trial.network.serve(failures.ConnectionRefusedError(), SIX, seconds=0.125)
    trial.network.serve(trial, FOUR)
    assert trial.run().value is trial.built[0]
    assert trial.tried == [(SIX, 0.0), (FOUR, 0.125)]
    trial.assert_nothing_is_under_way()


def test_the_first_to_connect_wins_and_the_others_are_given_up() -> None:
    trial = Trial([SIX, FOUR, OTHER_FOUR])
    trial.network.serve(None, SIX)
    trial.network.serve(trial, FOUR, seconds=0.3)
    trial.network.serve(None, OTHER_FOUR)
    outcome = trial.run()
    assert outcome.value is trial.built[0]
    assert len(trial.built) == 1
    assert [(attempt.state, attempt.stopped) for attempt in trial.network.attempts] == [
        ("disconnected", True),
        ("connected", False),
        ("disconnected", True),
    ]
    trial.assert_nothing_is_under_way()


def test_one_that_connects_too_late_is_closed_and_never_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial([SIX, FOUR])
    trial.network.serve(trial, SIX, seconds=0.25)
    trial.network.serve(trial, FOUR, seconds=0.0)
    # Both connect in the same turn, in which the loser's cannot be stopped.
    monkeypatch.setattr(Attempt, "stopConnecting", lambda attempt: None)
    outcome = trial.run()
    trial.network.elapse(0.5, 0.25)
    assert outcome.value is trial.built[0]
    assert len(trial.built) == 1
    assert len(trial.greeters) == 2
    assert sorted(greeter.heard for greeter in trial.greeters) == [b"", b"hello"]
    assert [greeter.lost for greeter in trial.greeters if not greeter.heard] == [True]


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        (
            [failures.ConnectionRefusedError(), NoRouteError()],
            ConnectionRefused,
            "Connection refused: mx.example:25",
        ),
        (
            [NoRouteError(), failures.ConnectionRefusedError()],
            ConnectionRefused,
            "Connection refused: mx.example:25",
        ),
        ([NoRouteError(), failures.TimeoutError()], ConnectionTimeout, "Connection timed out: mx.example:25"),
        ([NoRouteError(), NoRouteError()], ConnectionFailed, "Cannot connect to mx.example:25: "),
        (
            [ConnectError(osError=errno.EPERM, string="not for you")] * 2,
            ConnectionFailed,
            "Cannot connect to mx.example:25: ",
        ),
    ],
)
def test_of_many_failures_the_one_that_tells_most_is_told(
    answers: list[Exception], error: type[Exception], says: str
) -> None:
    trial = Trial([SIX, FOUR])
    for address, answer in zip((SIX, FOUR), answers, strict=True):
        trial.network.serve(answer, address)
    outcome = trial.run()
    assert type(outcome.error) is error
    assert str(outcome.error).startswith(says)
    assert outcome.seconds == 0
    trial.assert_nothing_is_under_way()


def test_all_addresses_share_one_bound() -> None:
    trial = Trial([SIX, FOUR], connection_timeout=5)
    trial.network.serve(None, SIX)
    trial.network.serve(None, FOUR)
    outcome = trial.run()
    assert isinstance(outcome.error, ConnectionTimeout)
    assert outcome.seconds == 5
    assert all(attempt.stopped for attempt in trial.network.attempts)
    trial.assert_nothing_is_under_way()


def test_a_name_with_very_many_addresses_has_only_some_of_them_tried() -> None:
    trial = Trial([f"192.0.2.{number}" for number in range(200)])
    outcome = trial.run()
    assert isinstance(outcome.error, ConnectionRefused)
    assert len(trial.tried) == MAX_ADDRESSES


def test_an_attempt_that_cannot_even_begin_is_a_failed_one() -> None:
    trial = Trial([SIX, FOUR])
    trial.network.serve(socket.gaierror(socket.EAI_NONAME, "no such zone"), SIX)
    trial.network.serve(trial, FOUR)
    assert trial.run().value is trial.built[0]
    trial.assert_nothing_is_under_way()


def test_the_only_attempt_that_cannot_even_begin_is_a_named_error_at_once() -> None:
    trial = Trial(host="fe80::1%nosuch0")
    trial.network.serve(socket.gaierror(socket.EAI_NONAME, "no such zone"), "fe80::1%nosuch0")
    outcome = trial.run()
    assert isinstance(outcome.error, ConnectionFailed)
    assert "no such zone" in str(outcome.error)
    assert outcome.seconds == 0
    trial.assert_nothing_is_under_way()


def test_a_second_attempt_that_cannot_even_begin_is_a_failed_one() -> None:
    trial = Trial([FOUR, SIX], connection_timeout=5)
    trial.network.serve(trial, FOUR, seconds=1)
    trial.network.serve(socket.gaierror(socket.EAI_NONAME, "no such zone"), SIX)
    assert trial.run().value is trial.built[0]
    trial.assert_nothing_is_under_way()


# Where from.


def test_a_source_address_is_bound_and_only_its_family_tried() -> None:
    trial = Trial([SIX, FOUR, OTHER_FOUR], source_address="192.0.2.7")
    assert isinstance(trial.run().error, ConnectionRefused)
    assert [address for address, _ in trial.tried] == [FOUR, OTHER_FOUR]
    assert {attempt.bind for attempt in trial.network.attempts} == {("192.0.2.7", 0)}


def test_without_a_source_address_nothing_is_bound() -> None:
    trial = Trial()
    trial.run()
    assert trial.network.attempts[0].bind is None


def test_a_name_without_an_address_of_the_source_addresss_family_is_not_found() -> None:
    outcome = Trial([FOUR], source_address="2001:db8::7").run()
    assert isinstance(outcome.error, HostNotFound)
    assert str(outcome.error) == (
        "Host not found: mx.example: it has no address of the source address's family"
    )


def test_a_source_address_that_is_not_ours_is_told_as_such() -> None:
    trial = Trial(source_address="192.0.2.7")
    trial.network.serve(ConnectBindError(errno.EADDRNOTAVAIL, "not ours"), FOUR)
    outcome = trial.run()
    assert isinstance(outcome.error, ConnectionFailed)
    assert str(outcome.error).startswith("Cannot connect from 192.0.2.7 to mx.example:25: ")


# Cancelling.


@pytest.mark.parametrize("phase", ["looking up", "connecting", "between two attempts", "unix"])
def test_a_cancelled_connecting_ends_at_once_and_leaves_nothing_behind(phase: str) -> None:
    trial = {
        "looking up": lambda: Trial(None),
        "connecting": lambda: Trial([FOUR]),
        "between two attempts": lambda: Trial([FOUR, SIX]),
        "unix": lambda: Trial(host="unix:/run/lmtp"),
    }[phase]()
    for name in (FOUR, SIX, "/run/lmtp"):
        trial.network.serve(None, name)
    result = trial.begin()
    trial.network.settle()
    outcome = Outcome(result)
    result.cancel()
    assert type(outcome.error) is Cancelled
    trial.assert_nothing_is_under_way()
    assert trial.built == []


def test_a_look_up_that_nobody_wants_any_more_is_cancelled() -> None:
    trial = Trial(None)
    cancelled: list[object] = []
    trial.lookup = Deferred(cancelled.append)
    trial.begin().addErrback(lambda failure: None).cancel()
    assert cancelled == [trial.lookup]


def test_a_connecting_that_is_done_cannot_be_cancelled() -> None:
    trial = Trial()
    trial.network.serve(trial, FOUR)
    result = trial.begin()
    trial.network.settle()
    outcome = Outcome(result)
    result.cancel()
    assert outcome.value is trial.built[0]


# The kernel's part.


@pytest.fixture
def agent() -> Iterator[DeliveryAgent]:
    from twisted.internet import reactor

    agent = DeliveryAgent(reactor)
    yield agent
    pytest_twisted.blockon(agent.close())


async def attempt(agent: DeliveryAgent, **terms: Any) -> bool:
    """Deliver one mail in clear; whether it was accepted."""
    result = await agent.deliver(Server(tls=TLSMode.NO, **terms), envelope(), Content(b"x"))
    return result.all_ok


def free_port(family: int = socket.AF_INET, host: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("host", "shown"), [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")]
)
@pytest_twisted.ensureDeferred
async def test_a_port_on_which_nobody_listens_refuses(agent: DeliveryAgent, host: str, shown: str) -> None:
    port = free_port(socket.AF_INET6, "::1") if host == "::1" else free_port()
    with pytest.raises(ConnectionRefused) as caught:
        await attempt(agent, host=host, port=port)
    assert str(caught.value) == f"Connection refused: {shown}:{port}"
    assert isinstance(caught.value, OSError)
    assert caught.value.temporary


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost"])
@pytest_twisted.ensureDeferred
async def test_a_server_is_found_by_name_and_by_address(agent: DeliveryAgent, host: str) -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    interface = "\\:\\:1" if ":" in host else "127.0.0.1"
    await sink.listen(f"tcp:0:interface={interface}")
    assert await attempt(agent, host=host, port=sink.port)
    assert sink.sessions[0].helo == ("[IPv6:::1]" if ":" in host else "[127.0.0.1]")
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_first_address_that_refuses_is_followed_by_the_second() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen()
    agent = DeliveryAgent(reactor, resolver=lambda host: succeed(["::1", "127.0.0.1"]))
    assert await attempt(agent, host="mx.example", port=sink.port)
    await agent.close()
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_a_server_too(agent: DeliveryAgent, tmp_path: Any) -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen(f"unix:{tmp_path}/socket")
    assert await attempt(agent, host=f"unix:{tmp_path}/socket")
    assert sink.sessions[0].helo == "localhost"
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_that_does_not_exist_cannot_be_connected_to(
    agent: DeliveryAgent, tmp_path: Any
) -> None:
    with pytest.raises(ConnectionFailed, match=f"^Cannot connect to unix:{tmp_path}/missing: "):
        await attempt(agent, host=f"unix:{tmp_path}/missing")


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_on_which_nobody_listens_refuses(agent: DeliveryAgent, tmp_path: Any) -> None:
    path = f"{tmp_path}/stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
    with pytest.raises(ConnectionRefused) as caught:
        await attempt(agent, host=f"unix:{path}")
    assert str(caught.value) == f"Connection refused: unix:{path}"


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_socket_cannot_be_connected_to(agent: DeliveryAgent, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises((ConnectionRefused, ConnectionFailed)):
        await attempt(agent, host=f"unix:{path}")


@pytest.mark.parametrize(("source", "listen"), [("127.0.0.2", "127.0.0.1"), ("::1", "\\:\\:1")])
@pytest_twisted.ensureDeferred
async def test_a_source_address_is_the_one_that_the_server_sees(
    agent: DeliveryAgent, source: str, listen: str
) -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen(f"tcp:0:interface={listen}")
    assert await attempt(agent, host=listen.replace("\\", ""), port=sink.port, source_address=source)
    assert sink.sessions[0].peer.startswith(f"{source}:")
    await sink.stop()


# Twisted leaves a socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest_twisted.ensureDeferred
async def test_a_source_address_of_another_machine_cannot_be_connected_from(agent: DeliveryAgent) -> None:
    with pytest.raises(ConnectionFailed, match=r"^Cannot connect from 192\.0\.2\.7 to 127\.0\.0\.1:"):
        await attempt(agent, host="127.0.0.1", port=free_port(), source_address="192.0.2.7")


@pytest_twisted.ensureDeferred
async def test_an_interface_that_does_not_exist_is_a_named_error_at_once(agent: DeliveryAgent) -> None:
    with pytest.raises(ConnectionFailed):
        await attempt(agent, host="fe80::1%nosuch0", port=25)


@pytest_twisted.ensureDeferred
async def test_the_systems_resolver_tells_no_such_name_from_ask_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from twisted.internet import reactor

    resolve = SystemResolver(reactor)
    for code, temporary in (
        (socket.EAI_NONAME, False),
        (socket.EAI_FAIL, False),
        (socket.EAI_AGAIN, True),
        (errno.EMFILE, True),
    ):
        raised = socket.gaierror(code, "for a reason")

        def getaddrinfo(*args: object, raised: Exception = raised) -> object:
            raise raised

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(HostNotFound) as caught:
            await resolve("mx.example")
        assert caught.value.temporary is temporary
        assert str(caught.value) == "Host not found: mx.example: for a reason"


@pytest_twisted.ensureDeferred
async def test_a_name_that_cannot_be_a_name_is_not_found_for_good() -> None:
    from twisted.internet import reactor

    with pytest.raises(HostNotFound) as caught:
        await SystemResolver(reactor)("x" * 70 + ".example")
    assert not caught.value.temporary


@pytest_twisted.ensureDeferred
async def test_the_systems_resolver_gives_each_address_once() -> None:
    from twisted.internet import reactor

    found = await SystemResolver(reactor)("127.0.0.1")
    assert list(found) == ["127.0.0.1"]


class Threads:
    """Stands for getaddrinfo and its threads: each hangs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        monkeypatch.setattr("threading.Thread", self.thread)

    def thread(self, target: Any, args: tuple[str], daemon: bool) -> Threads:
        assert daemon, "a look-up that hangs must not hold up the end of the process"
        self.begun += args
        return self

    def start(self) -> None:
        """It hangs."""


def test_look_ups_that_hang_hold_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(monkeypatch)
    resolve = SystemResolver(None)
    for number in range(MAX_LOOK_UPS - 1):
        resolve(f"hangs{number}.example")
    resolve("mx.example")
    assert threads.begun[-1] == "mx.example"


def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(monkeypatch)
    resolve = SystemResolver(None)
    found: list[Any] = []
    waiting = [resolve("mx.example").addBoth(found.append) for _ in range(3)]
    waiting[1].cancel()
    assert threads.begun == ["mx.example"]
    resolve._answered("mx.example", ["192.0.2.1"])
    assert found[1:] == [["192.0.2.1"]] * 2
    resolve("mx.example")
    assert threads.begun == ["mx.example"] * 2


def test_look_ups_are_bounded_and_the_next_begins_when_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(monkeypatch)
    resolve = SystemResolver(None)
    for number in range(MAX_LOOK_UPS):
        resolve(f"hangs{number}.example")
    given_up: Deferred[Any] = resolve("nobody.waits.example").addErrback(lambda failure: [])
    resolve("mx.example")
    given_up.cancel()
    assert len(threads.begun) == MAX_LOOK_UPS
    resolve._answered("hangs0.example", [])
    assert threads.begun[MAX_LOOK_UPS:] == ["mx.example"]


def test_a_thread_that_cannot_be_had_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(threads: Threads) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Threads, "start", start)
    Threads(monkeypatch)
    clock = Clock()
    found: list[Any] = []
    SystemResolver(clock)("mx.example").addBoth(found.append)
    clock.advance(0)
    assert found[0].check(HostNotFound)
    assert found[0].value.temporary


def test_who_is_told_of_a_look_up_may_give_up_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    Threads(monkeypatch)
    resolve = SystemResolver(None)
    found: list[Any] = []
    first, second = resolve("mx.example"), resolve("mx.example")
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda failure: found.append(failure.type))
    resolve._answered("mx.example", ["192.0.2.1"])
    assert found == [CancelledError]
