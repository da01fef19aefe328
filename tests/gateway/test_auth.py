"""
Tests of ``auth`` in a request: what becomes of it, and what is wrong with it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from twisted_smtpclient import Credentials, TLSMode
from twisted_smtpclient.gateway.codec import ProbeRequest, Rejection, Request, RequestDecoder

PASSWORD = {"username": "anna", "password": "geheim"}


def line(auth: Any, **fields: Any) -> bytes:
    request = {"host": "mx.example", "recipients": ["a@x"], "message": "", "auth": auth, **fields}
    return json.dumps(request).encode()


def decoded(auth: Any, **fields: Any) -> Request:
    request = RequestDecoder().decode(line(auth, **fields))
    assert isinstance(request, Request), request
    return request


def complaint(auth: Any) -> str:
    rejection = RequestDecoder().decode(line(auth, id=7))
    assert isinstance(rejection, Rejection), rejection
    assert rejection.id == 7
    return str(rejection.error)


@pytest.mark.parametrize(
    ("auth", "credentials"),
    [
        (PASSWORD, Credentials("anna", "geheim")),
        ({"username": "anna", "token": "ya29"}, Credentials("anna", token="ya29")),
        (
            {**PASSWORD, "mechanisms": ["plain", "LOGIN"]},
            Credentials("anna", "geheim", mechanisms=["PLAIN", "LOGIN"]),
        ),
        ({"username": "\u00e4", "password": 'a"b\\c'}, Credentials("\u00e4", 'a"b\\c')),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"id": "x"}, {"recipients": [{"address": "a@x"}]}, {"reuse": True}])
def test_it_becomes_credentials(auth: Any, credentials: Credentials, fields: dict[str, Any]) -> None:
    assert decoded(auth, **fields).server.auth == credentials


def test_without_it_nobody_logs_in() -> None:
    request = RequestDecoder().decode(b'{"host":"mx","recipients":["a@x"],"message":""}')
    assert isinstance(request, Request)
    assert request.server.auth is None


@pytest.mark.parametrize(
    ("fields", "tls"),
    [
        ({}, TLSMode.DEPEND),
        ({"port": 465}, TLSMode.IMPLICIT),
        ({"host": "127.0.0.1"}, TLSMode.TRY),
        ({"host": "::1"}, TLSMode.TRY),
        ({"host": "localhost"}, TLSMode.TRY),
        ({"host": "unix:/run/smtp"}, TLSMode.TRY),
        ({"tls": "NO"}, TLSMode.NO),
        ({"tls": "TRY"}, TLSMode.TRY),
    ],
)
def test_with_it_tls_must_verify_unless_the_request_says_otherwise(
    fields: dict[str, Any], tls: TLSMode
) -> None:
    assert decoded(PASSWORD, **fields).server.tls is tls


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        ({}, "auth.username: is required"),
        ({"password": "geheim"}, "auth.username: is required"),
        ({"username": "anna"}, "auth: expected a password or a token, one of them"),
        ({**PASSWORD, "token": "geheim"}, "auth: expected a password or a token, one of them"),
        ({"username": "", "password": "geheim"}, "auth.username: expected a name, not the empty string"),
        ({"username": "anna", "password": ""}, "auth.password: expected one, not the empty string"),
        ({"username": "a\r\nb", "password": "geheim"}, "auth.username: expected no control characters"),
        ({"username": "anna", "password": "geheim\0"}, "auth.password: expected no control characters"),
        (
            {"username": "anna", "token": "ge heim"},
            "auth.token: expected visible ASCII characters (RFC 6750 section 2.1)",
        ),
        ({"username": 7, "password": "geheim"}, "auth.username: expected a string"),
        ({"username": "anna", "password": ["geheim"]}, "auth.password: expected a string"),
        ({"username": "anna", "password": None}, "auth.password: expected a string"),
        ({"username": "anna", "token": 7}, "auth.token: expected a string"),
        ({**PASSWORD, "mechanisms": "PLAIN"}, "auth.mechanisms: expected a list of strings"),
        ({**PASSWORD, "mechanisms": [7]}, "auth.mechanisms: expected a list of strings"),
        (
            {**PASSWORD, "pasword": "geheim"},
            "auth.pasword: unknown field; the nearest known name is password",
        ),
        ("geheim", "auth: expected an object with username and password, or username and token"),
        (None, "auth: expected an object with username and password, or username and token"),
    ],
)
def test_a_complaint_names_the_field_and_quotes_no_secret(auth: Any, told: str) -> None:
    assert complaint(auth) == told


@pytest.mark.parametrize("mechanisms", [[], ["geheim"], ["NTLM"], ["EXTERNAL"], ["XOAUTH2"]])
def test_mechanisms_are_those_that_go_with_it(mechanisms: list[str]) -> None:
    told = complaint({**PASSWORD, "mechanisms": mechanisms})
    assert told.startswith("auth.mechanisms: ")
    assert "some of SCRAM-SHA-256-PLUS, SCRAM-SHA-256, " in told
    assert "geheim" not in told


def test_a_field_that_is_given_twice_is_told() -> None:
    twice = b'{"username":"a","username":"b","password":"c"}'
    octets = b'{"host":"mx","recipients":["a@x"],"message":"","auth":%b}' % twice
    rejection = RequestDecoder().decode(octets)
    assert isinstance(rejection, Rejection)
    assert str(rejection.error) == "username: is given twice"


def test_servers_that_are_named_again_are_the_same_object_and_others_are_not() -> None:
    decoder = RequestDecoder()

    def server(auth: Any) -> Any:
        request = decoder.decode(line(auth))
        assert isinstance(request, Request)
        return request.server

    assert server(PASSWORD) is server(PASSWORD)
    keys = [
        PASSWORD,
        {**PASSWORD, "password": "other"},
        {**PASSWORD, "username": "bert"},
        {**PASSWORD, "mechanisms": ["PLAIN"]},
        {"username": "anna", "token": "geheim"},
    ]
    assert len({server(auth) for auth in keys}) == len(keys)


def test_a_long_token_is_remembered_and_an_endless_one_is_not() -> None:
    decoder = RequestDecoder()
    for length, kept in ((2500, 1), (7000, 1)):
        assert isinstance(decoder.decode(line({"username": "a", "token": "x" * length})), Request)
        assert len(decoder._servers) == kept


def test_a_request_shows_no_secret() -> None:
    request = decoded(PASSWORD)
    assert "geheim" not in repr(request)
    assert "auth=<Credentials 'anna'>" in repr(request.server)


def test_a_probe_may_log_in() -> None:
    octets = json.dumps({"probe": True, "host": "mx.example", "auth": PASSWORD}).encode()
    request = RequestDecoder().decode(octets)
    assert isinstance(request, ProbeRequest)
    assert request.server.auth == Credentials("anna", "geheim")
