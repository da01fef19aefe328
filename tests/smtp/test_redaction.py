"""
Tests of secrets that a server repeats.
"""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.script import reply
from twisted_smtpclient import ProtocolError, Reply
from twisted_smtpclient.smtp.credentials import Secret
from twisted_smtpclient.smtp.redaction import Redaction

HUNTER = Redaction([Secret("hunter2")])


def hidden(text: str, *secrets: str) -> str:
    return Redaction(Secret(secret) for secret in secrets or ("hunter2",)).hide(text)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such command: hunter2", "no such command: ***"),
        ("hunter2hunter2, hunter2!", "******, ***!"),
        ("xhunter2x", "x***x"),
        ("nothing of it", "nothing of it"),
        ("", ""),
        (b64encode(b"hunter2").decode(), "***"),
        (f"what is {b64encode(b'hunter2').decode()}?", "what is ***?"),
        (f"what is {b64encode(chr(0).encode() + b'anna' + bytes(1) + b'hunter2').decode()}?", "what is ***?"),
    ],
)
def test_stars_stand_in_its_place(said: str, shown: str) -> None:
    assert HUNTER.hide(said) == shown


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_it_is_found_in_whatever_base64_it_is_within(before: bytes, behind: bytes) -> None:
    encoded = b64encode(before + b"hunter2" + behind).decode()
    assert HUNTER.hide(f"535 {encoded} {encoded}") == "535 *** ***"


@given(st.text(st.characters(exclude_categories=["C"]), min_size=4, max_size=30), st.text(max_size=30))
def test_whatever_it_is_none_of_it_is_left(secret: str, around: str) -> None:
    shown = hidden(f"{around}{secret}{around}".encode("utf-8", "replace").decode(), secret)
    assert secret not in shown.replace("***", "\n") or secret in "***"


def test_a_short_one_is_hidden_where_it_stands_alone() -> None:
    """Within words its gaps would tell it."""
    assert hidden("a queue as a cat ate", "a") == "*** queue as *** cat ate"
    assert hidden("pw, pwd, (pw)", "pw") == "***, pwd, (***)"


def test_characters_beyond_ascii_and_of_regular_expressions_are_as_good() -> None:
    assert hidden("say Gr\u00fc\u00dfe.*[a", "Gr\u00fc\u00dfe.*[a") == "say ***"


def test_what_is_not_utf_8_stays_readable() -> None:
    assert HUNTER.hide(b"\xffhunter2".decode("utf-8", "surrogateescape")) == "\\xff***"


def test_a_reply_keeps_its_code_and_its_lines() -> None:
    replies = [Reply(535, (b"535-5.7.8 hunter2", b"535 of 535")), reply(250, "fine")]
    cleaned = HUNTER.clean(replies)
    assert cleaned[0] == Reply(535, (b"535-5.7.8 ***", b"535 of 535"))
    assert cleaned[1] is replies[1]
    # Not even where the code is the secret.
    assert Redaction([Secret("535 ")]).clean([reply(535, "text")]) == [reply(535, "text")]


def test_octets_that_an_error_quotes_are_left_out_for_they_may_be_cut() -> None:
    blunt = HUNTER.blunt(ProtocolError("not a reply: 'hunt'"))
    assert type(blunt) is ProtocolError
    assert str(blunt) == "not a reply"


def test_it_shows_nothing_itself() -> None:
    assert repr(HUNTER) == "<Redaction>"
