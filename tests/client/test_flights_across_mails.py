"""
Tests that many mails on a connection take as few flights, and as few writes, as the server allows.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.client.departing import leaving as leaving
from tests.client.mailing import CHUNKING, PIPELINING_ONLY, WAYS, Mailing
from tests.client.sessions import MESSAGE, terms
from twisted_smtpclient import Content, Envelope, Mode
from twisted_smtpclient.smtp.content import SMALL

#: EHLO is one.
HANDSHAKE = 1
#: Seconds from here to a server and back.
ROUND_TRIP = 0.025

CHUNKING_ONLY = {"pipelining": False}
NEITHER = {"pipelining": False, "chunking": False}


def content(way: str) -> bytes:
    """One mail's content as it stands on the wire, its command included for BDAT."""
    return b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE) if way == "BDAT" else MESSAGE + b".\r\n"


def envelope(number: int) -> bytes:
    commands = [f"MAIL FROM:<s{number}@example.org> SIZE={len(MESSAGE)}"]
    commands += [f"RCPT TO:<{name}{number}@example.net>" for name in "ab"]
    return "".join(f"{command}\r\n" for command in commands).encode()


def writes(here: Mailing, connection: int = 0) -> list[bytes]:
    """What was written behind EHLO, write by write."""
    first, *rest = here.network.ends[connection].writes
    assert first.startswith(b"EHLO")
    return rest


# CHUNKING.


@pytest.mark.parametrize("depth", [2, 10, 50])
def test_with_chunking_all_mails_up_to_the_depth_go_in_one_write(depth: int) -> None:
    here = Mailing(depth=depth)
    here.posted(depth)
    mails = [envelope(number) + content("BDAT") for number in range(1, depth + 1)]
    assert writes(here) == [b"RSET\r\n".join(mails)]
    assert here.sink.sessions[0].flights == HANDSHAKE + 1
    here.check()
    here.close()


def test_with_chunking_each_turn_is_one_write_of_as_many_as_were_answered() -> None:
    here = Mailing()
    here.posted(30)
    assert [write.count(b"MAIL") for write in writes(here)] == [10, 10, 10]
    # All ten were heard out, the last of them with a 2xx: no envelope is open.
    assert [write.count(b"RSET") for write in writes(here)] == [9, 9, 9]
    assert [write.startswith(b"MAIL") for write in writes(here)] == [True, True, True]
    assert here.sink.sessions[0].flights == HANDSHAKE + 3
    here.check()
    here.close()


def test_with_chunking_a_further_mail_is_written_as_soon_as_one_is_answered() -> None:
    # A reply of the server comes on its own, in a turn of its own.
    here = Mailing(depth=3, split=len(b"250 2.1.0 Ok\r\n") * 3)
    here.posted(20)
    assert writes(here)[0].count(b"BDAT") == 3
    assert all(write.startswith((b"RSET", b"MAIL")) for write in writes(here))
    here.check()
    here.close()


def test_with_chunking_the_mail_behind_a_refused_one_is_still_in_the_same_flight() -> None:
    here = Mailing(refuse={f"{name}2@example.net": "550 no" for name in "ab"})
    here.posted(10)
    assert here.sink.sessions[0].flights == HANDSHAKE + 1
    assert here.refused() == {2}
    assert here.ok() == {1, *range(3, 11)}
    assert here.sink.violations == []
    here.close()


# PIPELINING only.


def test_with_pipelining_only_a_content_and_the_next_envelope_are_one_write() -> None:
    here = Mailing(**PIPELINING_ONLY)
    here.posted(10)
    assert writes(here) == [
        envelope(1) + b"DATA\r\n",
        *[content("DATA") + b"RSET\r\n" + envelope(number) + b"DATA\r\n" for number in range(2, 11)],
        content("DATA"),
    ]
    assert here.sink.sessions[0].flights == HANDSHAKE + 11
    here.check()
    here.close()


