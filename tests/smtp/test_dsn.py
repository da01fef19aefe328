"""
Tests of what a sender may ask for by DSN, and of its encodings.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.attempts import attempt
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp.dsn import (
    DSN,
    MAX_ENVID,
    MAX_ORCPT,
    Notify,
    Return,
    notify_parameter,
    orcpt_parameter,
    xtext,
)

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))

#: Written for these tests, from the RFCs: xtext, and RFC 6533's form.
XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
UNICODE = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]|\\x\{(?:[0-9A-F]{2,6})\})+")


def un_xtext(encoded: str) -> str:
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), encoded)


def un_embedded(encoded: str) -> str:
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), encoded)


def refusal_of(make: Any, *arguments: Any, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        make(*arguments, **more)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    return caught.value


@given(PRINTABLE)
def test_xtext_is_of_its_grammar_and_means_what_was_given(text: str) -> None:
    encoded = xtext(text)
    assert XTEXT.fullmatch(encoded)
    assert un_xtext(encoded) == text


def test_xtext_leaves_alone_what_it_may() -> None:
    assert xtext("QQ314159") == "QQ314159"
    assert xtext("a+b=c d") == "a+2Bb+3Dc+20d"


# RET and ENVID.


def test_ret_and_envid_are_parameters_of_mail() -> None:
    assert DSN().parameters == b""
    assert DSN(ret=Return.FULL).parameters == b" RET=FULL"
    assert DSN(ret=Return.HDRS, envid="a+b c").parameters == b" RET=HDRS ENVID=a+2Bb+20c"
    assert DSN(envid="QQ314159") == DSN(envid="QQ314159")


@pytest.mark.parametrize("wrong", ["FULL", 1, True, Notify.NEVER])
def test_ret_is_a_return_and_nothing_else(wrong: Any) -> None:
    assert refusal_of(DSN, ret=wrong).field == "ret"


@pytest.mark.parametrize(
    "wrong", ["", "a\r\nb", "a\nb", "\0", "a\tb", "\x7f", "ü", "\ud800", 1, b"a", "x" * 101, "=" * 34]
)
def test_an_envid_is_at_most_100_characters_of_printable_ascii(wrong: Any) -> None:
    assert refusal_of(DSN, envid=wrong).field == "envid"


def test_an_envid_is_measured_as_it_goes_over_the_wire() -> None:
    for envid in ("x" * MAX_ENVID, "+" * 33 + "x"):
        assert DSN(envid=envid).parameters == b" ENVID=" + xtext(envid).encode()
        assert len(xtext(envid)) == MAX_ENVID


@given(st.text())
def test_whatever_envid_is_given_is_one_word_or_refused(envid: str) -> None:
    dsn = attempt(DSN, envid=envid)
    if isinstance(dsn, InvalidRequest):
        assert dsn.field == "envid"
        return
    octets = dsn.parameters
    assert octets.startswith(b" ENVID=")
    assert un_xtext(octets[7:].decode("ascii")) == envid
    assert not set(b" \r\n\0=") & set(octets[7:])


# NOTIFY.


@pytest.mark.parametrize(
    ("notify", "word"),
    [
        ([Notify.NEVER], b" NOTIFY=NEVER"),
        ((Notify.SUCCESS,), b" NOTIFY=SUCCESS"),
        ([Notify.DELAY, Notify.SUCCESS, Notify.FAILURE], b" NOTIFY=DELAY,SUCCESS,FAILURE"),
        ({Notify.FAILURE}, b" NOTIFY=FAILURE"),
    ],
)
def test_notify_is_a_list_in_the_order_given(notify: Any, word: bytes) -> None:
    assert notify_parameter(notify) == word


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [Notify.NEVER, Notify.SUCCESS],
        [Notify.NEVER, Notify.NEVER],
        [Notify.SUCCESS, Notify.SUCCESS],
        Notify.NEVER,
        "NEVER",
        ["SUCCESS"],
        [None],
        1,
    ],
)
def test_any_other_notify_is_refused(wrong: Any) -> None:
    assert refusal_of(notify_parameter, wrong).field == "notify"


# ORCPT.


@pytest.mark.parametrize(
    ("orcpt", "word"),
    [
        ("a@b.de", "rfc822;a@b.de"),
        ("rfc822;a@b.de", "rfc822;a@b.de"),
        ("RFC822;a@b.de", "RFC822;a@b.de"),
        ("Postmaster", "rfc822;Postmaster"),
        ("utf-8;postmaster", "utf-8;postmaster"),
        ("a+tag=x@b.de", "rfc822;a+2Btag+3Dx@b.de"),
        ("rfc822;a+2Bb@c", "rfc822;a+2B2Bb@c"),
        ('"two words"@b.de', 'rfc822;"two+20words"@b.de'),
        ('"x400;y"@b.de', 'rfc822;"x400;y"@b.de'),
        ("rfc822;anything at all", "rfc822;anything+20at+20all"),
        ("x400;/S=alice/C=US/", "x400;/S+3Dalice/C+3DUS/"),
        ("unknown;;", "unknown;;"),
        ("jürgen@b.de", "utf-8;j\\x{FC}rgen@b.de"),
        ("utf-8;α+1@bücher.de", "utf-8;\\x{3B1}\\x{2B}1@b\\x{FC}cher.de"),
        ("UTF-8;a@b.de", "UTF-8;a@b.de"),
        ('"ü \\\\"@b.de', 'utf-8;"\\x{FC}\\x{20}\\x{5C}\\x{5C}"@b.de'),
        ("😀@b.de", "utf-8;\\x{1F600}@b.de"),
    ],
)
def test_an_orcpt_has_a_type_and_is_encoded(orcpt: str, word: str) -> None:
    assert orcpt_parameter(orcpt) == f" ORCPT={word}".encode("ascii")


def test_a_type_without_an_address_is_told_as_that() -> None:
    with pytest.raises(InvalidRequest, match=r"^orcpt: expected an address behind x400;$"):
        orcpt_parameter("x400;")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a",
        "postmasters",
        "a b@c",
        "utf-8;",
        "utf-8;a",
        "utf-8;a@b\r\nRSET",
        "rfc822;",
        "rfc822;ü@b.de",
        "rfc822;a\r\n@b",
        "x400;\0",
        ";a@b.de;",
        "-x;a@b.de@",
        "a@b.de\n",
        "ü",
        "\ud800@b.de",
        1,
        b"a@b.de",
        "a@" + "b" * 600,
    ],
)
def test_any_other_orcpt_is_refused(wrong: Any) -> None:
    assert refusal_of(orcpt_parameter, wrong).field == "orcpt"


def test_an_orcpt_is_measured_as_it_goes_over_the_wire() -> None:
    longest = "x400;" + "a" * (MAX_ORCPT - 5)
    assert len(orcpt_parameter(longest)) == len(" ORCPT=") + MAX_ORCPT
    for wrong in (longest + "a", "x400;" + "=" * 166, "ü" * 85 + "@b.de", "x400;" + "a" * 10_000_000):
        error = refusal_of(orcpt_parameter, wrong)
        assert error.field == "orcpt"
        assert "at most 500" in str(error)


@given(
    st.text()
    | st.builds("{}@b.de".format, st.text(min_size=1))
    | st.builds("{};{}".format, st.sampled_from(["rfc822", "utf-8", "x400"]), st.text())
)
def test_whatever_orcpt_is_given_is_one_word_or_refused(orcpt: str) -> None:
    octets = attempt(orcpt_parameter, orcpt)
    if isinstance(octets, InvalidRequest):
        assert octets.field == "orcpt"
        return
    kind, _, encoded = octets.removeprefix(b" ORCPT=").decode("ascii").partition(";")
    if kind == "utf-8":
        assert UNICODE.fullmatch(encoded)
        meant = un_embedded(encoded)
    else:
        assert XTEXT.fullmatch(encoded)
        meant = un_xtext(encoded)
    assert orcpt in (meant, f"{kind};{meant}")
