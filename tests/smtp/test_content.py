"""
Tests of the content: what a server that un-stuffs it has, is what was sent.
"""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.interpreted import interpreted
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp import content as content_module
from twisted_smtpclient.smtp.content import BLOCK, SMALL, Content
from twisted_smtpclient.smtp.policy import Mode

MiB = 1024 * 1024

#: Where peers cut a content into blocks, and forget what stood before.
BOUNDARIES = [16384, 65536, BLOCK]

# All that means something to DATA, and an octet that does not.
TELLING = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0", b"\xff", b"\r\n.\r\n"])).map(
    b"".join
)
MESSAGES = TELLING | st.binary()


def crlf_form(message: bytes) -> bytes:
    """Each line end as CRLF, by other means than the code's."""
    lines = message.splitlines()
    ended = message.endswith((b"\r", b"\n"))
    return b"\r\n".join(lines) + (b"\r\n" if ended else b"")


def received(octets: bytes) -> bytes:
    """
    What a server makes of the octets behind its 354 (RFC 5321 4.5.2).

    It fails unless the first end of data is the end of the octets, and unless
    there is no CR or LF but in CRLF: a server that takes these for line ends
    too (SMTP smuggling) then reads the same message.
    """
    *lines, rest = octets.split(b"\r\n")
    assert rest == b""
    assert lines.index(b".") == len(lines) - 1
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-1])


def check(message: bytes) -> None:
    """All forms of a message, against the message."""
    content = Content(message)
    expected = crlf_form(message)
    assert content.size == len(expected)
    assert content.for_bdat() == expected
    assert b"".join(content.bdat_blocks()) == expected
    stuffed = content.for_data()
    assert b"".join(content.data_blocks()) == stuffed
    # DATA can send whole lines only (RFC 5321 4.1.1.4).
    ended = expected if expected.endswith(b"\r\n") or not expected else expected + b"\r\n"
    assert received(stuffed) == ended


@given(MESSAGES)
@example(b"")
@example(b".")
@example(b"..\r\n")
@example(b"a\r")
@example(b"\n.\r.\r\n.")
def test_a_server_receives_what_was_sent(message: bytes) -> None:
    check(message)


@interpreted
@given(MESSAGES, st.integers(min_value=1, max_value=9))
@example(b"ab\r\n.c", 3)
@example(b"abc\n.d", 4)
@example(b"ab\r\n\r\n.", 3)
def test_a_server_receives_what_was_sent_for_any_size_of_block(message: bytes, block: int) -> None:
    with mock.patch.object(content_module, "BLOCK", block):
        check(message)
        # A line end may stay whole, and each octet may become two.
        assert all(len(piece) <= 2 * (block + 1) for piece in Content(message).bdat_blocks())


def test_the_first_line_that_is_a_dot_is_stuffed() -> None:
    # Else the message ends itself, and what follows is commands.
    message = b".\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\n"
    assert Content(message).for_data().startswith(b"..\r\nMAIL")
    assert next(Content(message).data_blocks()).startswith(b"..\r\nMAIL")
    check(message)


def test_the_first_line_that_begins_with_a_dot_keeps_it() -> None:
    assert Content(b".hidden\r\n").for_data() == b"..hidden\r\n.\r\n"


def test_a_lone_dot_within_the_message_is_stuffed() -> None:
    assert Content(b"a\r\n.\r\nb\r\n").for_data() == b"a\r\n..\r\nb\r\n.\r\n"


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2])
def test_a_dot_behind_a_block_boundary_is_stuffed(
    line_end: bytes, boundary: int, times: int, shift: int
) -> None:
    at = boundary * times + shift
    message = b"x" * (at - len(line_end)) + line_end + b".\r\nMAIL FROM:<evil@x>\r\n"
    assert message[at : at + 1] == b"."
    check(message)


def test_a_message_of_nothing_but_dots_on_lines_of_their_own_is_stuffed() -> None:
    check(b".\r\n" * BLOCK)
    check(b".\n" * BLOCK)
    check(b"." * 3 * BLOCK)