def test_with_pipelining_only_nothing_stands_behind_data_in_its_group() -> None:
    here = Mailing(split=20, **PIPELINING_ONLY)
    here.posted(20)
    assert all(write.count(b"DATA\r\n") <= 1 for write in writes(here))
    assert all(b"DATA" not in write or write.endswith(b"DATA\r\n") for write in writes(here))
    # The sink objects to what stands there.
    here.check()
    here.close()


def test_with_pipelining_only_a_refused_content_leaves_the_next_mail_in_its_flight() -> None:
    here = Mailing(final_reply=lambda mail: "550 no" if mail.number == 2 else None, **PIPELINING_ONLY)
    here.posted(5)
    assert here.sink.sessions[0].flights == HANDSHAKE + 6
    assert here.refused() == {2}
    assert here.ok() == {1, 3, 4, 5}
    here.close()


# RSET.


@pytest.mark.parametrize("way", WAYS)
def test_no_rset_stands_before_a_mail_behind_one_that_is_known_to_have_ended_well(way: str) -> None:
    here = Mailing(**WAYS[way])
    for _ in range(5):
        here.posted()
    assert b"RSET" not in here.sink.commands
    here.check()
    here.close()


@pytest.mark.parametrize("what", ["sender", "recipients", "content"])
@pytest.mark.parametrize("way", WAYS)
def test_rset_stands_before_a_mail_behind_one_that_was_refused(way: str, what: str) -> None:
    changes: dict[str, Any] = {
        "sender": {"refuse_sender": {"s1@example.org": "550 no"}},
        "recipients": {"refuse": {f"{name}1@example.net": "550 no" for name in "ab"}},
        "content": {"final_reply": lambda mail: "550 no" if mail.sender.startswith("s1@") else None},
    }
    here = Mailing(**WAYS[way], **changes[what])
    here.posted()
    here.posted()
    here.posted()
    commands = here.sink.sessions[0].commands
    assert commands.count(b"RSET") == 1
    assert commands.index(b"RSET") + 1 == commands.index(b"MAIL FROM:<s2@example.org> SIZE=22")
    assert here.refused() == {1}
    assert here.ok() == {2, 3}
    here.close()


@pytest.mark.parametrize("way", WAYS)
def test_rset_stands_before_each_mail_whose_neighbor_was_not_heard_out(way: str) -> None:
    here = Mailing(**WAYS[way])
    here.posted(10)
    commands = here.sink.sessions[0].commands
    before = [commands[at - 1] for at, command in enumerate(commands) if command.startswith(b"MAIL")]
    assert before == [b"EHLO [192.0.2.7]"] + 9 * [b"RSET"]
    here.close()


# Idle before.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("size", [len(MESSAGE), 4 * SMALL])
def test_behind_idle_time_no_octet_of_a_content_goes_before_mail_is_answered(
    way: str, count: int, size: int
) -> None:
    here = Mailing(**WAYS[way])
    here.posted()
    here.network.elapse(10)
    end = here.network.ends[0]
    # From now on the server's replies stay where they are.
    end.reading = False
    before = len(end.sent)
    here.posted(count, message=b"x" * size)
    heard = bytes(end.sent[before:])
    assert heard.startswith(b"MAIL FROM:<s2@example.org>")
    # And so that the rest of the envelope needs no flight of its own.
    assert b"RCPT TO:<b2@example.net>\r\n" in heard
    assert b"BDAT" not in heard
    assert b"xxx" not in heard
    end.reading = True
    here.network.settle()
    here.check()
    assert here.ok() == set(range(1, count + 2))
    here.close()


def test_once_a_stale_connection_has_answered_mails_go_as_fast_as_ever() -> None:
    here = Mailing()
    here.posted()
    here.network.elapse(10)
    before = here.sink.sessions[0].flights
    here.posted(30)
    # The envelope of the first, its content with nine mails behind it, and twice ten.
    assert here.sink.sessions[0].flights - before == 4
    here.check()
    here.close()


def test_a_mail_given_when_another_has_its_result_is_not_behind_idle_time() -> None:
    here = Mailing()
    here.post()
    here.results[0].addCallback(lambda _: here.post())
    here.network.settle()
    assert here.sink.sessions[0].flights == HANDSHAKE + 2
    assert len(here.ok()) == 2
    here.close()


