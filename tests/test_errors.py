"""
Tests of the errors: what each tells, by name.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from twisted_smtpclient import errors
from twisted_smtpclient.errors import DeliveryError, HostNotFound, InvalidRequest, Refused
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.result import RecipientStatus, Status

#: Each error of the contract: the builtin that it is too, and whether to try
#: again may help.
CONTRACT: dict[str, tuple[type[Exception], bool]] = {
    "InvalidRequest": (ValueError, False),
    "RequestTooLarge": (ValueError, False),
    "NotAllowed": (PermissionError, False),
    "ConnectionRefused": (ConnectionRefusedError, True),
    "ConnectionTimeout": (TimeoutError, True),
    "HostNotFound": (LookupError, False),
    "ConnectionFailed": (ConnectionError, True),
    "ConnectionLost": (ConnectionError, True),
    "ResponseTimeout": (TimeoutError, True),
    "ProtocolError": (DeliveryError, False),
    "Refused": (DeliveryError, False),
    "ExtensionUnsupported": (DeliveryError, False),
    "TLSFailed": (DeliveryError, False),
    "MessageTooLarge": (DeliveryError, False),
    "DeadlineExceeded": (TimeoutError, True),
    "Cancelled": (DeliveryError, True),
    "ShuttingDown": (DeliveryError, True),
    "QueueFull": (DeliveryError, True),
    "InternalError": (DeliveryError, False),
}


def made(name: str) -> DeliveryError:
    error: DeliveryError
    if name == "Refused":
        error = Refused("EHLO", 550, "550 go away")
    else:
        error = getattr(errors, name)("what happened")
    return error


def again(error: DeliveryError) -> DeliveryError:
    return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]  # what it was


COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, again]


def test_the_errors_are_those_of_the_contract() -> None:
    assert {name for name in errors.__all__ if name != "DeliveryError"} == set(CONTRACT)
    assert {kind.__name__ for kind in DeliveryError.__subclasses__()} >= set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_each_error_is_the_builtin_that_one_would_expect(name: str) -> None:
    builtin, temporary = CONTRACT[name]
    error = made(name)
    assert isinstance(error, DeliveryError)
    assert isinstance(error, builtin)
    assert error.temporary is temporary


@pytest.mark.parametrize("name", CONTRACT)
def test_each_error_says_what_happened(name: str) -> None:
    # An OSError would put an errno before it.
    expected = "EHLO refused: 550 go away" if name == "Refused" else "what happened"
    assert str(made(name)) == expected


@pytest.mark.parametrize("name", sorted(set(CONTRACT) - {"Refused", "InvalidRequest", "HostNotFound"}))
def test_an_error_may_go_without_a_text(name: str) -> None:
    assert str(getattr(errors, name)()) == ""


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="DeliveryError is abstract"):
        DeliveryError("x")


def test_an_error_of_a_user_s_own_is_one_of_the_tree() -> None:
    class TooLate(errors.DeadlineExceeded):
        pass

    assert str(TooLate("x")) == "x"
    assert TooLate("x").temporary


def test_an_error_without_arguments_has_an_empty_text() -> None:
    error = made("Cancelled")
    error.args = ()
    assert str(error) == ""


def test_a_host_that_is_not_found_is_temporary_where_the_resolver_said_so() -> None:
    assert HostNotFound("x", temporary=True).temporary
    assert not HostNotFound("x").temporary


@pytest.mark.parametrize(
    ("code", "temporary"), [(421, True), (454, True), (554, False), (535, False), (250, False)]
)
def test_a_refusal_is_temporary_by_its_code(code: int, temporary: bool) -> None:
    error = Refused("AUTH", code, f"{code} a\n{code} b")
    assert error.temporary is temporary
    assert (error.command, error.code, error.response) == ("AUTH", code, f"{code} a\n{code} b")


def test_an_invalid_request_names_its_field() -> None:
    error = InvalidRequest("expected a string", "host")
    assert (error.field, error.expected, str(error)) == (
        "host",
        "expected a string",
        "host: expected a string",
    )


def test_an_invalid_request_as_a_whole_names_none() -> None:
    error = InvalidRequest("not JSON")
    assert (error.field, error.expected, str(error)) == (None, "not JSON", "not JSON")


def test_a_complaint_may_be_told_of_a_value_inside_another() -> None:
    assert str(InvalidRequest("bad", "notify").inside("recipients[1]")) == "recipients[1].notify: bad"
    assert str(InvalidRequest("bad").inside("dsn")) == "dsn: bad"


def test_an_error_is_in_doubt_where_a_recipient_is() -> None:
    known = RecipientStatus("a@x", Status.PERMANENT_ERROR, Reply(550, (b"550 no",)), "RCPT")
    not_sent = RecipientStatus("b@x", Status.UNKNOWN)
    perhaps = RecipientStatus("b@x", Status.UNKNOWN, in_doubt=True)
    error = made("ConnectionLost")
    assert error.recipients == ()
    assert not error.in_doubt
    assert not error.concerning([known, not_sent]).in_doubt
    assert error.concerning([known, perhaps]).in_doubt


@pytest.mark.parametrize("name", CONTRACT)
def test_an_error_may_be_told_of_many_mails_each_with_its_own_recipients(name: str) -> None:
    cause = OSError("why")
    error = made(name)
    error.__cause__ = cause
    perhaps = RecipientStatus("b@x", Status.UNKNOWN, in_doubt=True)
    other = error.concerning([perhaps])
    assert error.recipients == ()
    assert other.recipients == (perhaps,)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error) | {"recipients": (perhaps,)}
    assert other.__cause__ is cause


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("name", CONTRACT)
def test_a_copy_keeps_what_is_known(name: str, duplicate: Callable[[Any], Any]) -> None:
    error = made(name)
    error.recipients = [
        RecipientStatus("a@x", Status.UNKNOWN, Reply(250, (b"250 ok",)), "RCPT", in_doubt=True)
    ]
    other = duplicate(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.args == error.args
    assert other.recipients == error.recipients
    assert other.temporary is error.temporary
    assert other.in_doubt


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copy_keeps_the_fields_of_its_kind(duplicate: Callable[[Any], Any]) -> None:
    refused = duplicate(Refused("EHLO", 421, "421 later"))
    assert (refused.command, refused.code, refused.response) == ("EHLO", 421, "421 later")
    assert refused.temporary
    invalid = duplicate(InvalidRequest("bad", "host"))
    assert (invalid.field, invalid.expected, str(invalid)) == ("host", "bad", "host: bad")
    assert duplicate(HostNotFound("x", temporary=True)).temporary
