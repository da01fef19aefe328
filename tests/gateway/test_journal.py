from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher, jsonFileLogObserver, textFileLogObserver

from tests.gateway.fakes import unknown, verdict
from twisted_smtpclient import errors
from twisted_smtpclient.gateway.journal import GATHER, MAX_LINES, Journal
from twisted_smtpclient.smtp.policy import Server, TLSMode

SERVER = Server(host="mx.example")


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


class Desk:
    def __init__(self) -> None:
        self.clock = Clock()
        self.journal = Journal(self.clock)

    def tell(
        self,
        *texts: str,
        server: Server = SERVER,
        sender: str | None = "foo@bar.de",
        error: errors.DeliveryError | None = None,
        seconds: float = 0.5,
    ) -> None:
        recipients = [verdict(f"r{number}@b.de", text) for number, text in enumerate(texts)]
        self.journal.tell(server, sender, recipients, error, seconds)

    def end_turn(self) -> None:
        self.clock.advance(GATHER)


def test_a_delivery_that_is_alone_in_its_turn_has_an_event_with_its_fields(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.tell("250 ok", "550 no", "250 ok", seconds=1.25)
    assert not log
    desk.end_turn()
    (event,) = log
    assert formatEvent(event) == "mx.example:25 from 'foo@bar.de': 2 Ok, 1 PermanentError, 1.250 s"
    assert event["server"] == "mx.example:25"
    assert event["sender"] == "foo@bar.de"
    assert event["counts"] == {"Ok": 2, "PermanentError": 1}
    assert event["seconds"] == 1.25
    assert event["error"] is None


def test_the_deliveries_of_one_turn_have_one_event_with_a_line_for_each(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.tell("250 ok", seconds=1.25)
    desk.tell(server=Server(host="::1", port=2525), sender=None, error=errors.ConnectionRefused("refused"))
    desk.tell("250 ok", "450 later", sender="b@bar.de")
    desk.end_turn()
    (event,) = log
    assert formatEvent(event).split("\n") == [
        "3 deliveries",
        "mx.example:25 from 'foo@bar.de': 1 Ok, 1.250 s",
        "[::1]:2525 from None: ConnectionRefused (refused), 0.500 s",
        "mx.example:25 from 'b@bar.de': 1 Ok, 1 TemporaryError, 0.500 s",
    ]
    assert [
        (each["server"], each["sender"], each["counts"], each["error"], each["seconds"])
        for each in event["deliveries"]
    ] == [
        ("mx.example:25", "foo@bar.de", {"Ok": 1}, None, 1.25),
        ("[::1]:2525", None, {}, "ConnectionRefused", 0.5),
        ("mx.example:25", "b@bar.de", {"Ok": 1, "TemporaryError": 1}, None, 0.5),
    ]


def test_each_turn_has_its_own_event(log: list[LogEvent]) -> None:
    desk = Desk()
    for _ in range(3):
        desk.tell("250 ok")
        desk.end_turn()
    assert len(log) == 3
    desk.end_turn()
    assert len(log) == 3


def test_one_alone_is_logged_at_the_end_of_its_turn_and_those_close_behind_it_together(
    log: list[LogEvent],
) -> None:
    desk = Desk()
    desk.clock.advance(10)
    desk.tell("250 ok")
    desk.clock.advance(0)
    assert len(log) == 1
    for _ in range(4):
        desk.tell("250 ok")
        desk.clock.advance(GATHER / 8)
    assert len(log) == 1
    desk.clock.advance(GATHER)
    assert [event.get("count") for event in log] == [None, 4]


def test_an_event_is_bounded_and_none_is_lost(log: list[LogEvent]) -> None:
    desk = Desk()
    for number in range(2 * MAX_LINES + 1):
        desk.tell("250 ok", sender=f"{number}@b.de")
    assert [event["count"] for event in log] == [MAX_LINES, MAX_LINES]
    assert repr(desk.journal) == "<Journal: 1 lines waiting>"
    desk.end_turn()
    told = [each["sender"] for event in log[:2] for each in event["deliveries"]] + [log[2]["sender"]]
    assert told == [f"{number}@b.de" for number in range(2 * MAX_LINES + 1)]
    assert not desk.clock.getDelayedCalls()


def test_it_can_be_told_not_to_wait_for_the_end_of_the_turn(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.journal.flush()
    assert not log
    desk.tell("250 ok")
    desk.journal.flush()
    assert len(log) == 1
    assert not desk.clock.getDelayedCalls()
    desk.tell("250 ok")
    desk.end_turn()
    assert len(log) == 2


def test_what_is_in_doubt_is_counted_as_unknown(log: list[LogEvent]) -> None:
    desk = Desk()
    error = errors.ConnectionLost("closed after\r\n250 \x1b[2Jok")
    error.recipients = (unknown("valid@valid.de", in_doubt=True),)
    desk.journal.tell(SERVER, None, error.recipients, error, 0.0)
    desk.end_turn()
    (event,) = log
    assert formatEvent(event) == (
        "mx.example:25 from None: ConnectionLost (closed after\\r\\n250 \\x1b[2Jok) 1 Unknown, 0.000 s"
    )
    assert event["error"] == "ConnectionLost"


@pytest.mark.parametrize("deliveries", [1, 2])
def test_braces_are_no_format(deliveries: int, log: list[LogEvent]) -> None:
    desk = Desk()
    for _ in range(deliveries):
        desk.tell(sender="{log_level}@bar.de", error=errors.ProtocolError("{seconds}"))
    desk.end_turn()
    assert "from '{log_level}@bar.de': ProtocolError ({seconds})" in formatEvent(log[0])


EVIL = st.text(st.characters() | st.sampled_from("\r\n\t\x0b\x0c\x1c\x85\u2028\u2029\u202e\x1b'\"\\ "))


@given(EVIL, EVIL, st.integers(1, 3))
def test_no_value_can_forge_a_line(sender: str, text: str, deliveries: int) -> None:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    desk = Desk()
    for _ in range(deliveries):
        desk.tell("250 ok", sender=sender, error=errors.ProtocolError(text))
    desk.end_turn()
    globalLogPublisher.removeObserver(observer)
    told = formatEvent(events[0])
    assert len(told.splitlines()) == (1 if deliveries == 1 else deliveries + 1)
    assert told.replace("\n", "").isprintable()
    # Nor write over one: a quoted string ends at its own quote.
    assert repr(sender) in told


@pytest.mark.parametrize("text", ["554-no\n" * 9000, "x" * 65536, "\x01" * 65536])
def test_of_a_long_reply_in_an_error_a_line_has_the_beginning(text: str, log: list[LogEvent]) -> None:
    desk = Desk()
    desk.tell(error=errors.Refused("CONNECT", 554, text))
    desk.end_turn()
    told = formatEvent(log[0])
    assert "Refused (CONNECT refused: " in told
    assert len(told) < 6000


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/run/smtpd", "unix:/run/smtpd"),
        ("/run/x from 'a': 1 Ok, 0.1 s", "\"unix:/run/x from 'a': 1 Ok, 0.1 s\""),
        ("/run/\u2028x", "'unix:/run/\\u2028x'"),
        ("/run/\u202ex", "'unix:/run/\\u202ex'"),
        ("/run/\udcff", "'unix:/run/\\udcff'"),
    ],
)
def test_a_server_that_is_more_than_a_name_stands_in_quotes(
    path: str, told: str, log: list[LogEvent]
) -> None:
    desk = Desk()
    desk.tell("250 ok", server=Server(host=f"unix:{path}", tls=TLSMode.NO))
    desk.end_turn()
    assert formatEvent(log[0]) == f"{told} from 'foo@bar.de': 1 Ok, 0.500 s"


def test_what_several_deliveries_tell_can_be_written_by_twisted_s_observers(log: list[LogEvent]) -> None:
    desk = Desk()
    desk.tell("250 ok")
    desk.tell("450 later", error=errors.ProtocolError("x"))
    desk.end_turn()
    text, json = io.StringIO(), io.StringIO()
    textFileLogObserver(text)(log[0])
    jsonFileLogObserver(json, "")(log[0])
    assert "2 deliveries\n\tmx.example:25 from 'foo@bar.de': 1 Ok" in text.getvalue()
    assert '"counts": {"TemporaryError": 1}' in json.getvalue()
    assert json.getvalue().count("\n") == 1
