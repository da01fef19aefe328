"""
Where lines end and which begin with a dot, by what is compiled and by what is not.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.smtp import line_ends

BARE_IN_PYTHON, SURVEY_IN_PYTHON, DOTTED_IN_PYTHON = line_ends.IN_PYTHON

BARE = [line_ends.bare_line_ends, BARE_IN_PYTHON]
SURVEY = [line_ends.survey, SURVEY_IN_PYTHON]
DOTTED = [line_ends.has_dotted_line, DOTTED_IN_PYTHON]

octets = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0", b"\xff", b"x" * 70])).map(
    b"".join
)


def bare(message: bytes) -> int:
    """By the words of its docstring."""
    return len(re.findall(rb"\r(?!\n)|(?<!\r)\n", message))


def dotted(message: bytes) -> bool:
    return any(line.startswith(b".") for line in message.split(b"\n"))


@given(octets)
def test_each_line_end_that_is_not_crlf_is_counted(message: bytes) -> None:
    for count in BARE:
        assert count(message) == bare(message)
    for look in SURVEY:
        assert look(message) == (bare(message), not message.isascii())


@pytest.mark.parametrize("look", SURVEY)
@pytest.mark.parametrize("octet", [b"\r", b"\n", b"\x80", b"\xff"])
def test_one_octet_is_found_wherever_it_stands(look: Any, octet: bytes) -> None:
    for length in (*range(1, 40), 100, 600):
        for place in range(length):
            message = b"a" * place + octet + b"a" * (length - place - 1)
            assert look(message) == (bare(message), not message.isascii()), (length, place)
            broken = message[:place] + b"\r\n" + message[place:]
            assert look(broken) == (bare(broken), not broken.isascii()), (length, place)


@pytest.mark.parametrize("look", SURVEY)
@pytest.mark.parametrize("octets", [b"", b"\n" * 1000, b"\r" * 1000, b"\r\n" * 500, b"\n\r" * 500])
def test_none_is_too_many_to_be_counted(look: Any, octets: bytes) -> None:
    assert look(octets) == (bare(octets), False)


@given(octets)
def test_a_dot_at_the_start_of_any_line_is_found(message: bytes) -> None:
    for look in DOTTED:
        assert look(message) is dotted(message)


def test_all_short_messages_are_told_the_same_way() -> None:
    for length in range(7):
        for letters in itertools.product(b"\r\n.a", repeat=length):
            message = bytes(letters)
            for count in BARE:
                assert count(message) == bare(message), message
            for look in DOTTED:
                assert look(message) is dotted(message), message


@pytest.mark.parametrize("size", [262140, 262144, 262150])
def test_a_large_message_is_counted_as_a_small_one_is(size: int) -> None:
    for count in BARE:
        assert count(b"\r\n".join([b"a" * size, b"b\n", b"c\r", b""])) == 2
        assert count(b"\r\n".join([b"a" * size, b"b", b""])) == 0


@pytest.mark.parametrize("other", ["text", None, 7])
def test_what_is_no_octets_is_no_message(other: Any) -> None:
    for look in (*BARE, *DOTTED):
        with pytest.raises((TypeError, AttributeError)):
            look(other)
