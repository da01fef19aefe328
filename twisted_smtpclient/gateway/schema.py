"""
The request as a schema: its fields, their types, and what is said of each.

The structs below say what a well-formed line is, at the speed of C.  The
tables say the same to people: what was expected of a field, and which spellings
are accepted beside the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..smtp.policy import MAX_SECONDS

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
Key = Annotated[str, Meta(min_length=1, max_length=128)]
Mode = Literal["TRY", "DEPEND", "NO"]
Notify = Literal["NEVER", "SUCCESS", "FAILURE", "DELAY"]
Parameters = dict[str, str | None]

#: The id of a request; UNSET where the line had none.
RequestId: TypeAlias = int | str | UnsetType | None


class AuthFields(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The object in ``auth``; hashable, for it tells servers apart."""

    username: str | UnsetType = UNSET
    password: str | UnsetType = UNSET
    token: str | UnsetType = UNSET
    mechanisms: tuple[str, ...] | UnsetType = UNSET

    def __repr__(self) -> str:
        return "<AuthFields>"


class DSNFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """The object in ``dsn``."""

    ret: Literal["FULL", "HDRS"] | UnsetType = UNSET
    envid: str | UnsetType = UNSET


class RecipientFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """A recipient that is an object."""

    address: str
    notify: list[Notify] | UnsetType = UNSET
    orcpt: str | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class RequestFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """
    A line, as it stands: types are exact, values not yet looked at.

    What was not given is ``UNSET``, which no value can be mistaken for.
    """

    id: RequestId = UNSET
    host: str
    port: Port | UnsetType = UNSET
    helo: str | UnsetType = UNSET
    pipelining: Mode | UnsetType = UNSET
    connection_timeout: Seconds | UnsetType = UNSET
    response_timeout: Seconds | UnsetType = UNSET
    sender: str | UnsetType | None = UNSET
    recipients: list[str | RecipientFields] | UnsetType = UNSET
    message: bytes
    protocol: Literal["SMTP", "LMTP"] | UnsetType = UNSET
    tls: Literal["NO", "TRY", "DEPEND", "IMPLICIT"] | UnsetType = UNSET
    tls_name: str | UnsetType = UNSET
    tls_fingerprint: str | UnsetType = UNSET
    auth: AuthFields | UnsetType = UNSET
    chunking: Mode | UnsetType = UNSET
    dsn: DSNFields | UnsetType = UNSET
    requiretls: bool | UnsetType = UNSET
    eightbitmime: Literal["TRY", "DEPEND"] | UnsetType = UNSET
    binary: bool | UnsetType = UNSET
    mail_parameters: Parameters | UnsetType = UNSET
    key: Key | UnsetType = UNSET
    reuse: bool | UnsetType = UNSET
    source_address: str | UnsetType = UNSET
    deadline: Seconds | UnsetType = UNSET
    trace: bool | UnsetType = UNSET
    transcript: bool | UnsetType = UNSET
    probe: bool | UnsetType = UNSET
    cancel: int | str | UnsetType = UNSET
    # Spellings that clients of the system before this one send.
    pipeling: Mode | UnsetType = UNSET
    connection_timout: Seconds | UnsetType = UNSET
    recpients: list[str | RecipientFields] | UnsetType = UNSET


class RawRequestFields(RequestFields, kw_only=True, forbid_unknown_fields=True):
    """The same with the message as it stands in the line."""

    message: Raw  # base64 is decoded apart


class CommonFields(Struct, kw_only=True, gc=False):
    """
    What most lines have beside the message, and no more: those that make the server
    first, as far as ``recipients``.

    What else there is in a line is not looked at: who counts its strings knows that
    there is nothing.  It is less than half of the cost of all fields.
    """

    host: str
    port: Port | UnsetType = UNSET
    helo: str | UnsetType = UNSET
    pipelining: Mode | UnsetType = UNSET
    connection_timeout: Seconds | UnsetType = UNSET
    response_timeout: Seconds | UnsetType = UNSET
    protocol: Literal["SMTP", "LMTP"] | UnsetType = UNSET
    tls: Literal["NO", "TRY", "DEPEND", "IMPLICIT"] | UnsetType = UNSET
    tls_name: str | UnsetType = UNSET
    auth: AuthFields | UnsetType = UNSET
    chunking: Mode | UnsetType = UNSET
    recipients: list[str]
    id: RequestId = UNSET
    sender: str | UnsetType | None = UNSET
    reuse: bool | UnsetType = UNSET


