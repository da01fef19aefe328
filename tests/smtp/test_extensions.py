"""
Tests of what is read out of an EHLO reply.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.grammar import ESMTP_KEYWORD
from twisted_smtpclient.smtp.reply import MAX_LINE, MAX_REPLY, Reply


def ehlo(*lines: str) -> Extensions:
    """The extensions of an EHLO reply with ``lines`` behind the first."""
    return Extensions.parse(
        Reply(250, (b"250-mx.example.org hello", *(f"250-{line}".encode() for line in lines)))
    )


def test_keywords_have_their_parameters() -> None:
    extensions = ehlo("PIPELINING", "SIZE 10240000", "AUTH PLAIN LOGIN", "8BITMIME")
    assert dict(extensions) == {
        "PIPELINING": (),
        "SIZE": ("10240000",),
        "AUTH": ("PLAIN", "LOGIN"),
        "8BITMIME": (),
    }
    assert len(extensions) == 4
    assert "SIZE" in extensions
    assert "STARTTLS" not in extensions
    assert repr(extensions) == "<Extensions PIPELINING SIZE AUTH 8BITMIME>"


@pytest.mark.parametrize("line", ["starttls", "StartTLS", "STARTTLS"])
def test_keywords_are_compared_without_regard_to_case(line: str) -> None:
    # Who did not would silently go on in clear.
    assert "STARTTLS" in ehlo(line)


def test_the_first_line_is_never_a_keyword() -> None:
    reply = Reply(250, (b"250-AUTH PLAIN", b"250 SIZE"))
    assert dict(Extensions.parse(reply)) == {"SIZE": ()}
    assert dict(Extensions.parse(Reply(250, (b"250 STARTTLS",)))) == {}


@pytest.mark.parametrize("last", [b"250 ", b"250", b"250-", b"250  \t "])
def test_an_empty_line_is_passed_over(last: bytes) -> None:
    assert dict(Extensions.parse(Reply(250, (b"250-mx", b"250-", b"250-SIZE", last)))) == {"SIZE": ()}


@pytest.mark.parametrize("line", ["-X", "X_Y", "SIZE=10", "ÄUTH PLAIN", "*", "=", "X\x00Y"])
def test_a_line_that_is_no_keyword_is_passed_over(line: str) -> None:
    assert dict(ehlo(line, "DSN")) == {"DSN": ()}


def test_a_keyword_may_have_parameters_behind_it() -> None:
    assert ehlo("PIPELINING now and then").pipelining


@pytest.mark.parametrize("lines", [["AUTH=LOGIN PLAIN"], ["auth login plain"], ["AUTH LOGIN", "Auth=PLAIN"]])
def test_mechanisms_are_merged_from_all_spellings(lines: list[str]) -> None:
    assert tuple(mechanism.upper() for mechanism in ehlo(*lines)["AUTH"]) == ("LOGIN", "PLAIN")


def test_a_parameter_is_kept_once() -> None:
    assert ehlo("AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN CRAM-MD5", "AUTH X X")["AUTH"] == (
        "LOGIN",
        "PLAIN",
        "CRAM-MD5",
        "X",
    )


def test_an_equals_sign_with_nothing_behind_it_names_no_mechanism() -> None:
    assert ehlo("AUTH=")["AUTH"] == ()
    assert ehlo("AUTH= LOGIN")["AUTH"] == ("LOGIN",)


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ([], None),
        (["SIZE"], None),
        (["SIZE 0"], None),
        (["SIZE 10240000"], 10240000),
        (["size 1"], 1),
        (["SIZE 00000000000010240000"], 10240000),
        (["SIZE 99999999999999999999"], 99999999999999999999),
        (["SIZE 999999999999999999999"], None),
        (["SIZE -1"], None),
        (["SIZE +1"], None),
        (["SIZE 1_0"], None),
        (["SIZE 1e6"], None),
        (["SIZE ten"], None),
        (["SIZE \u0661"], None),
        (["SIZE 10 20"], 10),
        (["SIZE 10", "SIZE 20"], 10),
    ],
)
def test_the_size_limit_is_a_number_or_none(lines: list[str], limit: int | None) -> None:
    assert ehlo(*lines).size_limit == limit


def test_pipelining_and_chunking_are_at_hand() -> None:
    assert ehlo("pipelining").pipelining
    assert not ehlo("pipelining").chunking
    assert ehlo("CHUNKING").chunking
    assert not Extensions().pipelining
    assert not Extensions().chunking


def test_extensions_can_be_left_out() -> None:
    extensions = ehlo("PIPELINING", "CHUNKING", "SIZE 5")
    less = extensions.without("CHUNKING", "DSN")
    assert dict(less) == {"PIPELINING": (), "SIZE": ("5",)}
    assert not less.chunking
    assert less.pipelining
    assert extensions.chunking


def test_extensions_are_equal_by_what_they_hold() -> None:
    assert ehlo("SIZE 5", "DSN") == ehlo("dsn", "size 5")
    assert ehlo("SIZE 5") != ehlo("SIZE 6")


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"250-AUTH=A B", b"250 SIZE x"]), min_size=1))
def test_any_reply_gives_extensions(lines: list[bytes]) -> None:
    extensions = Extensions.parse(Reply(250, tuple(lines)))
    for keyword, parameters in extensions.items():
        assert ESMTP_KEYWORD.fullmatch(keyword)
        assert keyword == keyword.upper()
        assert len(set(parameters)) == len(parameters)
        assert all(parameter.isascii() and parameter for parameter in parameters)
    assert extensions.size_limit is None or extensions.size_limit > 0


def test_a_reply_full_of_parameters_takes_time_linear_in_its_length() -> None:
    words = [b"%05x" % number for number in range(MAX_REPLY // 6 - 200)]
    per_line = (MAX_LINE - 10) // 6
    lines = [b"250-X " + b" ".join(words[at : at + per_line]) for at in range(0, len(words), per_line)]
    reply = Reply(250, (b"250-mx", *lines))
    began = time.process_time()
    assert len(Extensions.parse(reply)["X"]) == len(words)
    # Some 3 ms; to look through all that are known for each took 1.5 s.
    assert time.process_time() - began < 0.5
