"""
Tests of what our own words may consist of.
"""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_smtpclient.smtp.grammar import (
    ESMTP_KEYWORD,
    ESMTP_VALUE,
    HELO_NAME,
    HOST_NAME,
    MAILBOX,
    MAX_PLAIN,
    PLAIN_MAILBOX,
)

ALL = [ESMTP_KEYWORD, ESMTP_VALUE, HELO_NAME, HOST_NAME, MAILBOX, PLAIN_MAILBOX]
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')

# What an address is made of, so that hypothesis finds some that pass.
PIECES = st.sampled_from(
    ["a", "b-c", ".", "@", '"', "\\", " ", "<", ">", "[", "]", "IPv6:", "::1", "x:", "ü"]
)
MADE_UP = st.lists(PIECES | st.characters(), max_size=12).map("".join)


@given(st.text() | MADE_UP)
def test_nothing_with_an_octet_that_ends_a_command_passes(text: str) -> None:
    for pattern, octet in itertools.product(ALL, "\r\n\0"):
        assert pattern.fullmatch(text + octet) is None
        assert pattern.fullmatch(octet + text) is None
        assert pattern.fullmatch(text[:1] + octet + text[1:]) is None


@pytest.mark.parametrize(
    "control", [*map(chr, range(32)), "\x7f", "\x80", "\x85", "\x9f", "\u2028", "\u2029"]
)
def test_no_control_character_passes_in_an_address(control: str) -> None:
    # Python's splitlines, and with it many a reader of logs, takes U+0085,
    # U+2028 and U+2029 for the end of a line.
    assert MAILBOX.fullmatch(f"a{control}b@example.org") is None
    assert MAILBOX.fullmatch(f'"a{control}b"@example.org') is None
    assert MAILBOX.fullmatch(f"a@exa{control}mple.org") is None
    assert MAILBOX.fullmatch(f"a@[tag:{control}]") is None


@given(MADE_UP)
def test_an_angle_bracket_passes_only_inside_quotes(text: str) -> None:
    for address in (text, f"{text}@example.org", f"a@{text}", f'"{text}"@b', f"a@[{text}]"):
        if MAILBOX.fullmatch(address):
            assert not set("<>") & set(QUOTED.sub("", address, count=1))


def test_an_angle_bracket_in_an_address_literal_is_refused() -> None:
    assert MAILBOX.fullmatch("a@[x-tag:b>c]") is None
    assert MAILBOX.fullmatch("a@[x-tag:b<c]") is None
    assert HELO_NAME.fullmatch("[x-tag:b>c]") is None


@given(st.from_regex(PLAIN_MAILBOX, fullmatch=True))
def test_what_is_plain_is_a_mailbox(address: str) -> None:
    if len(address) <= MAX_PLAIN:
        assert MAILBOX.fullmatch(address)


def test_the_plain_form_does_not_let_a_longer_label_in() -> None:
    longest = f"a@{'b' * 63}"
    assert len(longest) == MAX_PLAIN
    assert MAILBOX.fullmatch(longest)
    assert not MAILBOX.fullmatch(f"{longest}b")


@pytest.mark.parametrize(
    "address",
    [
        "foo@bar.de",
        "a.b+c=d/e@x",
        "a@under_score.example",
        "a@b-c.example",
        "!#$%&'*+-/=?^_`{|}~@x",
        '"a b"@x',
        '""@x',
        r'"a\"b\\c"@x',
        '"a@b<c>"@x',
        "a@[192.0.2.1]",
        "a@[IPv6:::1]",
        "a@[ipv6:2001:db8::192.0.2.1]",
        "a@[IPv6:1:2:3:4:5:6:7:8]",
        "a@[x400:c=us]",
        "ü@x",
        "a@bücher.example",
        "😀@x",
        f"a@{'b' * 63}.{'c' * 63}",
    ],
)
def test_a_mailbox_passes(address: str) -> None:
    assert MAILBOX.fullmatch(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@x",
        "a@",
        "a@@x",
        "u@v@w",
        "a,b@c",
        "john doe@x",
        "John <a@b>",
        "a@b (comment)",
        ".a@x",
        "a.@x",
        "a..b@x",
        '"a@x',
        '"a"b@x',
        '"a\\"@x',
        '"ä\\ö"@x',
        "a@.x",
        "a@x.",
        "a@x..y",
        "a@-x",
        "a@x-",
        f"a@{'b' * 64}",
        "a@[192.0.2.256]",
        "a@[192.0.2]",
        "a@[]",
        "a@[IPv6:zzzz]",
        "a@[IPv6:12345::]",
        "a@[ipv6:nonsense]",
        "a@[tag:]",
        "a@[:x]",
        "a@[tag:a b]",
        "a@[tag:a]b]",
        "a@\ud800",
        "\udfff@x",
    ],
)
def test_what_is_no_mailbox_is_refused(address: str) -> None:
    assert MAILBOX.fullmatch(address) is None


@pytest.mark.parametrize(
    "name", ["localhost", "mx.example.org", "my_host", "[192.0.2.1]", "[IPv6:::1]", "a-b"]
)
def test_a_helo_name_passes(name: str) -> None:
    assert HELO_NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["", "a b", "bücher.example", "x.", "[::1]", "192.0.2.1]", "-x", "a..b", "a\nü"]
)
def test_what_is_no_helo_name_is_refused(name: str) -> None:
    assert HELO_NAME.fullmatch(name) is None


def test_a_host_name_may_be_absolute() -> None:
    assert HOST_NAME.fullmatch("mx.example.org.")
    assert HOST_NAME.fullmatch("mx.example.org..") is None
    assert HOST_NAME.fullmatch(".") is None


@given(st.text())
def test_a_keyword_has_only_letters_digits_and_hyphens(text: str) -> None:
    allowed = bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", text, re.ASCII))
    assert bool(ESMTP_KEYWORD.fullmatch(text)) is allowed


@given(st.text(st.characters(max_codepoint=0x180), max_size=4))
def test_a_value_is_printable_ascii_without_an_equals_sign(text: str) -> None:
    allowed = bool(text) and all(33 <= ord(character) <= 126 and character != "=" for character in text)
    assert bool(ESMTP_VALUE.fullmatch(text)) is allowed


# What makes a pattern with nested repetition go back and forth without end.
# Where one did, thousands of characters would take longer than the universe
# has; a second is for a machine that is busy with something else.
CANDIDATES = [
    "a",
    "a.",
    ".a",
    "a-",
    "-",
    "a-b.",
    '"',
    '\\"',
    "\\",
    "[",
    "1.",
    ":",
    "::",
    "ü",
    "a@",
    "@",
    "ü.",
]


@settings(deadline=1000)
@given(
    st.sampled_from(["", "a@", '"', "a@[", "a@[IPv6:", "[", "a@[x:"]),
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=3).map("".join),
    st.sampled_from(["", "@", "!", "\n", "-", ".", ">", "]"]),
)
def test_no_pattern_backtracks_without_end(start: str, repeated: str, end: str) -> None:
    text = start + repeated * 1000 + end
    for pattern in ALL:
        match = pattern.fullmatch(text)
        assert match is None or match.end() == len(text)
