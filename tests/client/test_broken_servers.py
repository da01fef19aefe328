"""
Tests that what a server offers and breaks on is left out there for a while.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.client.departing import leaving as leaving
from tests.client.mailing import CHUNKING, PIPELINING_ONLY, Mailing
from tests.client.sessions import HOST
from twisted_smtpclient import ExtensionUnsupported, Mode, Timeouts, TLSMode
from twisted_smtpclient.client.quirks import REMEMBERED
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.testing import Action, Fault, Stage, make_certificates

CERTIFICATES = make_certificates(HOST)
LARGE = b"x" * (4 * SMALL)


@implementer(ILogObserver)
class Warnings(list[str]):
    """What was logged as a warning."""

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            self.append(formatEvent(event))


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    seen = Warnings()
    globalLogPublisher.addObserver(seen)
    yield seen
    globalLogPublisher.removeObserver(seen)


class LosesGroups(Protocol):
    """
    A server that throws away what it has read behind a command: the first one
    of each read is answered, those behind it are out of sequence.

    :param taken: gets each mail's sender.
    """

    OFFERS = b"250-server.example\r\n250 PIPELINING\r\n"

    def __init__(self, taken: list[str]) -> None:
        self._taken = taken
        self._buffer = b""
        self._in_data = False
        self._sender: str | None = None
        self._recipients = 0

    def connectionMade(self) -> None:
        self._say(b"220 server.example")

    def _say(self, line: bytes) -> None:
        assert self.transport is not None
        self.transport.write(line + b"\r\n")

    def dataReceived(self, data: bytes) -> None:
        if self._in_data:
            self._buffer += data
            if not self._buffer.endswith(b"\r\n.\r\n"):
                return
            self._buffer, self._in_data = b"", False
            assert self._sender is not None
            self._taken.append(self._sender)
            self._sender, self._recipients = None, 0
            self._say(b"250 taken")
            return
        first, *rest = data.splitlines()
        self._command(first)
        for _ in rest:
            self._say(b"503 bad sequence of commands")

    def _command(self, line: bytes) -> None:
        assert self.transport is not None
        verb = line[:4]
        if verb == b"EHLO":
            self.transport.write(self.OFFERS)
        elif verb == b"MAIL":
            self._sender = line.partition(b"<")[2].partition(b">")[0].decode()
            self._say(b"250 ok")
        elif verb == b"RCPT":
            self._recipients += 1
            self._say(b"250 ok")
        elif verb == b"DATA":
            self._in_data = True
            self._say(b"354 go on")
        elif verb == b"QUIT":
            self._say(b"221 bye")
            self.transport.loseConnection()
        else:
            self._say(b"250 ok")


class GroupLosers:
    """Makes them, and counts connections."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.connections = 0

    def buildProtocol(self, _: object) -> LosesGroups:
        self.connections += 1
        return LosesGroups(self.taken)


def numbers(senders: list[str]) -> list[int]:
    return sorted(int(sender[1:].partition("@")[0]) for sender in senders)


# PIPELINING.


@pytest.mark.parametrize("connections", [1, 10])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_pipelining_that_breaks_is_done_without_on_the_spot(
    count: int, connections: int, warnings: Warnings
) -> None:
    here = Mailing(connections=connections)
    server = GroupLosers()
    here.network.serve(server)
    here.posted(count)
    assert here.errors() == {}
    assert len(here.ok()) == count
    assert numbers(server.taken) == list(range(1, count + 1))
    assert len(warnings) == 1
    assert re.search(r"192\.0\.2\.1.* offers PIPELINING and breaks on it .*left out for 600 s", warnings[0])
    here.close()


