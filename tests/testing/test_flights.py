"""How flights are counted: bursts of the client between the sink's replies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.driving import ENVELOPE, Driven

DELAY = 0.5


def test_the_greeting_costs_none() -> None:
    assert Driven().session.flights == 0


def test_with_pipelining_and_chunking_a_mail_takes_two() -> None:
    driven = Driven()
    driven.send(b"EHLO x\r\n")
    driven.send(ENVELOPE + b"BDAT 3 LAST\r\nx\r\nQUIT\r\n")
    assert driven.session.flights == 2
    assert driven.session.violations == []


def test_with_pipelining_only_a_mail_takes_three() -> None:
    driven = Driven(chunking=False)
    driven.send(b"EHLO x\r\n")
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send(b"x\r\n.\r\n")
    driven.send(b"QUIT\r\n")
    assert driven.session.flights == 3


def test_one_command_at_a_time_takes_one_each_and_quit_none() -> None:
    driven = Driven(pipelining=False)
    for line in (b"EHLO x", *ENVELOPE.splitlines(), b"DATA", b"x\r\n.", b"QUIT"):
        driven.say(line)
    assert driven.session.flights == 5
    assert driven.session.violations == []


def test_a_read_that_leaves_part_of_a_command_over_does_not_count() -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE[:40])
    assert driven.session.flights == 1
    driven.send(ENVELOPE[40:])
    assert driven.session.flights == 2


def test_a_read_that_leaves_part_of_the_content_over_does_not_count() -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"BDAT 6 LAST\r\n")
    driven.send(b"abcd")
    assert driven.session.flights == 1
    driven.send(b"\r\n")
    assert driven.session.flights == 2
    driven.send(ENVELOPE + b"DATA\r\n")
    assert driven.session.flights == 3
    driven.send(b"a\r\n")
    driven.send(b".\r\n")
    assert driven.session.flights == 4


def test_a_line_that_is_too_long_counts_when_it_ends() -> None:
    driven = Driven(max_line=40).begin()
    driven.send(b"x" * 50)
    assert driven.session.flights == 1
    driven.send(b"\r\n")
    assert driven.session.flights == 2


@pytest.mark.parametrize("settings", [{"delay": DELAY}, {"split": 1}, {"delay": DELAY, "split": 3}])
def test_all_that_comes_in_before_the_replies_went_out_is_one_burst(settings: dict[str, Any]) -> None:
    driven = Driven(**settings)
    driven.clock.pump([DELAY] + [0] * 100)
    driven.send(b"EHLO x\r\n")
    assert driven.session.flights == 1
    driven.clock.pump([DELAY] + [0] * 300)
    for line in ENVELOPE.splitlines(keepends=True):
        driven.send(line)
    driven.send(b"BDAT 5 LAST\r\nx")
    driven.send(b"yz\r\n")
    assert driven.session.flights == 2
    driven.clock.pump([DELAY] + [0] * 300)
    driven.send(b"QUIT\r\n")
    assert driven.session.flights == 2
    assert driven.session.violations == []


def test_each_batch_is_held_back_from_its_own_arrival() -> None:
    driven = Driven(delay=1.0)
    assert driven.heard() == b""
    driven.clock.advance(1.0)
    assert driven.heard() == b"220 sink.invalid ESMTP\r\n"
    driven.send(b"NOOP\r\n")
    driven.clock.advance(0.4)
    driven.send(b"RSET\r\nVRFY x\r\n")
    driven.clock.advance(0.6)
    assert driven.codes() == [250]
    driven.clock.advance(0.4)
    assert driven.codes() == [250, 252]
    assert driven.clock.getDelayedCalls() == []


def test_split_replies_leave_piece_by_piece_each_in_its_turn() -> None:
    driven = Driven(split=10)
    assert driven.heard() == b"220 sink.i"
    writes: list[bytes] = []
    driven.transport.write = writes.append  # type: ignore[method-assign]
    driven.clock.advance(0)
    assert writes == [b"nvalid ESM", b"TP\r\n"]
    # The last piece is out: what comes now comes after the greeting.
    driven.send(b"EHLO x\r\n")
    assert driven.session.violations == []


def test_replies_of_one_read_leave_in_one_write() -> None:
    driven = Driven().begin()
    writes: list[bytes] = []
    driven.transport.write = writes.append  # type: ignore[method-assign]
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nxRSET\r\n" + ENVELOPE + b"DATA\r\n")
    assert len(writes) == 1
    assert writes[0].count(b"\r\n") == 7