def test_crlf_is_not_doubled() -> None:
    message = b"a\r\n\r\nb\r\n"
    assert Content(message).for_bdat() == message
    assert Content(message).for_data() == message + b".\r\n"


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_crlf_across_a_block_boundary_is_not_doubled(boundary: int) -> None:
    check(b"x" * (boundary - 1) + b"\r\n" + b"y" * BLOCK)
    # The same where another line end makes the message change on its way.
    check(b"\n" + b"x" * (boundary - 2) + b"\r\n" + b"y" * BLOCK)
    check(b"\n" + b"x" * (boundary - 2) + b"\r" + b"y" * BLOCK)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_is_sent_as_crlf(line_end: bytes) -> None:
    content = Content(b"a" + line_end + line_end + b".b" + line_end)
    assert content.for_bdat() == b"a\r\n\r\n.b\r\n"
    assert content.for_data() == b"a\r\n\r\n..b\r\n.\r\n"
    assert content.size == 9


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\r\n"]
)
def test_no_end_of_data_that_a_lax_server_would_see_leaves(ending: bytes) -> None:
    # SMTP smuggling (CVE-2023-51764 and its kin).
    check(b"a" + ending + b"MAIL FROM:<evil@x>\r\n")


def test_dots_are_not_stuffed_for_bdat() -> None:
    assert Content(b".\r\n.a\r\n").for_bdat() == b".\r\n.a\r\n"
    assert b"".join(Content(b".\n.a\n").bdat_blocks()) == b".\r\n.a\r\n"


def test_an_empty_message_is_its_end_alone() -> None:
    content = Content(b"")
    assert content.size == 0
    assert content.for_bdat() == b""
    assert list(content.bdat_blocks()) == []
    assert content.for_data() == b".\r\n"
    assert list(content.data_blocks()) == [b".\r\n"]


def test_a_message_without_a_final_line_end_gets_one_in_data_only() -> None:
    assert Content(b"a").for_data() == b"a\r\n.\r\n"
    assert Content(b"a").for_bdat() == b"a"
    assert Content(b"a\r").for_data() == b"a\r\n.\r\n"


def test_nul_and_octets_over_127_are_sent_as_they_are() -> None:
    message = bytes(set(range(256)) - {10, 13}) + b"\r\n"
    assert Content(message).for_data() == message + b".\r\n"
    check(message)


def test_a_long_line_is_sent_as_it_is() -> None:
    check(b"x" * MiB)