def test_pipelining_that_breaks_is_left_out_for_ten_minutes_and_then_tried_again(warnings: Warnings) -> None:
    here = Mailing(connections=1, agent={"idle_timeout": 5.0})
    server = GroupLosers()
    here.network.serve(server)

    def groups() -> int:
        writes = [write for end in here.network.ends for write in end.writes]
        return sum(b"MAIL" in write and b"RCPT" in write for write in writes)

    here.posted()
    assert groups() == 1
    here.network.elapse(REMEMBERED - 10, step=5.0)
    here.posted()
    assert groups() == 1
    here.network.elapse(20, step=5.0)
    here.posted()
    # It was tried, and found as broken as before.
    assert groups() == 2
    assert len(warnings) == 2
    assert here.ok() == {1, 2, 3}
    here.close()


@pytest.mark.parametrize("connections", [1, 10])
def test_pipelining_that_breaks_fails_those_that_depend_on_it(connections: int, warnings: Warnings) -> None:
    here = Mailing(connections=connections)
    server = GroupLosers()
    here.network.serve(server)
    here.posted(30, pipelining=Mode.DEPEND)
    errors = here.errors()
    assert len(errors) == 30
    assert not here.in_doubt()
    assert server.taken == []
    assert all(isinstance(error, ExtensionUnsupported) for error in errors.values())
    here.posted(pipelining=Mode.DEPEND)
    error = here.errors()[31]
    assert isinstance(error, ExtensionUnsupported)
    assert "PIPELINING" in str(error)
    assert error.recipients == ()
    # Who only tries has his mail delivered.
    (outcome,) = here.posted()
    assert outcome.value.all_ok
    assert len(warnings) == 1
    here.close()


# CHUNKING.


