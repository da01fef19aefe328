"""
What is base64 to a gateway, and what is not.
"""

from __future__ import annotations

import base64
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.gateway.base64 import decode_base64, loose_message_in, message_in, octets_of


def strict(value: bytes) -> bytes | None:
    """RFC 4648 section 4, as another implementation has it."""
    try:
        return msgspec.json.decode(value, type=bytes)
    except msgspec.MsgspecError:
        return None


def found(look: Any, value: bytes) -> bytes | None:
    try:
        octets = look(msgspec.Raw(value))
    except (msgspec.MsgspecError, InvalidRequest):
        return None
    assert type(octets) is bytes
    return octets


@given(st.binary())
def test_what_was_encoded_is_decoded(message: bytes) -> None:
    value = b'"' + base64.b64encode(message) + b'"'
    assert found(message_in, value) == found(loose_message_in, value) == message
    assert octets_of(value[1:-1]) == octets_of(memoryview(value)[1:-1]) == message


@given(st.lists(st.sampled_from([bytes([octet]) for octet in b"AQRw+/=-_ \n\\\x00"])).map(b"".join))
def test_nothing_is_taken_that_is_not_base64(text: bytes) -> None:
    value = b'"' + text + b'"'
    assert found(message_in, value) == strict(value)
    # What JSON escapes is not looked through.
    assert octets_of(text) == (None if b"\\" in text else strict(value))


def test_all_short_strings_are_judged_as_another_implementation_does() -> None:
    for length in range(6):
        for letters in itertools.product(b"AR+/=- ", repeat=length):
            value = b'"' + bytes(letters) + b'"'
            assert found(message_in, value) == octets_of(bytes(letters)) == strict(value), value


@pytest.mark.parametrize("value", [b"5", b"55", b"null", b"true", b"[]", b"{}", b'["QQ=="]', b'{"a":""}'])
def test_what_is_no_string_is_no_message(value: bytes) -> None:
    assert found(message_in, value) is None
    assert found(loose_message_in, value) is None


def test_a_slash_may_be_escaped_as_php_does() -> None:
    assert found(message_in, rb'"\/\/\/\/"') == b"\xff\xff\xff"
    assert found(message_in, b'"\\u0051QUI"') == b"A\x05\x08"


def test_white_space_is_ignored_where_it_may_be() -> None:
    value = b'"QUJD\\r\\n RA \\t=="'
    assert found(message_in, value) is None
    assert found(loose_message_in, value) == b"ABC" + b"D"


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QQ===", "Q", "QQ==QQ==", "-_-_", "é", "QQ\0="])
def test_a_fault_names_the_message(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_base64(text)
    assert caught.value.field == "message"
    assert found(loose_message_in, msgspec.json.encode(text)) is None
