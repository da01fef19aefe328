"""Logging in to the sink: each mechanism, right and wrong, and what RFC 4954 says around it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.testing.driving import ENVELOPE, Driven
from tests.testing.logging_in import (
    CLIENTS,
    TOKENS,
    USERS,
    Client,
    challenge_in,
    encoded,
    greeted,
    log_in,
    scram,
    secret_of,
)
from twisted_smtpclient.testing import Sink

each_mechanism = pytest.mark.parametrize("name", CLIENTS)


@each_mechanism
@pytest.mark.parametrize("initial", [True, False])
def test_the_right_secret_logs_in(name: str, initial: bool) -> None:
    driven = greeted()
    reply = log_in(driven.send, name, CLIENTS[name]("anna", secret_of(name)), initial=initial)
    assert reply == b"235 2.7.0 Authentication successful\r\n"
    assert driven.session.login == ("anna", name)
    assert driven.session.violations == []
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    assert driven.mail.login == ("anna", name)
    (attempt,) = driven.session.attempts
    assert (attempt.mechanism, attempt.cancelled, attempt.reply[:3]) == (name, False, "235")


@each_mechanism
@pytest.mark.parametrize(("user", "secret"), [("anna", "wrong"), ("nobody", "other"), ("olga", "wrong")])
def test_a_wrong_secret_or_name_does_not(name: str, user: str, secret: str) -> None:
    driven = greeted()
    reply = log_in(driven.send, name, CLIENTS[name](user, secret))
    assert reply == b"535 5.7.8 Authentication credentials invalid\r\n"
    assert driven.session.login is None
    assert driven.session.violations == []
    assert driven.say(b"MAIL FROM:<>") == [530]


@each_mechanism
def test_one_may_try_again(name: str) -> None:
    driven = greeted()
    for secret in ("wrong", "wrong", secret_of(name)):
        log_in(driven.send, name, CLIENTS[name]("anna", secret))
    assert driven.session.login == ("anna", name)
    assert [attempt.reply[:3] for attempt in driven.session.attempts] == ["535", "535", "235"]


def test_it_works_by_lmtp_too() -> None:
    driven = Driven(lmtp=True, users=USERS).begin(b"LHLO x")
    assert log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("anna", USERS["anna"])).startswith(b"235 ")


def test_the_password_is_compared_as_prepared() -> None:
    # U+00AA is "a" in RFC 4013's normal form, and a soft hyphen is nothing.
    driven = greeted(users={"anna": "\u00aa\u00adb"})
    assert log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("anna", "ab")).startswith(b"235 ")
    driven = greeted(users={"anna": "ab"})
    assert log_in(driven.send, "SCRAM-SHA-256", scram("SCRAM-SHA-256")("anna", "\u00aab")).startswith(b"235 ")
    driven = greeted(users={"anna": "ab"})
    assert log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("anna", "a\u0007b")).startswith(b"535 ")


def test_a_password_without_a_prepared_form_is_compared_as_it_is_and_is_none_for_scram() -> None:
    users = {"anna": "\U0001fae0"}
    for name in ("PLAIN", "LOGIN", "CRAM-MD5"):
        driven = greeted(users=users)
        assert log_in(driven.send, name, CLIENTS[name]("anna", users["anna"])).startswith(b"235 ")
        driven = greeted(users=users)
        assert log_in(driven.send, name, CLIENTS[name]("anna", "\U0001fae1")).startswith(b"535 ")
    assert greeted(users=users).say(b"AUTH SCRAM-SHA-256 " + encoded(b"n,,n=anna,r=abc")) == [535]


def test_plain_may_name_itself_twice_but_nobody_else() -> None:
    driven = greeted()

    def as_whom(authzid: str) -> Client:
        yield f"{authzid}\0olga\0other".encode()

    assert log_in(driven.send, "PLAIN", as_whom("anna")).startswith(b"535 ")
    assert log_in(driven.send, "PLAIN", as_whom("olga")).startswith(b"235 ")


def test_a_bearer_may_leave_its_name_to_the_token() -> None:
    driven = greeted()

    def nameless(token: str) -> Client:
        yield f"n,,\1auth=Bearer {token}\1\1".encode()
        yield b"\1"

    assert log_in(driven.send, "OAUTHBEARER", nameless("unknown")).startswith(b"535 ")
    assert log_in(driven.send, "OAUTHBEARER", nameless(TOKENS["anna"])).startswith(b"235 ")
    assert driven.session.login == ("anna", "OAUTHBEARER")


def test_a_name_with_commas_is_escaped_in_oauthbearer_alone() -> None:
    tokens = {"a,b=c": "t"}
    driven = greeted(tokens=tokens)
    assert log_in(driven.send, "OAUTHBEARER", CLIENTS["OAUTHBEARER"]("a=2Cb=3Dc", "t")).startswith(b"235 ")
    driven = greeted(tokens=tokens)
    assert log_in(driven.send, "XOAUTH2", CLIENTS["XOAUTH2"]("a,b=c", "t")).startswith(b"235 ")


@pytest.mark.parametrize("name", ["OAUTHBEARER", "XOAUTH2"])
def test_what_is_wrong_with_a_token_is_told_as_json(name: str) -> None:
    driven = greeted()
    client = CLIENTS[name]("anna", "wrong")
    first = next(client)
    assert first is not None
    told = challenge_in(driven.send(b"AUTH %b %b\r\n" % (name.encode(), encoded(first))))
    assert told.startswith(b'{"status":"')
    last = client.send(told)
    assert last is not None
    assert driven.send(encoded(last) + b"\r\n").startswith(b"535 ")
    assert driven.session.violations == []


# What is offered.


def offered(driven: Driven) -> list[str]:
    driven.heard()
    lines = driven.send(b"EHLO x\r\n").decode().splitlines()
    return [word for line in lines if line[4:].startswith("AUTH ") for word in line[9:].split()]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, []),
        ({"users": USERS}, ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]),
        ({"tokens": TOKENS}, ["OAUTHBEARER", "XOAUTH2"]),
        ({"users": USERS, "mechanisms": ["LOGIN", "PLAIN"]}, ["LOGIN", "PLAIN"]),
        ({"users": USERS, "mechanisms_in_clear": ["CRAM-MD5"]}, ["CRAM-MD5"]),
        ({"users": USERS, "mechanisms_in_clear": []}, []),
        ({"users": USERS, "mechanisms": ["PLAIN"], "mechanisms_in_clear": ["LOGIN"]}, ["LOGIN"]),
        ({"mechanisms": ["EXTERNAL", "SCRAM-SHA-1-PLUS"]}, []),
    ],
)
def test_what_there_is_something_for_is_offered(settings: dict[str, Any], names: list[str]) -> None:
    assert offered(Driven(**settings)) == names


@pytest.mark.parametrize(
    "field", ["mechanisms", "mechanisms_in_clear", "refuse_mechanism", "channel_bindings"]
)
def test_a_mechanism_that_does_not_exist_is_told_at_once(field: str) -> None:
    settings: dict[str, Any] = {field: {"PLIAN": "534 x"}}
    with pytest.raises(ValueError, match="'PLIAN' is no"):
        Driven(users=USERS, **settings)


# Around it.


def test_mail_waits_for_a_login_where_it_is_required() -> None:
    driven = greeted()
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>", b"DATA") == [530, 503, 503]
    assert driven.say(b"VRFY x") == [530]
    assert driven.say(b"NOOP") == [250]
    assert driven.session.violations == []
    driven = greeted(require_login=False)
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    assert driven.mail.login is None


def test_a_mail_tells_who_was_logged_in_when_it_was_begun() -> None:
    driven = greeted(require_login=False)
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("olga", "other"))
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    assert [mail.login for mail in driven.sink.mails] == [None, ("olga", "PLAIN")]


def test_an_asterisk_ends_an_exchange() -> None:
    driven = greeted()
    assert driven.say(b"AUTH LOGIN") == [334]
    assert driven.send(b"*\r\n") == b"501 5.7.0 Authentication cancelled\r\n"
    assert driven.say(b"NOOP") == [250]
    (attempt,) = driven.session.attempts
    assert attempt.cancelled
    assert driven.session.violations == []


@pytest.mark.parametrize("reply", ["534 5.7.9 Too weak", "454 4.7.0 Later", "504 5.5.4 Hm"])
def test_one_mechanism_may_be_refused_and_others_be_fine(reply: str) -> None:
    driven = greeted(refuse_mechanism={"SCRAM-SHA-256": reply})
    assert driven.send(b"AUTH SCRAM-SHA-256\r\n") == f"{reply}\r\n".encode()
    assert log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("olga", "other")).startswith(b"235 ")
    assert [attempt.mechanism for attempt in driven.session.attempts] == ["SCRAM-SHA-256", "PLAIN"]
    assert driven.session.violations == []


def test_responses_are_no_commands_but_stand_in_the_transcript() -> None:
    driven = greeted(keep_transcript=True)
    log_in(driven.send, "LOGIN", CLIENTS["LOGIN"]("olga", "other"))
    assert driven.session.commands == [b"EHLO client.example", b"AUTH LOGIN"]
    assert [line for who, line in driven.session.transcript if who == "C"][1:] == [
        b"AUTH LOGIN",
        encoded(b"olga"),
        encoded(b"other"),
    ]


def test_what_a_client_said_is_kept_decoded_and_not_shown() -> None:
    driven = greeted()
    log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("olga", "other"))
    log_in(greeted().send, "LOGIN", CLIENTS["LOGIN"]("olga", "other"))
    (attempt,) = driven.session.attempts
    assert attempt.initial_response == b"\0olga\0other"
    assert attempt.responses == []
    assert "other" not in repr(attempt) + repr(driven.sink.settings)


def test_without_records_no_attempt_is_kept() -> None:
    sessions: list[Any] = []
    sink = Sink(Clock(), users=USERS, keep_records=False, on_session=sessions.append)
    protocol = sink.buildProtocol(None)
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    protocol.dataReceived(b"EHLO x\r\n")
    protocol.dataReceived(b"AUTH PLAIN " + encoded(b"\0olga\0other") + b"\r\n")
    protocol.connectionLost(Failure(ConnectionDone()))
    (session,) = sessions
    assert session.login == ("olga", "PLAIN")
    assert session.attempts == []


def test_an_exchange_is_two_flights_or_as_many_as_it_has() -> None:
    for name, flights in {"PLAIN": 1, "LOGIN": 3, "CRAM-MD5": 2, "SCRAM-SHA-256": 3}.items():
        driven = greeted()
        log_in(driven.send, name, CLIENTS[name]("anna", USERS["anna"]))
        assert driven.session.flights == flights + 1


@pytest.mark.parametrize("pieces", [1, 7])
def test_however_the_octets_come_in(pieces: int) -> None:
    driven = greeted()

    def send(octets: bytes) -> bytes:
        return b"".join(driven.send(octets[at : at + pieces]) for at in range(0, len(octets), pieces))

    assert log_in(send, "SCRAM-SHA-256", CLIENTS["SCRAM-SHA-256"]("anna", USERS["anna"])).startswith(b"235 ")
    assert driven.session.violations == []


def test_a_response_may_be_long_but_not_too_long() -> None:
    secret = "x" * 9000
    driven = greeted(users={"a": secret})
    reply = log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("a", secret), initial=False)
    assert reply.startswith(b"235 ")
    assert driven.session.violations == []
    driven = greeted()
    assert driven.say(b"AUTH PLAIN") == [334]
    assert driven.say(b"A" * 12288) == [535]
    assert driven.session.violations == ["PLAIN: not authzid, NUL, authcid, NUL, passwd"]
    driven = greeted()
    assert driven.say(b"AUTH PLAIN") == [334]
    assert driven.send(b"A" * 12289 + b"\r\n") == b"500 5.5.6 Authentication exchange line is too long\r\n"
    assert driven.session.violations == ["a response of over 12290 octets"]
    assert driven.say(b"NOOP") == [250]
    assert driven.session.attempts[0].reply.startswith("500 ")
