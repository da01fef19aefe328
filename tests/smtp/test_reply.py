"""
Tests of the reply parser: strict, bounded, and blind to how octets are split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.smtp.feeding import feed_each_way
from twisted_smtpclient.errors import ProtocolError
from twisted_smtpclient.smtp.reply import (
    MAX_CHALLENGE,
    MAX_LINE,
    MAX_LINES,
    MAX_REPLY,
    MIN_KEPT,
    EnhancedStatusCode,
    Reply,
    ReplyParser,
)


def held(parser: ReplyParser) -> int:
    """Octets that a parser keeps between two reads."""
    return len(parser._tail) + sum(map(len, parser._lines))


def take(pieces: Iterable[bytes]) -> tuple[list[Reply], str | None, bool]:
    parser = ReplyParser()
    replies: list[Reply] = []
    for piece in pieces:
        replies += parser.feed(piece)
        # The last line may be whole and yet wait for its CRLF.
        assert held(parser) <= MAX_REPLY + MAX_CHALLENGE + 1
        assert len(parser._lines) <= MAX_LINES
        assert parser.error is None or type(parser.error) is ProtocolError
    return replies, None if parser.error is None else str(parser.error), parser.pending


def parse(octets: bytes) -> list[Reply]:
    replies, error, _ = feed_each_way(take, octets)
    assert error is None
    return replies


def refuse(octets: bytes, reason: str) -> list[Reply]:
    """Replies before the fault; ``reason`` is the start of the error's text."""
    replies, error, pending = feed_each_way(take, octets)
    assert error is not None
    assert error.startswith(reason)
    assert not pending
    return replies


def one(octets: bytes) -> Reply:
    (reply,) = parse(octets)
    return reply


# Replies that are near enough to right ones to get far, and octets at will.
CODES = st.sampled_from(
    [b"250", b"220", b"354", b"450", b"550", b"250", b"25", b"+25", b"099", b"600", b"2 0"]
)
SEPARATORS = st.sampled_from([b" ", b"-", b"", b" ", b"-", b"\t", b"X"])
TEXTS = st.sampled_from([b"", b"ok", b"2.1.0 Ok", b"\r", b"\n", b"\0", b"\xff"]) | st.binary(max_size=8)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b""])
LINES = st.tuples(CODES, SEPARATORS, TEXTS, ENDS).map(b"".join)
STREAMS = st.lists(LINES, max_size=8).map(b"".join) | st.binary(max_size=64)


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges)]


@given(STREAMS, st.lists(st.integers(min_value=0), max_size=8))
@example(b"250-a\r\n250 b\r\n220 c\r\n", [6, 7, 13])
@example(b"250 a\rb\nc\r\n", [6, 8])
@example(b"250 \r\r\n", [5])
def test_replies_and_error_are_the_same_for_any_split(octets: bytes, places: list[int]) -> None:
    assert take(cut(octets, places)) == feed_each_way(take, octets)


@pytest.mark.parametrize("excess", range(-2, 4))
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"x\n", b"x\r\n", b""])
def test_the_bound_on_a_line_is_the_same_for_any_split(excess: int, end: bytes) -> None:
    octets = b"250 ".ljust(MAX_LINE + excess, b"x") + end
    outcome = take([octets])
    for place in range(MAX_LINE - 4, len(octets) + 1):
        assert take([octets[:place], octets[place:]]) == outcome
    assert take(octets[at : at + 1] for at in range(len(octets))) == outcome


@pytest.mark.parametrize("excess", range(-2, 4))
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r\r\n", b"x\r\n", b""])
def test_the_bound_on_a_challenge_is_the_same_for_any_split(excess: int, end: bytes) -> None:
    octets = b"334 ".ljust(MAX_CHALLENGE + excess, b"x") + end
    outcome = take([octets])
    for place in (1, 3, 4, 5, MAX_LINE, *range(MAX_CHALLENGE - 4, len(octets) + 1)):
        assert take([octets[:place], octets[place:]]) == outcome


