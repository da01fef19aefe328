"""
One outcome as one line: the reply to a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .. import errors
from ..errors import DeliveryError
from ..smtp.result import DeliveryResult, RecipientStatus, Status
from .schema import RequestId

__all__ = ["WIRE_NAMES", "encode_error", "encode_result", "wire_name"]

#: What each error is called in a reply, and in the log.
WIRE_NAMES: Final[Mapping[type[DeliveryError], str]] = {
    errors.InvalidRequest: "InvalidRequest",
    errors.RequestTooLarge: "RequestTooLarge",
    errors.NotAllowed: "NotAllowed",
    errors.ConnectionRefused: "ConnectionRefused",
    errors.ConnectionTimeout: "ConnectionTimeout",
    errors.HostNotFound: "HostNotFound",
    errors.ConnectionFailed: "ConnectionFailed",
    errors.ConnectionLost: "ConnectionLost",
    errors.ResponseTimeout: "ResponseTimeout",
    errors.ProtocolError: "ProtocolError",
    errors.Refused: "Refused",
    errors.ExtensionUnsupported: "ExtensionUnsupported",
    errors.TLSFailed: "TLSFailed",
    errors.MessageTooLarge: "MessageTooLarge",
    errors.DeadlineExceeded: "DeadlineExceeded",
    errors.Cancelled: "Cancelled",
    errors.ShuttingDown: "ShuttingDown",
    errors.QueueFull: "QueueFull",
    errors.InternalError: "InternalError",
}

#: The words that clients of the system before this one look for.
PREFIX: Final = "Error while deliver messages: "


class _Verdict(Struct):
    recipient: str
    status: Status
    response: str
    code: int
    enhanced: str | None
    command: str | None


class _Unknown(Struct):
    recipient: str
    status: Status
    indoubt: bool


class _ResultReply(Struct):
    id: RequestId
    status: str
    sender: str | None
    deliveryStatus: list[_Verdict | _Unknown]


class _ErrorReply(Struct):
    id: RequestId
    status: str
    error: str
    message: str
    temporary: bool
    indoubt: bool | UnsetType = UNSET
    command: str | UnsetType = UNSET
    code: int | UnsetType = UNSET
    response: str | UnsetType = UNSET
    deliveryStatus: list[_Verdict | _Unknown] | UnsetType = UNSET


#: Told for each recipient, of the few that there are.
_text_of = lru_cache(maxsize=256)(str)

_encode = msgspec.json.Encoder().encode


def encode_result(request_id: RequestId, result: DeliveryResult) -> bytes:
    """The reply, without its line end, where the server has given its verdicts."""
    return _encode(_ResultReply(request_id, "ok", result.sender, _delivery_status(result.recipients)))


def encode_error(request_id: RequestId, error: DeliveryError) -> bytes:
    """The reply, without its line end, where there is no verdict."""
    reply = _ErrorReply(request_id, "error", wire_name(error), f"{PREFIX}{error}", bool(error.temporary))
    if error.in_doubt:
        reply.indoubt = True
    if isinstance(error, errors.Refused):
        reply.command, reply.code, reply.response = error.command, error.code, error.response
    if error.recipients:
        reply.deliveryStatus = _delivery_status(error.recipients)
    return _encode(reply)


def wire_name(error: DeliveryError) -> str:
    """The name of an error, or of the nearest class that it is one of."""
    for kind in type(error).__mro__:
        if kind in WIRE_NAMES:
            return WIRE_NAMES[kind]
    return "InternalError"


def _delivery_status(recipients: Sequence[RecipientStatus]) -> list[_Verdict | _Unknown]:
    return [
        _Unknown(recipient, status, in_doubt)
        if reply is None
        else _Verdict(
            recipient,
            status,
            reply.text,
            reply.code,
            None if (enhanced := reply.enhanced) is None else _text_of(enhanced),
            command,
        )
        for recipient, status, reply, command, in_doubt in recipients
    ]