@pytest.mark.parametrize(
    "line", [b"x" * 76 + b"\r\n", b".".ljust(63) + b"\n", b"\0\xff." * 20 + b"\r."], ids=["CRLF", "LF", "CR"]
)
def test_a_message_of_20_megabytes_arrives(line: bytes) -> None:
    message = line * (20 * MiB // len(line))
    content = Content(message)
    expected = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert content.size == len(expected)
    assert b"".join(content.bdat_blocks()) == expected
    ended = expected if expected.endswith(b"\r\n") else expected + b"\r\n"
    assert received(b"".join(content.data_blocks())) == ended


def test_a_large_message_is_made_block_by_block() -> None:
    content = Content((b"x" * 70 + b"\n.") * (4 * MiB // 72))
    tracemalloc.start()
    try:
        sent = sum(map(len, content.data_blocks()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > 4 * MiB
    assert peak < 16 * BLOCK


def test_a_message_in_crlf_form_is_not_copied() -> None:
    message = b"a\r\nb\r\n"
    content = Content(message)
    assert content.message is message
    assert content.for_bdat() is message


def test_the_wire_forms_are_made_once() -> None:
    content = Content(b"a\nb\n")
    assert content.for_bdat() is content.for_bdat()
    assert content.for_data() is content.for_data()


def test_a_content_is_small_by_the_octets_that_were_given() -> None:
    assert Content(b"x" * SMALL).small
    assert not Content(b"x" * (SMALL + 1)).small
    # On the wire it may be twice that, and no more.
    assert Content(b"\n" * SMALL).small
    assert Content(b"\n" * SMALL).size == 2 * SMALL
    assert not Content(b"\n" * (SMALL + 1)).small


def test_an_octet_over_127_makes_it_eight_bit() -> None:
    assert not Content(b"a\x7f\0").eight_bit
    assert Content(b"a\x80").eight_bit


@pytest.mark.parametrize("message", ["text", bytearray(b"a"), memoryview(b"a"), None])
def test_what_is_not_bytes_is_refused_before_anything_is_sent(message: object) -> None:
    # A peer found out in the middle of DATA, and tried again five times.
    with pytest.raises(InvalidRequest) as caught:
        Content(message)  # type: ignore[arg-type]  # what is refused
    assert caught.value.field == "message"
    assert caught.value.expected == "expected bytes"


def test_its_repr_does_not_show_the_message() -> None:
    assert repr(Content(b"secret\n")) == "<Content of 8 octets>"


def test_all_short_messages_of_line_ends_and_dots_come_through() -> None:
    for length in range(7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            check(bytes(octets))


@pytest.mark.parametrize("size", [SMALL - 1, SMALL, SMALL + 1])
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\xff\r\n\n", b"\n\r"])
def test_line_ends_are_told_apart_on_both_sides_of_small(size: int, end: bytes) -> None:
    message = b"a\r\n" * (size // 3)
    check(message[: size - len(end)].rstrip(b"\r\n") + b"\x80" + end)


# What it is for the server.


def test_a_plain_content_asks_nothing_of_the_server() -> None:
    assert Content(b"a\n").plain
    assert not Content(b"\x80").plain
    assert not Content(b"a", binary=True).plain
    assert Content(b"a", eightbitmime=Mode.DEPEND).plain


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"binary": 1}, "binary"),
        ({"binary": None}, "binary"),
        ({"eightbitmime": Mode.NO}, "eightbitmime"),
        ({"eightbitmime": "TRY"}, "eightbitmime"),
    ],
)
def test_terms_of_the_wrong_type_are_refused(terms: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Content(b"a", **terms)
    assert caught.value.field == field


@given(MESSAGES)
@example(b".\n" * BLOCK)
def test_a_binary_content_is_its_octets_however_it_goes(message: bytes) -> None:
    content = Content(message, binary=True)
    assert content.size == len(message)
    assert content.for_bdat() == message
    assert b"".join(content.bdat_blocks()) == message


U = "ü".encode()


@pytest.mark.parametrize(
    ("message", "utf8"),
    [
        (b"Subject: " + U + b"\r\n\r\n", True),
        (b"Subject: " + U + b"\n\nx", True),
        (b"Subject: " + U + b"\r\rx", True),
        (b"Subject: " + U, True),
        (b"A: b\r\nSubject: " + U + b"\r\n\r\n\xff", True),
        (b"A: b\r\n\r\n" + U, False),
        (b"A: b\n\n" + U, False),
        (b"A: b\r\r" + U, False),
        (b"A: b\n\r\n" + U, False),
        (b"A: b\r\n\n" + U, False),
        (b"\r\n" + U, False),
        (b"\n" + U, False),
        (b"Subject: \xff\r\n\r\n", False),
        (b"Subject: " + U + b"\r\nX: " + U[:1] + b"\r\n\r\n", False),
        (b"Subject: " + U[:1], False),
        (b"Subject: x\r\n\r\n", False),
        (b"", False),
        (b"A" * (BLOCK - 1) + U + b"\r\n\r\n", True),
        (b"A" * (BLOCK - 1) + U + b"A" * BLOCK, True),
        (b"A" * (BLOCK - 1) + U + b"A" * BLOCK + b"\xff", False),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_header_section_is_internationalized_where_it_is_utf8_and_not_ascii(
    message: bytes, utf8: bool, binary: bool
) -> None:
    content = Content(message, binary=binary)
    assert content.has_utf8_header is utf8
    # And is still so when it is asked again, as it is for each delivery.
    assert content.has_utf8_header is utf8
