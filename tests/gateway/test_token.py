"""
Tests of the token that a client shows before anything else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.gateway.fakes import Daemon, Transport, line
from twisted_smtpclient.gateway.jsonlines import JSONLinesFactory
from twisted_smtpclient.gateway.token import (
    FIRST_LINE,
    LAST_WORDS,
    MAX_TOKEN,
    MAX_TOKENS,
    TOKEN_TIMEOUT,
    Tokens,
)

TOKEN = "correct horse battery staple"


@implementer(IHalfCloseableDescriptor)
class Socket(Transport):
    """A transport that can be half-closed, as TCP and UNIX sockets can."""

    write_closed = False

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def writeConnectionLost(self, reason: Failure) -> None:
        """Of the interface."""

    def readConnectionLost(self, reason: Failure) -> None:
        """Of the interface."""


def file_of(tmp_path: Path, octets: bytes = TOKEN.encode() + b"\n") -> str:
    path = tmp_path / "tokens"
    path.write_bytes(octets)
    return str(path)


class Guarded(Daemon):
    """A daemon whose clients must show a token."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.factory = JSONLinesFactory(self.deliveries, self.clock, max_in_flight=3, tokens=tokens)


class Client:
    """One connection, seen from the client's side."""

    def __init__(self, daemon: Guarded, transport: Any = None) -> None:
        self.daemon = daemon
        self.transport: Any = Socket() if transport is None else transport
        self.protocol: Any = daemon.factory.buildProtocol(None)
        Protocol.makeConnection(self.protocol, self.transport)

    def send(self, octets: bytes) -> None:
        self.protocol.dataReceived(octets)

    def replies(self) -> list[dict[str, Any]]:
        self.daemon.clock.advance(0)
        octets = self.transport.value()
        self.transport.clear()
        assert not octets or octets.endswith(b"\n")
        return [json.loads(each) for each in octets.splitlines()]

    def go_away(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(Guarded(Tokens(file_of(tmp_path))))


def first(token: object = TOKEN, **others: object) -> bytes:
    return json.dumps({"token": token, **others}).encode() + b"\n"


def assert_turned_away(client: Client, **reply: object) -> None:
    (told,) = client.replies()
    assert told["status"] == "error"
    assert told["error"] == "NotAllowed"
    assert told["temporary"] is False
    assert '{"token": …}' in told["message"]
    assert {name: told[name] for name in told.keys() & {"id"}} == reply
    assert client.transport.write_closed
    assert client.daemon.agent.deliveries == []


# The first line


def test_who_shows_the_token_is_told_ok_and_then_served(client: Client) -> None:
    client.send(first())
    assert client.replies() == [{"status": "ok"}]
    client.send(line(id=7) + b"\n")
    client.daemon.agent.deliveries[0].succeed()
    (reply,) = client.replies()
    assert (reply["id"], reply["status"]) == (7, "ok")
    assert not client.transport.disconnecting


def test_an_id_beside_the_token_is_echoed(client: Client) -> None:
    client.send(first(id="a"))
    assert client.replies() == [{"id": "a", "status": "ok"}]


def test_what_comes_in_the_same_read_as_the_token_is_requests(client: Client) -> None:
    client.send(first() + line(id=1) + b"\n" + line(id=2) + b"\n" + line(id=3)[:10])
    assert len(client.daemon.agent.deliveries) == 2
    client.send(line(id=3)[10:] + b"\n")
    for delivery in client.daemon.agent.deliveries:
        delivery.succeed()
    assert [reply.get("id") for reply in client.replies()] == [None, 1, 2, 3]


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_the_token_may_come_in_pieces(client: Client, pieces: int) -> None:
    octets = first() + line(id=1) + b"\n"
    for begin in range(0, len(octets), pieces):
        client.send(octets[begin : begin + pieces])
    assert client.replies() == [{"status": "ok"}]
    assert len(client.daemon.agent.deliveries) == 1


def test_empty_lines_before_it_are_ignored_and_crlf_is_accepted(client: Client) -> None:
    client.send(b"\n\r\n" * 50_000)
    client.send(b"\r\n" + first().replace(b"\n", b"\r\n"))
    assert client.replies() == [{"status": "ok"}]


@pytest.mark.parametrize(
    "octets",
    [
        first(TOKEN + "x"),
        first(TOKEN[:-1]),
        first(TOKEN.upper()),
        first(TOKEN + "\n"),
        first(""),
        first(None),
        first([TOKEN]),
        first(TOKEN, more=1),
        b'{"token": "\\ud800"}\n',
        b'{"token": "\xff"}\n',
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"[" * FIRST_LINE + b"\n",
        TOKEN.encode() + b"\n",
        b"\0\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_anything_else_is_not_allowed_and_the_connection_is_closed(client: Client, octets: bytes) -> None:
    client.send(octets)
    assert_turned_away(client)
    client.send(first() + line(id=1) + b"\n")
    assert client.replies() == []
    assert client.daemon.agent.deliveries == []


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (line(id=7) + b"\n", {"id": 7}),
        (line(id="a", unknown=1) + b"\n", {"id": "a"}),
        (line(id=None) + b"\n", {"id": None}),
        (line() + b"\n", {}),
        (line(id=True) + b"\n", {}),
        (first("wrong", id=7), {"id": 7}),
        (b'{"id": 7, "message": "' + b"A" * FIRST_LINE, {"id": 7}),
    ],
)
def test_a_request_without_a_token_is_not_looked_at_but_its_id_is_told_back(
    client: Client, octets: bytes, reply: dict[str, object]
) -> None:
    client.send(octets)
    assert_turned_away(client, **reply)


def test_the_first_line_is_bounded(client: Client) -> None:
    client.send(b"x" * FIRST_LINE)
    assert client.replies() == []
    client.send(b"x")
    assert_turned_away(client)


def test_a_line_over_the_bound_is_turned_away_although_its_token_is_right(client: Client) -> None:
    client.send(first().replace(b"{", b"{" + b" " * FIRST_LINE))
    assert_turned_away(client)


@given(st.binary(max_size=200))
def test_no_first_line_but_the_token_s_is_let_in(octets: bytes) -> None:
    tokens = Tokens.__new__(Tokens)
    tokens.path, tokens._digests = "", ()
    client = Client(Guarded(tokens))
    client.send(octets)
    assert all(reply["error"] == "NotAllowed" for reply in client.replies())
    assert client.daemon.agent.deliveries == []


# Time


def test_who_says_nothing_is_turned_away_after_a_while(client: Client) -> None:
    client.send(first()[:-1])
    client.daemon.clock.advance(TOKEN_TIMEOUT - 0.1)
    assert client.replies() == []
    client.daemon.clock.advance(0.1)
    assert_turned_away(client)


def test_to_send_now_and_then_does_not_make_it_longer(client: Client) -> None:
    for _ in range(20):
        client.send(b"\n")
        client.daemon.clock.advance(TOKEN_TIMEOUT / 20)
    assert_turned_away(client)


def test_who_was_turned_away_has_a_moment_to_read_why_and_is_then_cut_off(client: Client) -> None:
    client.send(b"{}\n" + b"x" * 100_000)
    assert_turned_away(client)
    assert not client.transport.aborted
    client.daemon.clock.advance(LAST_WORDS)
    assert client.transport.aborted
    client.go_away()
    assert client.daemon.clock.getDelayedCalls() == []


def test_who_was_turned_away_and_closes_is_closed_at_once(client: Client) -> None:
    client.send(b"{}\n")
    client.protocol.readConnectionLost()
    assert client.transport.disconnecting
    client.go_away()
    assert client.daemon.clock.getDelayedCalls() == []
    assert client.daemon.factory.clients == set()


def test_where_there_is_no_half_close_it_is_closed_behind_the_reply(tmp_path: Path) -> None:
    client = Client(Guarded(Tokens(file_of(tmp_path))), Transport())
    client.send(b"{}\n")
    assert client.replies()[0]["error"] == "NotAllowed"
    assert client.transport.disconnecting


@pytest.mark.parametrize("said", [b"", first()[:5], b"{}\n", first(), first() + line(id=1) + b"\n"])
def test_a_client_that_goes_away_leaves_nothing_behind(client: Client, said: bytes) -> None:
    client.send(said)
    client.go_away()
    client.daemon.clock.advance(0)
    assert client.daemon.clock.getDelayedCalls() == []
    assert client.daemon.factory.clients == set()


# Half-close


def test_a_half_close_is_heard_before_and_behind_the_token(client: Client) -> None:
    assert IHalfCloseableProtocol.providedBy(client.protocol)
    client.send(first() + line(id=1))
    client.protocol.readConnectionLost()
    assert len(client.daemon.agent.deliveries) == 1
    assert not client.transport.disconnecting
    client.daemon.agent.deliveries[0].succeed()
    assert [reply["status"] for reply in client.replies()] == ["ok", "ok"]
    assert client.transport.disconnecting


def test_a_token_without_a_line_end_before_the_half_close_is_one(client: Client) -> None:
    client.send(first()[:-1])
    client.protocol.readConnectionLost()
    assert client.replies() == [{"status": "ok"}]
    assert client.transport.disconnecting


def test_who_connects_and_says_nothing_at_all_is_told_nothing(client: Client) -> None:
    client.protocol.readConnectionLost()
    assert client.replies() == []
    assert client.transport.disconnecting


# The daemon around it


def test_those_without_a_token_are_clients_and_let_in_they_are_counted_once(client: Client) -> None:
    factory = client.daemon.factory
    assert len(factory.clients) == 1
    client.send(first())
    assert len(factory.clients) == 1
    client.go_away()
    assert len(factory.clients) == 0


def test_a_daemon_that_drains_closes_those_that_have_not_said_who_they_are(client: Client) -> None:
    drained: list[None] = []
    client.daemon.factory.drain(5).addCallback(drained.append)
    assert client.transport.disconnecting
    client.go_away()
    assert drained == [None]


def test_one_who_is_let_in_while_it_does_not_read_is_not_read_from(client: Client) -> None:
    client.send(first())
    client.transport.producer.pauseProducing()
    assert client.transport.producerState == "paused"


def test_turning_away_is_logged_without_what_was_shown(client: Client) -> None:
    with capturedLogs() as events:
        client.send(first(TOKEN + "x"))
    assert any("was turned away" in event["log_format"] for event in events)
    assert not any(TOKEN in repr(event) for event in events)


# The file


@pytest.mark.parametrize(
    ("octets", "tokens"),
    [
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\n", ["a"]),
        (b" a \n", [" a "]),
        (b"a\nb\n", ["a", "b"]),
        (b"\na\n\n\nb", ["a", "b"]),
        ("ключ\n".encode(), ["ключ"]),
        (b"x" * MAX_TOKEN, ["x" * MAX_TOKEN]),
        (b"\n".join(b"%d" % n for n in range(MAX_TOKENS)), ["0", str(MAX_TOKENS - 1)]),
    ],
)
def test_a_file_has_a_token_a_line(octets: bytes, tokens: list[str], tmp_path: Path) -> None:
    read = Tokens(file_of(tmp_path, octets))
    assert all(map(read.accept, tokens))
    assert not any(map(read.accept, ["", "a\n", "b ", "\ud800", "\r"]))


def test_the_longest_token_fits_the_first_line_however_it_is_escaped(tmp_path: Path) -> None:
    client = Client(Guarded(Tokens(file_of(tmp_path, b"x" * MAX_TOKEN))))
    client.send(b'{"token": "' + b"\\u0078" * MAX_TOKEN + b'"}\n')
    assert client.replies() == [{"status": "ok"}]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "it has none"),
        (b"\n\r\n\n", "it has none"),
        (b"secret\xff", "it is not UTF-8"),
        (b"secret\tx", "one has characters that are not printable"),
        (b"secret\rx", "one has characters that are not printable"),
        (b"\xef\xbb\xbfsecret", "one has characters that are not printable"),
        (b"secret" + b"x" * MAX_TOKEN, "one is longer than 512 octets"),
        (b"secret\n" * (MAX_TOKENS + 1), "it has more than 64"),
        (b"\n" * 100_000 + b"secret", "it has more than 32896 octets"),
    ],
)
def test_a_file_that_will_not_do_is_an_error_that_keeps_the_secret(
    octets: bytes, why: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, octets)
    with pytest.raises(ValueError, match=why) as caught:
        Tokens(path)
    assert path in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        Tokens(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="Is a directory"):
        Tokens(str(tmp_path))


