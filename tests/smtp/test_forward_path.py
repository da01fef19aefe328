"""
RCPT of plain addresses, by what is compiled and by what is not.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.smtp import forward_path
from twisted_smtpclient.smtp.grammar import MAX_PLAIN, PLAIN_MAILBOX

RCPT = [forward_path.plain_rcpt, forward_path.IN_PYTHON]


def told(address: str) -> bytes | None:
    """By the words of its docstring."""
    if len(address) > MAX_PLAIN or not PLAIN_MAILBOX.fullmatch(address):
        return None
    return b"RCPT TO:<" + address.encode() + b">\r\n"


def test_all_short_strings_of_what_tells_them_apart_are_told_the_same_way() -> None:
    for length in range(7):
        for letters in itertools.product("a.@-_", repeat=length):
            address = "".join(letters)
            for rcpt in RCPT:
                assert rcpt(address) == told(address), address


@pytest.mark.parametrize("rcpt", RCPT)
def test_each_character_is_what_it_is_before_the_at_sign_and_behind(rcpt: Any) -> None:
    for number in range(0x180):
        for address in (f"{chr(number)}@b", f"a{chr(number)}a@b", f"a@{chr(number)}", f"a@b{chr(number)}c"):
            assert rcpt(address) == told(address), address
    assert rcpt("a\ud800@b") is None
    assert rcpt("a@b\U0001f600") is None


@pytest.mark.parametrize("rcpt", RCPT)
def test_a_longer_one_is_left_to_others(rcpt: Any) -> None:
    for length in range(MAX_PLAIN - 4, MAX_PLAIN + 4):
        address = "a" * (length - 2) + "@b"
        assert (rcpt(address) is None) is (length > MAX_PLAIN)


@given(st.text(st.sampled_from("aZ09.@-_+!\r\n<>\0 \u20ac")))
def test_what_is_compiled_says_what_the_other_does(address: str) -> None:
    for rcpt in RCPT:
        assert rcpt(address) == told(address)
