from __future__ import annotations

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
        transcript.said(b"x" * (MAX_TRANSCRIPT - len(LEFT_OUT)) + b"\r\n")
    more.said(b"y\r\n")
    more.sent(1)
    transcript.extend(more)
    told = transcript.lines
    assert [line[:5] for _, line in told] == ["xxxxx", "(the "]
    assert sum(len(line) for _, line in told) == MAX_TRANSCRIPT


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