def test_read_again_it_has_the_new_tokens_and_those_who_are_in_stay(tmp_path: Path) -> None:
    tokens = Tokens(file_of(tmp_path, b"old\n"))
    daemon = Guarded(tokens)
    client = Client(daemon)
    client.send(first("old"))
    file_of(tmp_path, b"new\n")
    tokens.reload()
    assert tokens.accept("new")
    assert not tokens.accept("old")
    client.send(line(id=1) + b"\n")
    assert len(daemon.agent.deliveries) == 1


def test_read_again_from_another_folder_it_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_of(tmp_path, b"old\n")
    monkeypatch.chdir(tmp_path)
    tokens = Tokens("tokens")
    monkeypatch.chdir("/")
    file_of(tmp_path, b"new\n")
    tokens.reload()
    assert tokens.accept("new")


def test_read_again_and_unfit_it_leaves_the_tokens_that_there_were(tmp_path: Path) -> None:
    tokens = Tokens(file_of(tmp_path, b"old\n"))
    file_of(tmp_path, b"")
    with pytest.raises(ValueError, match="it has none"):
        tokens.reload()
    os.unlink(tokens.path)
    with pytest.raises(ValueError, match="No such file"):
        tokens.reload()
    assert tokens.accept("old")


def test_no_token_is_in_a_repr_or_kept(client: Client, tmp_path: Path) -> None:
    client.send(first()[:-3])
    tokens = Tokens(file_of(tmp_path))
    assert repr(tokens) == f"<Tokens: 1 from {tokens.path!r}>"
    assert TOKEN not in repr(vars(tokens))
    assert repr(client.protocol) == "<TokenProtocol: waiting>"


def test_a_comparison_goes_over_all_tokens_and_whole_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("twisted_smtpclient.gateway.token.hmac.compare_digest", compare)
    tokens = Tokens(file_of(tmp_path, b"a\nb\nc\n"))
    for shown in ("a", "c", "x", ""):
        tokens.accept(shown)
    assert compared == [(32, 32)] * 12


# Over real sockets: what becomes of a reply when the connection is closed is the kernel's affair.


class Collect(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost.callback(self.received)


@pytest_twisted.inlineCallbacks
def test_who_floods_without_a_token_still_reads_why(tmp_path: Path) -> Generator[Deferred[Any], Any, None]:
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol

    daemon = Guarded(Tokens(file_of(tmp_path)))
    factory = JSONLinesFactory(daemon.deliveries, reactor, tokens=Tokens(file_of(tmp_path)))
    port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    client = yield connectProtocol(endpoint, Collect())
    client.transport.write(b'{"id": 1, "message": "' + b"U3Vi" * 500_000 + b'"}\n')
    received = yield client.lost
    assert json.loads(received)["error"] == "NotAllowed"
    assert json.loads(received)["id"] == 1
    yield port.stopListening()
