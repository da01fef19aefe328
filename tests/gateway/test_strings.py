"""
How many strings a line of JSON has, by what is compiled and by what is not.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.gateway import strings

COUNTS = [strings.strings_in, strings.IN_PYTHON]

words = st.text(st.sampled_from('\\"/a\u20ac\n')) | st.just("message")
values = st.recursive(
    st.none() | st.integers() | words, lambda inner: st.lists(inner) | st.dictionaries(words, inner)
)


def strings_of(value: Any) -> int:
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(strings_of, value.values()))
    return sum(map(strings_of, value)) if isinstance(value, list) else 0


@given(values, st.booleans())
def test_each_string_counts_once_whatever_is_escaped_in_it(value: Any, ascii_only: bool) -> None:
    line = json.dumps(value, ensure_ascii=ascii_only).encode()
    for count in COUNTS:
        assert count(line) == count(bytearray(line)) == strings_of(value)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("space", [b"", b" ", b"\t \t"])
def test_a_message_is_one_string_wherever_it_stands(count: Any, space: bytes) -> None:
    message = b'"message":' + space + b'"' + b"QUJD" * 20 + b'"'
    assert count(b'{"id":1,' + message + b"}") == 3
    assert count(b"{" + message + b',"sender":"a\\\\","host":"\\"\\\\\\""}') == 6
    assert count(b'{"message":[],' + message + b"}") == 3


@given(st.lists(st.sampled_from([b'"', b"\\", b"a", b'"message"', b"\0"])).map(b"".join))
def test_a_line_that_is_no_json_has_some_number_of_them(line: bytes) -> None:
    for count in COUNTS:
        assert 0 <= count(line) <= line.count(b'"') // 2
