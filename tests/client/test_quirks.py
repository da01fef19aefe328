from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from twisted_smtpclient import Protocol, Server
from twisted_smtpclient.client import quirks as quirks_module
from twisted_smtpclient.client.quirks import REMEMBERED, Quirks

SERVER = Server(host="mx.example")


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def test_nothing_is_left_out_unless_told() -> None:
    quirks = Quirks(Clock())
    assert not quirks.breaks(SERVER, "CHUNKING")
    quirks.remember(SERVER, "CHUNKING", "why")
    assert quirks.breaks(SERVER, "CHUNKING")


def test_it_is_left_out_for_ten_minutes() -> None:
    clock = Clock()
    quirks = Quirks(clock)
    quirks.remember(SERVER, "CHUNKING", "why")
    assert REMEMBERED == 600
    clock.advance(599.9)
    assert quirks.breaks(SERVER, "CHUNKING")
    clock.advance(0.2)
    assert not quirks.breaks(SERVER, "CHUNKING")


def test_what_breaks_again_is_left_out_from_then_on() -> None:
    clock = Clock()
    quirks = Quirks(clock)
    quirks.remember(SERVER, "CHUNKING", "why")
    clock.advance(500)
    quirks.remember(SERVER, "CHUNKING", "why")
    clock.advance(500)
    assert quirks.breaks(SERVER, "CHUNKING")
    assert len(quirks) == 1


@pytest.mark.parametrize(
    ("server", "keyword"),
    [
        (SERVER, "PIPELINING"),
        (Server(host="other.example"), "CHUNKING"),
        (Server(host="mx.example", port=26), "CHUNKING"),
        (Server(host="mx.example", port=25, protocol=Protocol.LMTP), "CHUNKING"),
    ],
)
def test_another_server_or_another_extension_is_not_concerned(server: Server, keyword: str) -> None:
    quirks = Quirks(Clock())
    quirks.remember(SERVER, "CHUNKING", "why")
    assert not quirks.breaks(server, keyword)


def test_the_same_server_on_other_terms_is() -> None:
    quirks = Quirks(Clock())
    quirks.remember(SERVER, "CHUNKING", "why")
    assert quirks.breaks(Server(host="mx.example", helo="me.example", connection_timeout=3), "CHUNKING")


def test_the_log_says_so_once_in_those_ten_minutes(log: list[LogEvent]) -> None:
    clock = Clock()
    quirks = Quirks(clock)
    for _ in range(3):
        quirks.remember(SERVER, "CHUNKING", "500 what?")
    (event,) = log
    assert event["log_level"] is LogLevel.warn
    assert formatEvent(event) == (
        "mx.example:25 offers CHUNKING and breaks on it (500 what?); left out for 600 s"
    )
    clock.advance(601)
    quirks.remember(SERVER, "CHUNKING", "500 what?")
    assert len(log) == 2


def test_a_server_s_words_cannot_forge_a_line_of_the_log(log: list[LogEvent]) -> None:
    Quirks(Clock()).remember(SERVER, "STARTTLS", "454 no\n2026 \x1b[2J all is well {keyword}")
    told = formatEvent(log[0])
    assert "(454 no\\n2026 \\x1b[2J all is well {keyword})" in told
    assert told.isprintable()


def test_no_more_servers_are_remembered_than_the_bound_and_the_oldest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quirks_module, "MAX_SERVERS", 3)
    quirks = Quirks(Clock())
    servers = [Server(host=f"mx{number}.example") for number in range(4)]
    for server in servers[:3]:
        quirks.remember(server, "CHUNKING", "why")
    # Named again it is the newest.
    quirks.remember(servers[0], "CHUNKING", "why")
    quirks.remember(servers[3], "CHUNKING", "why")
    assert len(quirks) == 3
    assert [quirks.breaks(server, "CHUNKING") for server in servers] == [True, False, True, True]
