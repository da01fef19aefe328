from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from tests.gateway.fakes import unknown, verdict
from twisted_smtpclient import errors
from twisted_smtpclient.errors import DeliveryError
from twisted_smtpclient.gateway.reply import WIRE_NAMES, encode_error, encode_result, wire_name
from twisted_smtpclient.smtp.result import DeliveryResult


def error_reply(error: DeliveryError) -> dict[str, Any]:
    reply = json.loads(encode_error(UNSET, error))
    assert isinstance(reply, dict)
    return reply


def test_a_result_has_one_entry_a_recipient_in_order() -> None:
    recipients = [
        verdict("valid@valid.de", "250 ok 1375953438 qp 6971"),
        verdict("invalid@invalid.de", "553 sorry, that domain isn't in my list (#5.7.1)", "RCPT"),
        verdict("valid@valid.de", "451-4.3.0 later\n451 4.3.0 much later", "BDAT"),
    ]
    octets = encode_result("x", DeliveryResult("foo@bar.de", recipients))
    assert b"\n" not in octets
    assert json.loads(octets) == {
        "id": "x",
        "status": "ok",
        "sender": "foo@bar.de",
        "deliveryStatus": [
            {
                "recipient": "valid@valid.de",
                "status": "Ok",
                "response": "250 ok 1375953438 qp 6971",
                "code": 250,
                "enhanced": None,
                "command": ".",
            },
            {
                "recipient": "invalid@invalid.de",
                "status": "PermanentError",
                "response": "553 sorry, that domain isn't in my list (#5.7.1)",
                "code": 553,
                "enhanced": None,
                "command": "RCPT",
            },
            {
                "recipient": "valid@valid.de",
                "status": "TemporaryError",
                "response": "451-4.3.0 later\n451 4.3.0 much later",
                "code": 451,
                "enhanced": "4.3.0",
                "command": "BDAT",
            },
        ],
    }


@pytest.mark.parametrize("request_id", [0, -(2**70), "", "a\n\u2028", None])
def test_an_id_is_echoed_as_it_came(request_id: int | str | None) -> None:
    octets = encode_result(request_id, DeliveryResult(None, [verdict("a@b.de")]))
    reply = json.loads(octets)
    assert reply["id"] == request_id
    assert reply["sender"] is None
    assert json.loads(encode_error(request_id, errors.QueueFull("full")))["id"] == request_id


def test_a_reply_to_a_request_without_an_id_has_none() -> None:
    assert "id" not in json.loads(encode_result(UNSET, DeliveryResult(None, [verdict("a@b.de")])))
    assert "id" not in error_reply(errors.Cancelled("cancelled"))


def test_an_error_before_mail_tells_its_name_and_its_text() -> None:
    assert error_reply(errors.ConnectionRefused("Connection refused: localhost:1025")) == {
        "status": "error",
        "error": "ConnectionRefused",
        "message": "Error while deliver messages: Connection refused: localhost:1025",
        "temporary": True,
    }


def test_a_session_that_was_refused_tells_by_what() -> None:
    reply = error_reply(errors.Refused("CONNECT", 554, "554-5.7.1 no\n554 5.7.1 go away"))
    assert reply["error"] == "Refused"
    assert reply["temporary"] is False
    assert (reply["command"], reply["code"]) == ("CONNECT", 554)
    assert reply["response"] == "554-5.7.1 no\n554 5.7.1 go away"
    assert error_reply(errors.Refused("EHLO", 421, "421 busy"))["temporary"] is True


def test_an_error_after_mail_tells_what_is_known_of_each_recipient() -> None:
    error = errors.ConnectionLost("gone")
    error.recipients = (
        verdict("a@b.de", "550 5.1.1 no such user", "RCPT"),
        unknown("b@b.de", in_doubt=True),
        unknown("c@b.de", in_doubt=False),
    )
    reply = error_reply(error)
    assert reply["indoubt"] is True
    assert [entry["recipient"] for entry in reply["deliveryStatus"]] == ["a@b.de", "b@b.de", "c@b.de"]
    assert reply["deliveryStatus"][0]["status"] == "PermanentError"
    assert "indoubt" not in reply["deliveryStatus"][0]
    assert reply["deliveryStatus"][1] == {"recipient": "b@b.de", "status": "Unknown", "indoubt": True}
    assert reply["deliveryStatus"][2] == {"recipient": "c@b.de", "status": "Unknown", "indoubt": False}


def test_an_error_without_doubt_does_not_speak_of_it() -> None:
    error = errors.ResponseTimeout("no reply")
    error.recipients = (unknown("b@b.de", in_doubt=False),)
    assert "indoubt" not in error_reply(error)


def test_each_error_has_a_name_on_the_wire() -> None:
    named = {kind.__name__ for kind in WIRE_NAMES}
    assert named == set(errors.__all__) - {"DeliveryError"}
    assert all(kind.__name__ == name for kind, name in WIRE_NAMES.items())


def test_an_error_that_is_derived_from_one_bears_its_name() -> None:
    class MyTimeout(errors.ResponseTimeout):
        pass

    class Another(DeliveryError):
        pass

    assert wire_name(MyTimeout("x")) == "ResponseTimeout"
    assert wire_name(Another("x")) == "InternalError"


def test_temporary_is_as_the_contract_says() -> None:
    temporary = {
        "ConnectionRefused", "ConnectionTimeout", "ConnectionFailed", "ConnectionLost", "ResponseTimeout",
        "DeadlineExceeded", "Cancelled", "ShuttingDown", "QueueFull",
    }  # fmt: skip
    for kind, name in WIRE_NAMES.items():
        if kind is not errors.Refused:
            assert error_reply(kind("x"))["temporary"] is (name in temporary), name
    assert error_reply(errors.HostNotFound("x", temporary=True))["temporary"] is True
