"""
The strings of a line of JSON, by what is compiled and by what is not.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.gateway import strings

STRINGS_IN_PYTHON, APART_IN_PYTHON = strings.IN_PYTHON

COUNTS = [strings.strings_in, STRINGS_IN_PYTHON]
APART = [strings.message_apart, APART_IN_PYTHON]

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


# The message apart

NAME = b'"message"'


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("before", [b"{", b'{"id":1,', b'{ "host" : "message.example" , '])
@pytest.mark.parametrize("space", [b"", b" ", b"\t\r\n "])
@pytest.mark.parametrize("message", [b"", b"QUJD", b"not base64", b"QUJD\\/" * 20, b"\xff\0"])
@pytest.mark.parametrize("behind", [b"}", b' , "sender":null}', b',"recipients":["a@b"]}\r'])
def test_a_message_is_taken_out_of_its_line(
    apart: Any, before: bytes, space: bytes, message: bytes, behind: bytes
) -> None:
    head, tail = before + NAME + space + b":" + space + b'"', b'"' + behind
    for line in (head + message + tail, bytearray(head + message + tail)):
        bare, found, count = apart(line)
        assert (bare, found) == (head + tail, message)
        assert count == STRINGS_IN_PYTHON(head + tail)
        assert type(bare) is type(found) is bytes


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_long_message_is_not_copied(apart: Any, kind: Any) -> None:
    for length in (strings.SHORT, strings.SHORT + 1):
        line = kind(b'{"message":"' + b"A" * length + b'"}')
        bare, message, count = apart(line)
        assert (bare, bytes(message), count) == (b'{"message":""}', b"A" * length, 2)
        assert (type(message) is bytes) is (length == strings.SHORT)


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        NAME,
        b'{"message"',
        b'{"message" ',
        b'{"message":',
        b'{"message" : ',
        b'{"message":"',
        b'{"message":"QUJD',
        b'{"message":null}',
        b'{"message","x"}',
        b'{"message"message":"QUJD"}',
        b'{"messag\\u0065":"QUJD"}',
        b'{"id":"\\"message\\":\\"QUJD\\"","message":"QUJD"}',
        b'{"id":"a\\\\","message":"QUJD"}',
        b'{"message":"QUJD","id":"\\u0041"}',
        b'{"message":"QUJD\\"","id":1}\\',
        b'{"message":"QUJD","message":"QUJD"}',
        b'{"dsn":{"message":"QUJD"},"message":"QUJD"}',
        b'{"sender":"message","message":"QUJD"}',
        b'{"message":"message"message":"a"}',
    ],
)
def test_where_it_is_not_in_plain_sight_the_line_stays_whole(apart: Any, line: bytes) -> None:
    assert apart(line) is None


@given(
    st.lists(
        st.sampled_from([b'"', b"\\", b"a", NAME, b":", b" ", b"{", b",", b"\0", b'"message":"QUJD"'])
    ).map(b"".join)
)
def test_what_is_compiled_takes_out_what_the_other_does(line: bytes) -> None:
    assert strings.message_apart(line) == APART_IN_PYTHON(line)


@given(values, words.filter(lambda message: '"' not in message))
def test_with_another_message_a_line_says_the_same_of_all_else(value: Any, message: str) -> None:
    line = json.dumps({"a": value, "message": message}).encode()
    for apart in APART:
        found = apart(line)
        if found is not None:
            assert json.loads(found[0]) == {"a": value, "message": ""}
            assert json.loads(b'"%b"' % bytes(found[1])) == message