# One command at a time.


@pytest.mark.parametrize(
    ("offers", "changes", "flights"),
    [
        # MAIL RCPT RCPT BDAT
        (CHUNKING_ONLY, {}, 4),
        (CHUNKING, {"pipelining": Mode.NO}, 4),
        # MAIL RCPT RCPT DATA and the content
        (NEITHER, {}, 5),
        (PIPELINING_ONLY, {"pipelining": Mode.NO}, 5),
        (CHUNKING, {"pipelining": Mode.NO, "chunking": Mode.NO}, 5),
    ],
)
def test_without_pipelining_each_command_is_a_flight_and_no_rset_is_needed(
    offers: dict[str, Any], changes: dict[str, Any], flights: int
) -> None:
    here = Mailing(**offers)
    here.posted(10, **changes)
    assert here.sink.sessions[0].flights == HANDSHAKE + 10 * flights
    assert b"RSET" not in here.sink.commands
    for write in writes(here):
        assert len(re.findall(rb"^(?:MAIL|RCPT|DATA|BDAT|RSET)", write, re.MULTILINE)) <= 1
    here.check()
    here.close()


def test_pipelining_with_chunking_left_out_goes_as_pipelining_only() -> None:
    here = Mailing()
    here.posted(10, chunking=Mode.NO)
    assert here.sink.sessions[0].flights == HANDSHAKE + 11
    here.close()


# Far away.


@pytest.mark.parametrize(
    ("way", "depth", "least", "most"),
    [("BDAT", 10, 9, 10), ("BDAT", 50, 45, 50), ("DATA", 10, 0.9, 1)],
)
def test_many_mails_to_a_server_far_away_go_in_few_round_trips(
    way: str, depth: int, least: float, most: float
) -> None:
    mails = 200
    here = Mailing(depth=depth, delay=ROUND_TRIP, **WAYS[way])
    here.post(mails)
    here.network.elapse(mails * ROUND_TRIP * 1.2, step=ROUND_TRIP / 5)
    assert here.ok() == set(range(1, mails + 1))
    flights = here.sink.sessions[0].flights - HANDSHAKE
    assert least <= mails / flights <= most
    here.check()
    here.close()


@pytest.mark.parametrize(("way", "mails_a_round_trip"), [("BDAT", 9), ("DATA", 0.9)])
def test_flights_far_away_are_round_trips(way: str, mails_a_round_trip: float) -> None:
    # The same by the clock, which stands still but for the delay.
    mails = 200
    here = Mailing(delay=ROUND_TRIP, **WAYS[way])
    here.post()
    here.network.elapse(10, step=ROUND_TRIP)
    began = here.network.seconds()
    here.post(mails)
    while not all(outcome.came for outcome in here.outcomes):
        here.network.elapse(ROUND_TRIP, step=ROUND_TRIP)
    round_trips = (here.network.seconds() - began) / ROUND_TRIP
    # Behind idle time the first waits once more.
    assert mails / (round_trips - 1) >= mails_a_round_trip
    here.close()


def test_a_mail_with_many_recipients_takes_no_more_flights_than_one_with_two() -> None:
    here = Mailing()
    recipients = [f"r{number}@example.net" for number in range(1000)]
    mail = here.network.until(
        here.agent.deliver(terms(), Envelope("me@example.org", recipients), Content(MESSAGE))
    )
    assert mail.value.all_ok
    assert here.sink.sessions[0].flights <= HANDSHAKE + 2
    here.close()


def test_two_connections_pipeline_each_for_itself() -> None:
    here = Mailing(connections=2, delay=ROUND_TRIP)
    here.post(200)
    here.network.elapse(2, step=ROUND_TRIP / 5)
    assert here.ok() == set(range(1, 201))
    for session in here.sink.sessions:
        assert len(session.mails) >= 90
        assert session.flights <= HANDSHAKE + 12
    here.close()
