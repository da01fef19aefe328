from __future__ import annotations

import sys

import msgspec
import pytest

from tests.smtp.script import Script
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.trace import LEFT_OUT, MAX_TRANSCRIPT, Trace, Transcript


def test_lines_are_told_in_their_order_and_content_by_its_size() -> None:
    transcript = Transcript()
    transcript.said(b"MAIL FROM:<>\r\nDATA\r\n")
    transcript.heard(Reply(250, (b"250-one", b"250 two \xff")))
    transcript.sent(5)
    transcript.sent(7)
    assert transcript.lines == [
        ("C", "MAIL FROM:<>"),
        ("C", "DATA"),
        ("S", "250-one"),
        ("S", "250 two \\xff"),
        ("C", "(12 octets)"),
    ]
    transcript.said(b".\r\n")
    assert transcript.lines[-1] == ("C", ".")


def test_what_does_not_fit_is_left_out_once() -> None:
    transcript, more = Transcript(), Transcript()
    for _ in range(2):
        transcript.said(b"x" * (MAX_TRANSCRIPT - 100) + b"\r\n")
    more.said(b"y\r\n")
    more.sent(1)
    transcript.extend(more)
    assert [line[:5] for _, line in transcript.lines] == ["xxxxx", "(the "]


@pytest.mark.parametrize(
    "line", [b"250", b"250 ok", b"250 " + b"x" * 4000, b"250 \xff" * 900, b'250 "\\\0', "250 €".encode()]
)
def test_as_json_it_has_no_more_octets_than_it_may(line: bytes) -> None:
    transcript = Transcript()
    for _ in range(MAX_TRANSCRIPT):
        transcript.heard(Reply(250, (line,)))
    told = transcript.lines
    assert len(msgspec.json.encode(told)) <= MAX_TRANSCRIPT
    assert told[0] == ("S", line.decode("utf-8", "backslashreplace"))
    assert told[-1] == ("S", LEFT_OUT.decode())
    assert len(told) > 10 or len(line) > 500
    # What is held is no more either, in however many lines.
    assert sys.getsizeof(transcript._kept) <= MAX_TRANSCRIPT * 9 / 8


def test_one_is_added_to_another() -> None:
    one, other = Transcript(), Transcript()
    one.sent(3)
    other.said(b"QUIT\r\n")
    other.sent(4)
    one.extend(other)
    assert one.lines == [("C", "(3 octets)"), ("C", "QUIT"), ("C", "(4 octets)")]


def test_a_trace_has_a_transcript_where_it_was_asked_for() -> None:
    assert Trace().transcript is None
    assert Trace(transcript=True).transcript is not None
    assert repr(Trace()) == "<Trace 0.000 s, 0 flights>"


def test_a_witness_sees_a_lone_dot() -> None:
    script = Script("PIPELINING")
    mail = script.mail()
    seen = mail.witness = Transcript()
    script.flight()
    script.say(250, 550, 354)
    assert script.flight() == b".\r\n"
    assert seen.lines[-1] == ("C", ".")


def test_a_witness_sees_a_reset_on_its_own() -> None:
    script = Script("")
    script.mail()
    mail = script.mail()
    seen = mail.witness = Transcript()
    script.flight()
    assert script.exchange(550) == [b"RSET\r\n"]
    assert seen.lines == [("C", "RSET")]