def test_a_challenge_may_be_as_long_as_rfc_4954_has_it_and_nothing_else_may() -> None:
    # Section 4: 12288 octets of base64.
    assert one(b"334 " + b"x" * 12288 + b"\r\n").lines[0][4:] == b"x" * 12288
    assert refuse(b"334 " + b"x" * 12289, "a reply line of more than 12292 octets") == []
    for other in (b"334-", b"235 ", b"334"):
        assert refuse(other.ljust(MAX_LINE + 1, b"x"), "a reply line of more than 4096 octets") == []


@given(st.lists(st.binary(max_size=40) | STREAMS, max_size=20))
def test_whatever_a_server_sends_gives_replies_or_a_protocol_error(pieces: list[bytes]) -> None:
    replies, error, _ = take(pieces)
    sent = b"".join(pieces)
    # Each reply that is given was sent just so, in this order.
    said = b"".join(line + b"\r\n" for reply in replies for line in reply.lines)
    assert sent.startswith(said)
    for reply in replies:
        assert 200 <= reply.code <= 559
        assert {line[:3] for line in reply.lines} == {b"%d" % reply.code}
        assert not any(b"\r" in line or b"\n" in line for line in reply.lines)
    assert error is None or error


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"220", b"250", b"354", b"421", b"559"]),
            st.lists(st.binary(max_size=30).map(lambda text: text.translate(None, b"\r\n")), min_size=1),
        ),
    )
)
def test_every_well_formed_reply_is_read(said: list[tuple[bytes, list[bytes]]]) -> None:
    expected = []
    for code, texts in said:
        lines = [code + b"-" + text for text in texts[:-1]] + [code + b" " + texts[-1]]
        expected.append(Reply(int(code), tuple(lines)))
    octets = b"".join(line + b"\r\n" for reply in expected for line in reply.lines)
    assert feed_each_way(take, octets) == (expected, None, False)


def test_many_replies_in_one_read_come_in_order() -> None:
    octets = b"".join(b"250 %d\r\n" % number for number in range(4000))
    assert [reply.lines[0] for reply in ReplyParser().feed(octets)] == octets.split(b"\r\n")[:-1]


def test_a_reply_of_many_lines_is_one_reply() -> None:
    reply = one(b"250-a\r\n250-\r\n250 c\r\n")
    assert reply.code == 250
    assert reply.lines == (b"250-a", b"250-", b"250 c")
    assert reply.text == "250-a\n250-\n250 c"


def test_a_reply_behind_one_of_many_lines_in_the_same_read_is_its_own() -> None:
    assert [reply.text for reply in parse(b"250-a\r\n250 b\r\n354 c\r\n")] == ["250-a\n250 b", "354 c"]


def test_a_bare_code_is_a_reply() -> None:
    # RFC 5321 4.2: a client must take it.
    assert one(b"250\r\n").text == "250"
    assert one(b"250-a\r\n250\r\n").lines == (b"250-a", b"250")


def test_a_code_that_we_do_not_know_is_a_reply_all_the_same() -> None:
    assert one(b"259 odd\r\n").code == 259


def test_a_reply_that_has_begun_is_pending() -> None:
    parser = ReplyParser()
    pieces = [b"", b"250", b"-a\r\n", b"250 b\r", b"\n"]
    assert [(len(parser.feed(piece)), parser.pending) for piece in pieces] == [
        (0, False),
        (0, True),
        (0, True),
        (0, True),
        (1, False),
    ]


@pytest.mark.parametrize("code", [b"+25", b"-25", b"+250"])
def test_a_sign_before_the_code_is_refused(code: bytes) -> None:
    assert refuse(code + b" ok\r\n", "not a reply") == []


@pytest.mark.parametrize("code", [b" 25", b"2_0", b"25", b"2", b"25\t", b"\x0b22", b"\xb2\xb5\xb0", b"0x2"])
def test_what_int_would_read_as_a_code_is_refused(code: bytes) -> None:
    assert refuse(code + b" ok\r\n", "not a reply") == []


