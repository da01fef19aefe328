"""
Tests of the SASL mechanisms: what the RFCs have as examples, and challenges
that no RFC has.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient import Credentials, ProtocolError
from twisted_smtpclient.smtp.sasl import (
    MAX_DETAIL,
    CramMD5,
    External,
    Login,
    Mechanism,
    OAuthBearer,
    Plain,
    XOAuth2,
    printable,
)
from twisted_smtpclient.smtp.scram import Binding, Scram

ANNA = Credentials("anna", "hunter2")
TOKEN = Credentials("anna@example.org", token="ya29.token")

MAKE: dict[str, Callable[[], Mechanism]] = {
    "PLAIN": lambda: Plain(ANNA),
    "LOGIN": lambda: Login(ANNA),
    "CRAM-MD5": lambda: CramMD5(ANNA),
    "EXTERNAL": lambda: External(Credentials.external()),
    "XOAUTH2": lambda: XOAuth2(TOKEN),
    "OAUTHBEARER": lambda: OAuthBearer(TOKEN, "mx.example", 587),
    "SCRAM-SHA-1": lambda: Scram("SCRAM-SHA-1", ANNA, None),
    "SCRAM-SHA-256": lambda: Scram("SCRAM-SHA-256", ANNA, None),
    "SCRAM-SHA-256-PLUS": lambda: Scram("SCRAM-SHA-256-PLUS", ANNA, Binding("tls-exporter", b"x" * 32)),
}

SHOW_SECRETS = {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}


@pytest.mark.parametrize("name", MAKE)
def test_each_has_its_name_and_says_whether_it_shows_the_secret(name: str) -> None:
    mechanism = MAKE[name]()
    assert mechanism.name == name
    assert mechanism.shows_secret is (name in SHOW_SECRETS)
    assert mechanism.detail == b""
    # Only SCRAM's server has something to show before it may be believed.
    assert mechanism.finished is not name.startswith("SCRAM")


# What the RFCs have.


def test_plain_is_rfc_4616s() -> None:
    # Section 4, the first example.
    assert Plain(Credentials("tim", "tanstaaftanstaaf")).start() == b"\0tim\0tanstaaftanstaaf"


def test_plain_is_utf_8_and_prepared() -> None:
    assert Plain(Credentials("\u00aa", "Gr\u00fc\u00dfe\u00a0")).start() == b"\0a\0Gr\xc3\xbc\xc3\x9fe "
    assert Plain(Credentials("x", "\U0001f600")).start() == b"\0x\0\xf0\x9f\x98\x80"


def test_cram_md5_is_rfc_2195s() -> None:
    # Section 2.
    mechanism = CramMD5(Credentials("tim", "tanstaaftanstaaf"))
    assert mechanism.start() is None
    response = mechanism.step(b"<1896.697170952@postoffice.reston.mci.net>")
    assert response == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_login_gives_the_name_and_then_the_password_whatever_it_is_asked() -> None:
    for challenges in ((b"Username:", b"Password:"), (b"User Name\0", b"Password\0"), (b"", b"")):
        mechanism = Login(ANNA)
        assert mechanism.start() is None
        assert [mechanism.step(challenge) for challenge in challenges] == [b"anna", b"hunter2"]


def test_external_is_a_name_or_nothing() -> None:
    assert External(Credentials.external()).start() == b""
    assert External(Credentials.external("fred@example.com")).start() == b"fred@example.com"


def test_oauthbearer_is_rfc_7628s() -> None:
    # Section 4.1.
    credentials = Credentials("user@example.com", token="vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
    assert OAuthBearer(credentials, "server.example.com", 143).start() == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )


def test_oauthbearer_escapes_the_name_and_leaves_out_a_host_that_is_none() -> None:
    credentials = Credentials("a=b,c", token="t")
    assert OAuthBearer(credentials, None, 25).start() == b"n,a=a=3Db=2Cc,\x01auth=Bearer t\x01\x01"


def test_xoauth2_is_googles() -> None:
    # developers.google.com/gmail/imap/xoauth2-protocol, "Initial Client Response".
    token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    assert XOAuth2(Credentials("someuser@example.com", token=token)).start() == (
        b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01"
    )


@pytest.mark.parametrize(("name", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\x01")])
def test_why_a_token_will_not_do_is_kept_and_acknowledged_once(name: str, answer: bytes) -> None:
    mechanism = MAKE[name]()
    mechanism.start()
    error = b'{"status":"invalid_token","scope":"example_scope"}'
    assert mechanism.step(error) == answer
    assert mechanism.detail == error
    # A success behind an error is none.
    assert not mechanism.finished
    with pytest.raises(ProtocolError):
        mechanism.step(error)


@pytest.mark.parametrize(
    ("said", "detail"),
    [(b"a\r\nb\x1b", r"a\r\nb\x1b"), (b"\xff", r"\xff"), (b"x" * 3000, "x" * MAX_DETAIL)],
)
def test_what_a_server_says_of_a_failure_is_fit_for_an_errors_text(said: bytes, detail: str) -> None:
    assert printable(said) == detail


# Out of turn.


@pytest.mark.parametrize(
    ("name", "challenges"),
    [
        ("PLAIN", [b"Password:"]),
        ("EXTERNAL", [b"who?"]),
        ("LOGIN", [b"Username:", b"Password:", b"Password:"]),
        ("CRAM-MD5", [b"<1@x>", b"<2@x>"]),
        # The same response each time, which whoever has heard it may use again.
        ("CRAM-MD5", [b""]),
        ("XOAUTH2", [b""]),
        ("XOAUTH2", [b"{}", b""]),
        ("OAUTHBEARER", [b""]),
        ("OAUTHBEARER", [b"{}", b"{}"]),
    ],
)
def test_a_challenge_out_of_turn_is_a_protocol_error(name: str, challenges: list[bytes]) -> None:
    mechanism = MAKE[name]()
    mechanism.start()
    for challenge in challenges[:-1]:
        mechanism.step(challenge)
    with pytest.raises(ProtocolError, match=f"^AUTH {name}: "):
        mechanism.step(challenges[-1])


ODD = st.binary(max_size=60) | st.sampled_from([b"e=x", b"r=,s=,i=", b"v="])


@given(st.sampled_from(sorted(MAKE)), st.lists(ODD, min_size=4, max_size=4))
def test_any_challenge_has_a_response_or_a_named_error_and_none_has_more_than_two(
    name: str, challenges: list[bytes]
) -> None:
    mechanism = MAKE[name]()
    mechanism.start()
    responses: list[bytes] = []
    with pytest.raises(ProtocolError, match=f"^AUTH {name}: "):
        responses.extend(mechanism.step(challenge) for challenge in challenges)
    assert len(responses) <= 2