class ProbeFields(RequestFields, kw_only=True, forbid_unknown_fields=True):
    """The same without a mail."""

    message: bytes | UnsetType = UNSET  # type: ignore[assignment]  # there is none


class CancelFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """A line that ends requests."""

    id: RequestId = UNSET
    cancel: int | str


#: Accepted as the field itself; beside it they are refused.
LEGACY: Final = {
    "pipeling": "pipelining",
    "connection_timout": "connection_timeout",
    "recpients": "recipients",
}

#: Fields that each request has, in one spelling or the other.
REQUIRED: Final = ("host", "recipients", "message")

#: The same of a probe.
REQUIRED_OF_A_PROBE: Final = ("host",)

#: Fields that say something of a mail, which a probe has not; each with the
#: values that say nothing.
OF_A_MAIL: Final[Mapping[str, tuple[object, ...]]] = {
    "sender": (None,),
    "recipients": (),
    "recpients": (),
    "message": (),
    "dsn": (),
    "requiretls": (False,),
    "eightbitmime": ("TRY",),
    "binary": (False,),
    "mail_parameters": ({},),
    "key": (),
}

#: The objects inside a request, by the field that holds them.
NESTED: Final[Mapping[str, type[Struct]]] = {
    "auth": AuthFields,
    "dsn": DSNFields,
    "recipients": RecipientFields,
}

#: Fields that a line with ``cancel`` may have.
OF_A_CANCEL: Final = ("id", "cancel")

_MODE: Final = 'expected "TRY", "DEPEND" or "NO"'
_SECONDS: Final = f"expected a number of seconds, over 0 and at most {MAX_SECONDS}"
_RECIPIENTS: Final = "expected a list of at least one address, each a string or an object"
_BOOLEAN: Final = "expected true or false"
_PARAMETERS: Final = "expected an object of keywords, each with a string or null"

#: What is said of a field whose value is of the wrong type or range.
EXPECTED: Final[Mapping[str, str]] = {
    "id": "expected a string, an integer or null",
    "host": "expected a string: a name, an IPv4 or IPv6 address, or unix:/path",
    "port": "expected an integer from 1 to 65535",
    "helo": "expected a string",
    "pipelining": _MODE,
    "connection_timeout": _SECONDS,
    "response_timeout": _SECONDS,
    "sender": "expected a string or null",
    "recipients": _RECIPIENTS,
    "message": "expected a string of base64 (RFC 4648 section 4)",
    "protocol": 'expected "SMTP" or "LMTP"',
    "tls": 'expected "NO", "TRY", "DEPEND" or "IMPLICIT"',
    "tls_name": "expected a string",
    "tls_fingerprint": "expected a string, sha256: and 64 hex digits",
    "auth": "expected an object with username and password, or username and token",
    "auth.username": "expected a string",
    "auth.password": "expected a string",
    "auth.token": "expected a string",
    "auth.mechanisms": "expected a list of strings",
    "chunking": _MODE,
    "dsn": "expected an object with ret, envid or both",
    "dsn.ret": 'expected "FULL" or "HDRS"',
    "dsn.envid": "expected a string",
    "requiretls": _BOOLEAN,
    "eightbitmime": 'expected "TRY" or "DEPEND"',
    "binary": _BOOLEAN,
    "mail_parameters": _PARAMETERS,
    "key": "expected a string of 1 to 128 characters",
    "reuse": _BOOLEAN,
    "source_address": "expected a string, an IPv4 or IPv6 address",
    "deadline": _SECONDS,
    "trace": _BOOLEAN,
    "transcript": _BOOLEAN,
    "probe": _BOOLEAN,
    "cancel": "expected a string or an integer, the id of a request",
    "pipeling": _MODE,
    "connection_timout": _SECONDS,
    "recpients": _RECIPIENTS,
    "recipients.address": "expected a string",
    "recipients.notify": 'expected ["NEVER"], or a list of "SUCCESS", "FAILURE" and "DELAY"',
    "recipients.orcpt": "expected a string",
    "recipients.parameters": _PARAMETERS,
}


def types_of(struct: type[Struct]) -> dict[str, object]:
    """The fields of a struct and their types, in their order."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
