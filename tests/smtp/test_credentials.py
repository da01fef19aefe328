"""
Tests of who logs in, and of what nobody else may see of it.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient import Credentials, InvalidRequest
from twisted_smtpclient.smtp.credentials import (
    EXTERNAL,
    MAX_SECRET,
    MAX_USERNAME,
    PASSWORD_MECHANISMS,
    TOKEN_MECHANISMS,
    Secret,
)


def refused(*given: Any, **named: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Credentials(*given, **named)
    return caught.value


def provider() -> str:
    return "token"


# What is taken.


def test_a_password_is_good_for_the_mechanisms_of_passwords_strongest_first() -> None:
    credentials = Credentials("anna", "hunter2")
    assert credentials.username == "anna"
    assert credentials.password == Secret("hunter2")
    assert credentials.token is None
    assert credentials.token_provider is None
    assert credentials.mechanisms is None
    assert credentials.usable == PASSWORD_MECHANISMS


def test_a_token_is_good_for_the_mechanisms_of_tokens() -> None:
    credentials = Credentials("anna", token="ya29.a-b_c")
    assert credentials.token == Secret("ya29.a-b_c")
    assert credentials.password is None
    assert credentials.passwd is None
    assert credentials.usable == TOKEN_MECHANISMS
    assert credentials.has_prepared_form


def test_a_provider_stands_for_the_token_that_it_gives() -> None:
    credentials = Credentials("anna", token=provider, mechanisms=["XOAUTH2"])
    assert credentials.token is None
    assert credentials.token_provider is provider
    resolved = credentials.with_token(Secret("ya29"))
    assert resolved == Credentials("anna", token="ya29", mechanisms=["XOAUTH2"])
    assert resolved.token_provider is None


@pytest.mark.parametrize("token", [7, b"ya29", "", "ya 29", "ya29\r\n", "t\u00f6ken", "x" * (MAX_SECRET + 1)])
def test_what_a_provider_gave_is_held_to_what_a_token_is(token: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Credentials("anna", token=provider).with_token(Secret(token))
    assert caught.value.field == "auth.token"


@pytest.mark.parametrize("username", ["", "anna"])
def test_external_has_no_secret_and_perhaps_a_name(username: str) -> None:
    credentials = Credentials.external(username)
    assert credentials.username == username
    assert credentials.usable == EXTERNAL
    assert credentials.password is credentials.token is credentials.token_provider is None


@pytest.mark.parametrize("names", [["plain", "Scram-Sha-256"], ("PLAIN", "SCRAM-SHA-256", "plain")])
def test_mechanisms_are_kept_in_their_order_and_in_upper_case(names: Iterable[str]) -> None:
    credentials = Credentials("anna", "hunter2", mechanisms=names)
    assert credentials.mechanisms == credentials.usable == ("PLAIN", "SCRAM-SHA-256")


@pytest.mark.parametrize(
    ("username", "password", "authcid", "passwd"),
    [
        # RFC 4013 section 3, less its examples that are refused.
        ("I\u00adX", "I\u00adX", "IX", "IX"),
        ("user", "user", "user", "user"),
        ("USER", "USER", "USER", "USER"),
        ("\u00aa", "\u00aa", "a", "a"),
        ("\u2168", "\u2168", "IX", "IX"),
        ("x", "a\u00a0b", "x", "a b"),
    ],
)
def test_name_and_password_are_prepared(username: str, password: str, authcid: str, passwd: str) -> None:
    credentials = Credentials(username, password)
    assert credentials.has_prepared_form
    assert (credentials.authcid, credentials.passwd) == (authcid, Secret(passwd))
    assert (credentials.username, credentials.password) == (username, Secret(password))


@pytest.mark.parametrize("odd", ["\u0627\u0031", "\U0001f600", "\u00ad", "a\ue000"])
def test_what_has_no_prepared_form_stays_as_it_is(odd: str) -> None:
    for credentials in (Credentials("anna", odd), Credentials(odd, "hunter2")):
        assert not credentials.has_prepared_form
    assert Credentials("anna", odd).passwd == Secret(odd)
    assert Credentials(odd, "hunter2").authcid == odd


def test_the_longest_that_is_taken() -> None:
    name = "\u00fc" * (MAX_USERNAME // 2)
    assert Credentials(name, "x" * MAX_SECRET).username == name


# What is refused.


@pytest.mark.parametrize("odd", ["a\0b", "a\rb", "a\nb", "a\x01b", "\x7f", "\x85", "\ud800"])
def test_control_characters_are_refused_everywhere(odd: str) -> None:
    assert refused(odd, "hunter2").field == "auth.username"
    assert refused("anna", odd).field == "auth.password"
    assert refused("anna", token=odd).field == "auth.token"
    with pytest.raises(InvalidRequest, match=r"auth\.username: expected no control characters"):
        Credentials.external(odd)


@pytest.mark.parametrize("odd", [7, b"anna", ["anna"], object()])
def test_what_is_no_string_is_refused(odd: Any) -> None:
    assert str(refused(odd, "hunter2")) == "auth.username: expected a string"
    assert str(refused("anna", odd)) == "auth.password: expected a string"
    assert str(refused("anna", token=odd)) == "auth.token: expected a string"


def test_nothing_at_all_is_refused() -> None:
    assert refused("", "hunter2").field == "auth.username"
    assert refused("anna", "").field == "auth.password"
    assert refused("anna", token="").field == "auth.token"


@pytest.mark.parametrize("named", [{}, {"password": "a", "token": "b"}, {"password": "a", "token": provider}])
def test_it_is_a_password_or_a_token_and_not_both(named: dict[str, Any]) -> None:
    error = refused("anna", **named)
    assert str(error) == "auth: expected a password or a token, one of them"


def test_what_is_too_long_is_refused() -> None:
    assert refused("\u00fc" * (MAX_USERNAME // 2 + 1), "x").field == "auth.username"
    assert refused("anna", "x" * (MAX_SECRET + 1)).field == "auth.password"
    assert refused("anna", token="x" * (MAX_SECRET + 1)).field == "auth.token"


@pytest.mark.parametrize(
    "names",
    [
        [],
        "PLAIN",
        b"PLAIN",
        7,
        [7],
        ["PLAIN", None],
        ["hunter2"],
        ["PLAIN", "NTLM"],
        ["XOAUTH2"],
        ["EXTERNAL"],
    ],
)
def test_mechanisms_are_a_list_of_those_that_are_known_and_fit(names: Any) -> None:
    error = refused("anna", "hunter2", mechanisms=names)
    assert error.field == "auth.mechanisms"
    assert "SCRAM-SHA-256" in error.expected
    assert "hunter2" not in str(error)


def test_mechanisms_of_passwords_do_not_go_with_tokens() -> None:
    assert "PLAIN does not go with that" in str(refused("anna", token="t", mechanisms=["PLAIN"]))


# Keys.


def same() -> list[Callable[[], Credentials]]:
    return [
        lambda: Credentials("anna", "hunter2"),
        lambda: Credentials("anna", "hunter3"),
        lambda: Credentials("bert", "hunter2"),
        lambda: Credentials("anna", token="hunter2"),
        lambda: Credentials("anna", token=provider),
        lambda: Credentials("anna", token=lambda: "token"),
        lambda: Credentials("anna", "hunter2", mechanisms=["PLAIN"]),
        lambda: Credentials("anna", "hunter2", mechanisms=["PLAIN", "LOGIN"]),
        lambda: Credentials("anna", "hunter2", mechanisms=["LOGIN", "PLAIN"]),
        lambda: Credentials.external("anna"),
    ]


def test_what_logs_in_alike_is_one_key_and_all_else_is_another() -> None:
    for number, make in enumerate(same()):
        for other_number, make_other in enumerate(same()):
            one, other = make(), make_other()
            # A lambda is made anew each time, and is another provider.
            alike = number == other_number and number != 5
            assert (one == other) is alike
            if alike:
                assert hash(one) == hash(other)
    assert Credentials("anna", "hunter2") != ("anna", "hunter2")
    assert Secret("a") != "a"


@pytest.mark.parametrize("make", [make for number, make in enumerate(same()) if number != 5])
def test_a_copy_is_the_same_key(make: Callable[[], Credentials]) -> None:
    credentials = make()
    assert copy.copy(credentials) is copy.deepcopy(credentials) is credentials
    thawed = pickle.loads(pickle.dumps(credentials))
    assert thawed == credentials
    assert hash(thawed) == hash(credentials)
    assert thawed.usable == credentials.usable


def test_they_do_not_change() -> None:
    credentials = Credentials("anna", "hunter2")
    with pytest.raises(AttributeError):
        credentials.username = "bert"
    with pytest.raises(AttributeError):
        del credentials.username
    assert credentials.username == "anna"


# What is shown.


@given(st.text(st.characters(exclude_categories=["C"]), min_size=8, max_size=40))
def test_reprs_are_blind(secret: str) -> None:
    shown = [repr(Credentials("anna", secret)), repr(Secret(secret)), repr(Secret(secret.encode()))]
    assert shown == ["<Credentials 'anna'>", "***", "***"]


def test_a_secret_is_text_and_octets_whichever_it_was_given_as() -> None:
    for secret in (Secret("Gr\u00fc\u00dfe"), Secret("Gr\u00fc\u00dfe".encode())):
        assert secret.text == "Gr\u00fc\u00dfe"
        assert secret.octets == "Gr\u00fc\u00dfe".encode()
    assert Secret(b"\xff").text.encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.parametrize(
    "named",
    [
        {"password": "hunter2\0"},
        {"password": "hunter2", "token": "hunter2"},
        {"password": "hunter2", "mechanisms": ["NTLM"]},
        {"token": "hunter2\0"},
        {"token": "hunter2 "},
    ],
)
def test_no_frame_of_ours_has_a_refused_secret_in_the_open(named: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Credentials("anna", **named)
    frames = [entry.frame for entry in caught.traceback if str(entry.path).endswith("credentials.py")]
    ours = [frame for frame in frames if "test_credentials" not in str(frame.code.path)]
    assert ours
    assert not any("hunter2" in repr(frame.f_locals) for frame in ours)


# Token providers.


class AllEqual:
    """Providers that say of each other that they are the same."""

    def __call__(self) -> str:
        return "token"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def ask(self) -> str:
        return "token"

    def ask_another(self) -> str:
        return "token"


@dataclasses.dataclass
class Unhashable:
    """What Python makes of a dataclass."""

    account: str

    def __call__(self) -> str:
        return "token"

    def ask(self) -> str:
        return "token"


@pytest.mark.parametrize("make", [AllEqual, lambda: Unhashable("anna")], ids=["equal", "unhashable"])
def test_providers_are_compared_by_identity(make: Callable[[], Any]) -> None:
    one, other = make(), make()
    assert one == other
    assert Credentials("anna", token=one) == Credentials("anna", token=one)
    assert Credentials("anna", token=one) != Credentials("anna", token=other)
    assert len({Credentials("anna", token=each) for each in (one, one, other)}) == 2


@pytest.mark.parametrize("make", [AllEqual, lambda: Unhashable("anna")], ids=["equal", "unhashable"])
def test_bound_methods_are_compared_by_their_object_and_their_function(make: Callable[[], Any]) -> None:
    one, other = make(), make()
    assert Credentials("anna", token=one.ask) == Credentials("anna", token=one.ask)
    assert hash(Credentials("anna", token=one.ask)) == hash(Credentials("anna", token=one.ask))
    assert Credentials("anna", token=one.ask) != Credentials("anna", token=other.ask)
    two = AllEqual()
    assert Credentials("anna", token=two.ask) != Credentials("anna", token=two.ask_another)


def test_a_spent_token_is_no_part_of_who_logs_in() -> None:
    base = Credentials("anna", token=provider)
    resolved = base.with_token(Secret("ya29.b"), spent=Secret("ya29.a"))
    assert resolved == base.with_token(Secret("ya29.b"))
    assert resolved.secrets == {Secret("ya29.a"), Secret("ya29.b")}
    assert pickle.loads(pickle.dumps(resolved)).secrets == resolved.secrets
    assert Credentials("anna", "a\u00a0b").secrets == {Secret("a\u00a0b"), Secret("a b")}
    assert Credentials.external().secrets == frozenset()
    assert base.secrets == frozenset()
