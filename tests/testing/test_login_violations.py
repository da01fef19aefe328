"""What a client does wrong while it logs in, by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.driving import Driven
from tests.testing.logging_in import CLIENTS, USERS, Client, encoded, greeted, log_in


def told(driven: Driven) -> str:
    (violation,) = driven.session.violations
    return violation


def logged_in(**settings: Any) -> Driven:
    driven = greeted(**settings)
    log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("anna", USERS["anna"]))
    return driven


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        (b"AUTH", 501, "the syntax of AUTH: b''"),
        (b"AUTH PL.AIN", 501, "the syntax of AUTH: b'PL.AIN'"),
        (b"AUTH ABCDEFGHIJKLMNOPQRSTU", 501, "the syntax of AUTH"),
        (b"AUTH PLAIN", 334, None),
        (b"AUTH plain", 504, "AUTH plain, which was not offered"),
        (b"AUTH DIGEST-MD5", 504, "AUTH DIGEST-MD5, which was not offered"),
        (b"AUTH SCRAM-SHA-256-PLUS", 538, "AUTH SCRAM-SHA-256-PLUS, which was not offered"),
        (b"AUTH EXTERNAL =", 538, "AUTH EXTERNAL, which was not offered"),
        (b"AUTH PLAIN ", 501, 'an empty initial response that is not "="'),
        (b"AUTH PLAIN =", 535, "PLAIN: not authzid, NUL, authcid, NUL, passwd"),
        (b"AUTH PLAIN A", 501, "an initial response that is not base64: b'A'"),
        (b"AUTH PLAIN AA=", 501, "an initial response that is not base64"),
        (b"AUTH PLAIN AB==", 501, "an initial response that is not base64"),
        (b"AUTH PLAIN AAAA AAAA", 501, "an initial response that is not base64"),
        (b"AUTH PLAIN *", 501, "an initial response that is not base64"),
        (b"AUTH LOGIN YQ==", 501, "an initial response with LOGIN, in which the server begins"),
        (b"AUTH CRAM-MD5 =", 501, "an initial response with CRAM-MD5, in which the server begins"),
        (b"AUTH PLAIN " + encoded(b"\0" + b"x" * 400 + b"\0y"), 500, "an AUTH command of over 512 octets"),
        (b"AUTH PLAIN " + b"?" * (510 - 11), 501, "an initial response that is not base64"),
        (b"AUTH PLAIN " + b"?" * (511 - 11), 500, "an AUTH command of over 512 octets"),
    ],
)
def test_the_command(line: bytes, code: int, named: str | None) -> None:
    driven = greeted()
    assert driven.say(line) == [code]
    if named is None:
        assert driven.session.violations == []
    else:
        assert named in told(driven)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"=", "a response that is not base64: b'='"),
        (b"AAA", "a response that is not base64"),
        (b" AAAA", "a response that is not base64"),
        (b"QUIT\r", "a response that is not base64"),
    ],
)
def test_a_response_that_is_not_base64_ends_the_exchange(line: bytes, named: str) -> None:
    driven = greeted()
    driven.say(b"AUTH LOGIN")
    assert driven.say(line) == [501]
    assert named in told(driven)
    assert driven.say(b"NOOP") == [250]


def test_a_response_ends_with_crlf() -> None:
    driven = greeted()
    driven.say(b"AUTH LOGIN")
    driven.send(encoded(b"anna") + b"\n")
    assert told(driven) == "a response ended with a bare LF"


@pytest.mark.parametrize(
    ("name", "message", "named"),
    [
        ("PLAIN", b"anna\0secret", "not authzid, NUL, authcid, NUL, passwd"),
        ("PLAIN", b"\0anna\0secret\0", "not authzid, NUL, authcid, NUL, passwd"),
        ("PLAIN", b"\0\0secret", "not authzid, NUL, authcid, NUL, passwd"),
        ("PLAIN", b"\0anna\0", "not authzid, NUL, authcid, NUL, passwd"),
        ("PLAIN", b"\0anna\0\xff", "a response that is not UTF-8"),
        ("SCRAM-SHA-256", b"p=tls-unique,,n=anna,r=abc", "the channel binding flag 'p=tls-unique'"),
        ("OAUTHBEARER", b"user=anna\1auth=Bearer x\1\1", "a response that its grammar does not have"),
        ("OAUTHBEARER", b"n,a=anna,\1auth=Bearer x\1", "a response that its grammar does not have"),
        ("OAUTHBEARER", b"n,a=a=b,\1auth=Bearer x\1\1", "a response that its grammar does not have"),
        (
            "OAUTHBEARER",
            b"n,,\1auth=Bearer x\1auth=Bearer y\1\1",
            "a response that its grammar does not have",
        ),
        ("XOAUTH2", b"user=anna\1auth=Bearer \1\1", "a response that its grammar does not have"),
        ("XOAUTH2", b"user=anna\1auth=Bearer x y\1\1", "a response that its grammar does not have"),
    ],
)
def test_a_malformed_message(name: str, message: bytes, named: str) -> None:
    driven = greeted()
    assert driven.say(b"AUTH %b %b" % (name.encode(), encoded(message))) == [535]
    assert told(driven) == f"{name}: {named}"


@pytest.mark.parametrize("message", [b"anna", b"anna 0123", b" " + b"0" * 32, b"anna " + b"A" * 32])
def test_a_malformed_response_to_cram_md5(message: bytes) -> None:
    driven = greeted()
    driven.say(b"AUTH CRAM-MD5")
    assert driven.say(encoded(message)) == [535]
    assert told(driven) == "CRAM-MD5: not a name, a space, and 32 lower-case hex digits"


@pytest.mark.parametrize(("name", "dummy"), [("OAUTHBEARER", b"\\x01"), ("XOAUTH2", b"")])
def test_the_error_of_a_bearer_has_one_answer(name: str, dummy: bytes) -> None:
    driven = greeted()
    first = next(CLIENTS[name]("anna", "wrong"))
    assert first is not None
    driven.say(b"AUTH %b %b" % (name.encode(), encoded(first)))
    assert driven.say(encoded(b"sorry")) == [535]
    assert told(driven) == f"{name}: the error is answered with b'{dummy.decode()}' and nothing else"


def test_the_servers_signature_is_answered_with_nothing() -> None:
    driven = greeted()
    client = CLIENTS["SCRAM-SHA-1"]("anna", USERS["anna"])

    def talkative() -> Client:
        message = next(client)
        while True:
            message = client.send((yield message)) or b"thanks"

    assert log_in(driven.send, "SCRAM-SHA-1", talkative()).startswith(b"535 ")
    assert told(driven) == "SCRAM-SHA-1: something in answer to the server's signature"
    assert driven.session.login is None


def test_who_is_logged_in_may_not_log_in_again() -> None:
    driven = logged_in()
    assert driven.say(b"AUTH LOGIN") == [503]
    assert told(driven) == "AUTH by a client that is logged in"
    assert driven.session.login == ("anna", "PLAIN")


def test_nobody_logs_in_within_a_transaction() -> None:
    driven = greeted(require_login=False)
    driven.say(b"MAIL FROM:<>")
    assert driven.say(b"AUTH LOGIN") == [503]
    assert told(driven) == "AUTH within a transaction"
    assert driven.say(b"RCPT TO:<a@b.de>") == [250]


def test_auth_that_is_not_known_at_all() -> None:
    driven = Driven().begin()
    assert driven.say(b"AUTH PLAIN AGEAYg==") == [502]
    assert told(driven) == "AUTH, which was not offered"


def test_auth_before_ehlo_and_behind_helo() -> None:
    driven = Driven(users=USERS)
    driven.heard()
    assert driven.say(b"AUTH LOGIN") == [503]
    assert told(driven) == "AUTH, which was not offered"
    driven.say(b"HELO x")
    assert driven.say(b"AUTH LOGIN") == [334]
    assert driven.session.violations == ["AUTH, which was not offered"] * 2


def test_a_password_in_clear_where_that_is_not_offered() -> None:
    driven = greeted(mechanisms_in_clear=[])
    assert driven.say(b"AUTH PLAIN AGEAYg==") == [538]
    assert told(driven) == "AUTH, which was not offered"
    driven = greeted(mechanisms_in_clear=["CRAM-MD5"])
    assert driven.say(b"AUTH PLAIN AGEAYg==") == [538]
    assert told(driven) == "AUTH PLAIN, which was not offered"


def test_what_is_pipelined_behind_auth() -> None:
    driven = greeted()
    driven.say(b"AUTH LOGIN", encoded(b"anna"))
    assert told(driven) == "a response was sent before the reply to AUTH"
    driven = greeted()
    driven.say(b"AUTH PLAIN AGEAYg==", b"RSET")
    assert told(driven) == "RSET was sent before the reply to AUTH, which must be last of a group"
    driven = greeted()
    driven.say(b"AUTH LOGIN")
    driven.say(b"*", b"RSET")
    assert told(driven) == "RSET was sent before the reply to a response, which must be last of a group"