@pytest.mark.parametrize("reply", [b"500 5.5.1 what\r\n", b"502 5.5.1 no such command\r\n"])
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("connections", [1, 10])
@pytest.mark.parametrize("message", [b"Subject: hi\r\n\r\nhello\r\n", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_chunking_that_breaks_is_done_without_on_the_spot(
    count: int, message: bytes, connections: int, pipelining: bool, reply: bytes, warnings: Warnings
) -> None:
    here = Mailing(
        connections=connections,
        pipelining=pipelining,
        faults=[Fault(Stage.BDAT, Action.REPLY, reply, nth=None)],
    )
    here.posted(count, message=message)
    assert here.errors() == {}
    assert here.ok() == set(range(1, count + 1))
    assert here.taken() == {f"{name}{number}@example.net": 1 for name in "ab" for number in here.ok()}
    assert {mail.via for mail in here.sink.mails} == {"DATA"}
    assert len(warnings) == 1
    assert re.search(r"192\.0\.2\.1.* offers CHUNKING and breaks on it .*left out for 600 s", warnings[0])
    here.close()


def test_chunking_that_breaks_is_left_out_for_ten_minutes_and_then_tried_again(warnings: Warnings) -> None:
    here = Mailing(
        agent={"idle_timeout": 5.0},
        faults=[Fault(Stage.BDAT, Action.REPLY, b"502 no such command\r\n", nth=None)],
    )
    here.posted()
    here.network.elapse(REMEMBERED - 10, step=5.0)
    here.posted()
    assert sum(command.startswith(b"BDAT") for command in here.sink.commands) == 1
    here.sink.faults.clear()
    here.network.elapse(20, step=5.0)
    here.posted()
    assert [mail.via for mail in here.sink.mails] == ["DATA", "DATA", "BDAT"]
    assert here.ok() == {1, 2, 3}
    assert len(warnings) == 1
    here.close()


@pytest.mark.parametrize("connections", [1, 10])
def test_chunking_that_breaks_fails_those_that_depend_on_it(connections: int, warnings: Warnings) -> None:
    here = Mailing(
        connections=connections,
        faults=[Fault(Stage.BDAT, Action.REPLY, b"502 no such command\r\n", nth=None)],
    )
    here.posted(30, chunking=Mode.DEPEND)
    errors = here.errors()
    assert len(errors) == 30
    assert all(isinstance(error, ExtensionUnsupported) for error in errors.values())
    assert not here.in_doubt()
    here.posted(chunking=Mode.DEPEND)
    assert isinstance(here.errors()[31], ExtensionUnsupported)
    (outcome,) = here.posted()
    assert outcome.value.all_ok
    assert len(warnings) == 1
    here.close()


def test_a_bdat_that_is_unknown_once_one_was_taken_is_a_verdict_and_not_a_broken_extension(
    warnings: Warnings,
) -> None:
    here = Mailing(faults=[Fault(Stage.BDAT, Action.REPLY_AND_CLOSE, b"500 what\r\n", nth=2)])
    here.posted()
    here.posted()
    assert here.ok() == {1}
    assert here.refused() == {2}
    assert warnings == []
    here.close()


def test_what_broke_is_left_out_on_the_connections_that_there_are_as_well(warnings: Warnings) -> None:
    here = Mailing(connections=2, depth=1, delay=1.0)
    here.post(2, helo="one.example")
    here.post(2, helo="two.example")
    here.network.elapse(10)
    assert len(here.sink.open_sessions) == 4
    here.sink.faults.append(Fault(Stage.BDAT, Action.REPLY, b"502 no such command\r\n", nth=None))
    # BDAT has been taken on these connections, so it is a verdict there.
    here.post(host=HOST, helo="three.example")
    here.network.elapse(10)
    assert len(warnings) == 1
    here.sink.faults.clear()
    here.post(2, helo="one.example")
    here.post(2, helo="two.example")
    here.network.elapse(10)
    assert [mail.via for mail in here.sink.mails] == ["BDAT"] * 4 + ["DATA"] * 5
    assert len(here.ok()) == 9
    here.close()


# STARTTLS.


@pytest.mark.parametrize("do", [Action.CLOSE, Action.RESET])
@pytest.mark.parametrize("connections", [1, 10])
@pytest.mark.parametrize("count", [1, 30])
def test_starttls_whose_handshake_fails_is_done_without_on_the_spot(
    count: int, connections: int, do: Action, warnings: Warnings
) -> None:
    here = Mailing(
        connections=connections,
        starttls=CERTIFICATES.server_context(),
        faults=[Fault(Stage.HANDSHAKE, do, nth=None)],
    )
    here.posted(count, tls=TLSMode.TRY)
    assert here.errors() == {}
    assert here.ok() == set(range(1, count + 1))
    assert not any(session.tls for session in here.sink.sessions)
    assert len(warnings) == 1
    assert re.search(r"192\.0\.2\.1.* offers STARTTLS and breaks on it .*left out for 600 s", warnings[0])
    here.close()


def test_starttls_whose_handshake_fails_is_left_out_for_ten_minutes_and_then_tried_again(
    warnings: Warnings,
) -> None:
    here = Mailing(
        agent={"idle_timeout": 5.0},
        starttls=CERTIFICATES.server_context(),
        faults=[Fault(Stage.HANDSHAKE, Action.CLOSE)],
    )
    here.posted(tls=TLSMode.TRY)
    here.network.elapse(REMEMBERED - 10, step=5.0)
    here.posted(tls=TLSMode.TRY)
    assert here.sink.commands.count(b"STARTTLS") == 1
    here.network.elapse(20, step=5.0)
    here.posted(tls=TLSMode.TRY)
    assert here.sink.commands.count(b"STARTTLS") == 2
    assert here.sink.sessions[-1].tls
    assert here.ok() == {1, 2, 3}
    assert len(warnings) == 1
    here.close()


@pytest.mark.parametrize(
    "fault",
    [
        # The one who waits no longer than a second is not to take TLS from all.
        Fault(Stage.HANDSHAKE, Action.STALL),
        # A server that is busy is not broken.
        Fault(Stage.STARTTLS, Action.REPLY_AND_CLOSE, b"421 4.3.2 Busy\r\n"),
    ],
)
def test_a_silent_handshake_or_a_421_costs_that_mail_its_tls_and_no_other(
    fault: Fault, warnings: Warnings
) -> None:
    here = Mailing(starttls=CERTIFICATES.server_context(), faults=[fault])
    here.posted(tls=TLSMode.TRY, timeouts=Timeouts.uniform(1.0))
    here.network.elapse(2, step=0.5)
    assert here.ok() == {1}
    assert not here.sink.sessions[-1].tls
    here.posted(tls=TLSMode.TRY)
    assert here.ok() == {1, 2}
    assert here.sink.sessions[-1].tls
    assert warnings == []
    here.close()


def test_starttls_whose_handshake_fails_fails_those_that_depend_on_it(warnings: Warnings) -> None:
    here = Mailing(
        connections=10,
        starttls=CERTIFICATES.server_context(),
        faults=[Fault(Stage.HANDSHAKE, Action.CLOSE, nth=None)],
    )
    here.posted(30, tls=TLSMode.DEPEND)
    errors = here.errors()
    assert len(errors) == 30
    assert not any(error.recipients for error in errors.values())
    assert not any(command.startswith(b"MAIL") for command in here.sink.commands)
    # What failed there for one that only tries is never done without for one that depends.
    here.posted(tls=TLSMode.TRY)
    here.posted(tls=TLSMode.DEPEND)
    assert here.ok() == {31}
    assert 32 in here.errors()
    assert len(warnings) == 1
    here.close()


# All of it.


@pytest.mark.parametrize("connections", [1, 10])
def test_a_server_on_which_everything_breaks_gets_its_mail_all_the_same(
    connections: int, warnings: Warnings
) -> None:
    here = Mailing(
        connections=connections,
        starttls=CERTIFICATES.server_context(),
        faults=[
            Fault(Stage.HANDSHAKE, Action.CLOSE, nth=None),
            Fault(Stage.BDAT, Action.REPLY, b"502 no such command\r\n", nth=None),
            # The first DATA of the first group.
            Fault(Stage.DATA, Action.REPLY, b"503 bad sequence\r\n", nth=1),
        ],
    )
    here.posted(5, tls=TLSMode.TRY)
    assert here.errors() == {}
    assert here.ok() == {1, 2, 3, 4, 5}
    assert len(warnings) == 3
    here.close()


@pytest.mark.parametrize(
    ("fault", "offers"),
    [
        (Fault(Stage.BDAT, Action.REPLY, b"502 no\r\n", nth=None), CHUNKING),
        (Fault(Stage.DATA, Action.REPLY, b"503 no\r\n", nth=1), PIPELINING_ONLY),
    ],
)
def test_what_breaks_on_one_server_is_used_on_another(fault: Fault, offers: Any, warnings: Warnings) -> None:
    here = Mailing(faults=[fault], **offers)
    other = Mailing(**offers)
    here.network.serve(other.sink, "192.0.2.3")
    other.sink.reactor = here.network
    here.posted(5)
    here.posted(5, host="192.0.2.3")
    assert here.errors() == {}
    assert len(here.ok()) == 10
    assert {mail.via for mail in other.sink.mails} == {"BDAT" if offers is CHUNKING else "DATA"}
    assert other.sink.sessions[0].flights < 10
    assert len(warnings) == 1
    here.close()


def test_neighbors_of_the_mail_on_which_it_broke_are_not_in_doubt() -> None:
    for offers, stage, reply in (
        (CHUNKING, Stage.BDAT, b"502 no\r\n"),
        (PIPELINING_ONLY, Stage.DATA, b"503 no\r\n"),
    ):
        field = "chunking" if stage is Stage.BDAT else "pipelining"
        here = Mailing(faults=[Fault(stage, Action.REPLY, reply, nth=None)], **offers)
        here.posted(10, **{field: Mode.DEPEND})
        assert all(isinstance(error, ExtensionUnsupported) for error in here.errors().values())
        assert len(here.errors()) == 10
        assert here.in_doubt() == set()
        assert here.sink.mails == []
        here.close()