@pytest.mark.parametrize("code", [b"000", b"012", b"099", b"100", b"199", b"260", b"299", b"600", b"999"])
def test_a_code_out_of_range_is_refused(code: bytes) -> None:
    assert refuse(code + b" ok\r\n", "not a reply") == []
    assert refuse(code + b"-ok\r\n", "not a reply") == []
    assert refuse(code + b"\r\n", "not a reply") == []


@pytest.mark.parametrize("separator", [b"X", b"\t", b"0", b"_", b"\0"])
def test_a_separator_but_space_and_hyphen_is_refused(separator: bytes) -> None:
    assert refuse(b"250" + separator + b"foo\r\n", "not a reply") == []


def test_an_empty_line_is_refused() -> None:
    assert refuse(b"\r\n", "not a reply") == []
    assert [reply.code for reply in refuse(b"250 ok\r\n\r\n250 ok\r\n", "not a reply")] == [250]


@pytest.mark.parametrize(
    "octets", [b"550-no\r\n250 yes\r\n", b"354-a\r\n250 b\r\n", b"250-a\r\n251\r\n", b"250-a\r\n220-b\r\n"]
)
def test_codes_that_differ_between_lines_are_refused(octets: bytes) -> None:
    # The last line's code would be believed by some, and refused mail
    # reported as delivered.
    assert refuse(octets, "codes differ within one reply") == []


def test_garbage_within_a_reply_of_many_lines_is_refused() -> None:
    assert refuse(b"250-a\r\ngarbage\r\n250 b\r\n", "not a reply") == []


def test_a_bare_lf_is_refused_before_a_crlf_comes() -> None:
    # No waiting for ever for a server that ends its lines with LF.
    assert refuse(b"250 ok\n", "a reply line with a bare LF: '250 ok'") == []
    assert refuse(b"220 a\r\n250 ok\n250 ok\r\n", "a reply line with a bare LF")[0].code == 220


def test_a_bare_cr_is_refused() -> None:
    assert refuse(b"250 a\r250 b\r\n", "a reply line with a bare CR") == []
    assert refuse(b"250 a\r\r\n", "a reply line with a bare CR") == []


def test_a_line_of_the_greatest_length_is_read() -> None:
    assert len(one(b"250 ".ljust(MAX_LINE, b"x") + b"\r\n").lines[0]) == MAX_LINE


def test_a_line_that_is_too_long_is_refused_whether_or_not_it_ends() -> None:
    longer = b"250 ".ljust(MAX_LINE + 1, b"x")
    assert refuse(longer, "a reply line of more than 4096 octets") == []
    assert refuse(longer + b"\r\n", "a reply line of more than 4096 octets") == []


def test_endless_continuation_lines_are_refused() -> None:
    parser = ReplyParser()
    lines = 0
    while parser.error is None:
        assert parser.feed(b"250-x\r\n") == []
        lines += 1
    assert lines == MAX_LINES + 1
    assert str(parser.error) == "a reply of more than 256 lines or 65536 octets"
    assert held(parser) == 0


