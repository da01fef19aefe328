"""
Tests of ESMTP parameters that are sent as they were given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.attempts import attempt
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp.parameters import MAX_PARAMETERS, extensions_of, parameters


def test_each_has_a_space_before_it() -> None:
    assert parameters({}) == b""
    assert parameters({"BY": "120;R", "X-1": None}) == b" BY=120;R X-1"
    assert parameters({"mt-priority": "-3"}) == b" mt-priority=-3"


@pytest.mark.parametrize("keyword", ["", "-X", "X Y", "X=Y", "X\r\n", "Ü", "X_Y", "\ud800"])
def test_what_is_no_keyword_is_refused(keyword: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^mail_parameters: not an ESMTP keyword: ") as caught:
        parameters({keyword: "1"}, "mail_parameters")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["", " ", "a b", "a=b", "a\r\nRSET", "\0", "ü", "\ud800", "\x7f"])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="not an ESMTP value: ") as caught:
        parameters({"OK": "1", "BY": value}, "mail_parameters")
    assert caught.value.field == "mail_parameters.BY"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("wrong", [{"X": 1}, {"X": b"1"}, {1: "X"}, {b"X": None}, {None: None}])
def test_what_is_no_string_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^parameters: expected a string"):
        parameters(wrong)


@pytest.mark.parametrize(
    "keyword",
    ["SIZE", "Body", "smtputf8", "AUTH", "RET", "ENVID", "NOTIFY", "oRCPT", "REQUIRETLS"],
)
def test_what_has_a_field_of_its_own_is_refused(keyword: str) -> None:
    for value in ("1", None):
        with pytest.raises(InvalidRequest, match="it has a field of its own") as caught:
            parameters({keyword: value})
        assert caught.value.field == f"parameters.{keyword}"


def test_a_keyword_is_given_once_however_it_is_spelled() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parameters({"By": "1;R", "BY": "2;R"})
    assert str(caught.value) == "parameters.BY: is given twice"


def test_all_together_have_a_bound() -> None:
    assert len(parameters({"X": "1" * (MAX_PARAMETERS - 3)})) == MAX_PARAMETERS
    assert len(parameters({"A": None, "B": "1" * (MAX_PARAMETERS - 5)})) == MAX_PARAMETERS
    too_many: list[Mapping[str, str | None]] = [
        {"X": "1" * (MAX_PARAMETERS - 2)},
        {"A": None, "B": "1" * (MAX_PARAMETERS - 4)},
        {"X" * MAX_PARAMETERS: None},
        {"X" * 10_000_000: "="},
        {"X": "ü" * 10_000_000},
    ]
    for wrong in too_many:
        with pytest.raises(InvalidRequest) as caught:
            parameters(wrong)
        assert str(caught.value) == "parameters: expected at most 2048 octets"


@given(st.dictionaries(st.text() | st.sampled_from(["BY", "X-Y"]), st.none() | st.text() | st.just("1;R")))
def test_whatever_is_given_is_words_or_refused(wanted: dict[str, str | None]) -> None:
    octets = attempt(parameters, wanted)
    if isinstance(octets, InvalidRequest):
        assert str(octets.field).startswith("parameters")
        return
    words = octets.decode("ascii").split(" ")[1:]
    assert words == [key if value is None else f"{key}={value}" for key, value in wanted.items()]
    assert not set(b"\r\n\0") & set(octets)


def test_each_asks_for_its_extension() -> None:
    given_parameters = {"by": "1;R", "HOLDFOR": "5", "HOLDUNTIL": "x", "mt-priority": "3", "X-1": None}
    assert extensions_of(given_parameters) == {
        "DELIVERBY": "parameters.by",
        "FUTURERELEASE": "parameters.HOLDFOR",
        "MT-PRIORITY": "parameters.mt-priority",
        "X-1": "parameters.X-1",
    }
    assert extensions_of({}) == {}