def test_a_reply_with_as_many_lines_as_are_allowed_is_read() -> None:
    assert len(one(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n").lines) == MAX_LINES


def test_a_reply_of_too_many_octets_is_refused() -> None:
    line = b"250-".ljust(1022, b"x") + b"\r\n"
    assert take([line * 64]) == ([], None, True)
    assert refuse(line * 64 + b"250 \r\n", "a reply of more than") == []


def test_the_octets_of_a_reply_are_counted_anew_for_the_next() -> None:
    reply = b"250-".ljust(4094, b"x") + b"\r\n250 \r\n"
    assert len(parse(reply * 20)) == 20


def test_nothing_is_read_or_kept_after_a_fault() -> None:
    parser = ReplyParser()
    assert [reply.code for reply in parser.feed(b"250 a\r\n250-b\r\nnonsense\r\n250 c\r\n250 d")] == [250]
    error = parser.error
    assert str(error) == "not a reply: 'nonsense'"
    assert held(parser) == 0
    assert not parser.pending
    assert parser.feed(b"\r\n250 e\r\n") == []
    assert parser.error is error
    assert held(parser) == 0


def test_an_error_shows_little_of_the_octets_and_none_raw() -> None:
    parser = ReplyParser()
    parser.feed(b"\x1b[2J\xff" + b"x" * 500 + b"\r\n")
    text = str(parser.error)
    assert text.isprintable()
    assert "\\x1b[2J\\\\xff" in text
    assert text.endswith("…'")
    assert len(text) < 120


def test_a_text_that_is_not_utf8_can_be_printed() -> None:
    assert one(b"550 caf\xe9\r\n").text == "550 caf\\xe9"
    assert one("550-caf\u00e9\r\n550 b\xff\r\n".encode("latin-1")).text == "550-caf\\xe9\n550 b\\xff"
    assert one("550 café\r\n".encode()).text == "550 café"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"250 2.1.0 Ok", "2.1.0"),
        (b"550 5.7.509 no", "5.7.509"),
        (b"450-4.2.0\tlater", "4.2.0"),
        (b"250 2.0.0", "2.0.0"),
    ],
)
def test_the_enhanced_code_stands_at_the_start_of_the_text(line: bytes, code: str) -> None:
    reply = Reply(int(line[:3]), (line,))
    assert str(reply.enhanced) == reply.enhanced_text == code


def test_the_enhanced_code_is_the_one_of_the_first_line() -> None:
    reply = one(b"550-5.1.1 no\r\n550 5.7.1 no\r\n")
    assert reply.enhanced == EnhancedStatusCode(5, 1, 1)
    assert reply.enhanced._asdict() == {"klass": 5, "subject": 1, "detail": 1}


def test_an_enhanced_code_that_contradicts_the_reply_code_is_none() -> None:
    for line in (b"550 2.0.0 ok", b"250 5.7.1 no", b"354 2.0.0 go", b"550 2.10.0 ok"):
        reply = Reply(int(line[:3]), (line,))
        assert reply.enhanced is reply.enhanced_text is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b" ok",
        b" 2.1 ok",
        b" 2.1.0x",
        b" 2.1.0000 ok",
        b" x 2.1.0",
        b"  2.1.0",
        b" 2.1.0.1",
        b" 3.0.0 a",
    ],
)
def test_what_is_no_enhanced_code_is_none(text: bytes) -> None:
    reply = Reply(250, (b"250" + text,))
    assert reply.enhanced is reply.enhanced_text is None


def test_replies_are_equal_by_what_they_say() -> None:
    reply = Reply(250, (b"250 ok",))
    assert reply == Reply(250, (b"250 ok",))
    assert hash(reply) == hash(Reply(250, (b"250 ok",)))
    assert reply != Reply(250, (b"250 no",))
    assert reply != Reply(251, (b"250 ok",))
    assert reply != "250 ok"
    assert repr(reply) == "<Reply '250 ok'>"


@given(
    lines=st.lists(st.binary(max_size=MAX_LINE - 4), min_size=1, max_size=MAX_LINES),
    recipients=st.integers(2, 200_000),
)
@example(lines=[b""] * MAX_LINES, recipients=100)
@example(lines=[b"x" * (MAX_LINE - 4)], recipients=100)
def test_of_a_reply_among_many_as_much_is_kept_as_there_is_room_for(
    lines: list[bytes], recipients: int
) -> None:
    reply = Reply(250, tuple(b"250-" + line for line in lines))
    kept = reply.among(recipients)
    room = max(MIN_KEPT, MAX_REPLY // recipients)
    if reply.octets <= room:
        assert kept is reply
    else:
        *beginning, last = kept.lines
        assert last == b"250 (the rest is left out)"
        assert b"\n".join(reply.lines).startswith(b"\n".join(beginning))
        assert kept.octets <= room + 100


def test_a_reply_to_a_single_recipient_is_kept_whole() -> None:
    reply = Reply(550, tuple(b"550-" + b"x" * 250 for _ in range(MAX_LINES)))
    assert reply.among(1) is reply
