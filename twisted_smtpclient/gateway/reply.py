"""
One outcome as one line: the reply to a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from .. import errors
from ..errors import DeliveryError
from ..smtp.probe import Probe
from ..smtp.result import DeliveryResult, RecipientStatus
from ..smtp.trace import Trace
from .reply_schema import (
    CancelledFields,
    ErrorFields,
    FoundFields,
    ReplyFields,
    ResultFields,
    TLSFields,
    TraceFields,
    UnknownFields,
    VerdictFields,
)
from .schema import RequestId

__all__ = [
    "WIRE_NAMES",
    "Ask",
    "encode_error",
    "encode_probe",
    "encode_result",
    "encode_verdicts",
    "wire_name",
]

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


T = TypeVar("T", bound=ReplyFields)


class Ask(NamedTuple):
    """
    What a reply is to tell besides.

    :ivar trace: where that comes from; its transcript, if it has one, is told.
    :ivar tell_trace: whether the times are told too.
    """

    trace: Trace
    tell_trace: bool


_encode = msgspec.json.Encoder().encode


def encode_cancel(request_id: RequestId, cancelled: bool) -> bytes:
    """The reply, without its line end, to a cancel."""
    return _encode(CancelledFields(request_id, "ok", cancelled))


def encode_result(
    request_id: RequestId, result: DeliveryResult, ask: Ask | None = None, *, redelivered: bool = False
) -> bytes:
    """
    The reply, without its line end, where the server has given its verdicts.

    :param ask: what is to be told besides.
    :param redelivered: whether another process may have delivered it too.
    """
    reply = ResultFields(request_id, "ok", result.sender, _delivery_status(result.recipients))
    if redelivered:
        reply.redelivered = True
    return _encode(reply if ask is None else _tell(reply, ask))


def encode_error(
    request_id: RequestId, error: DeliveryError, ask: Ask | None = None, *, redelivered: bool = False
) -> bytes:
    """
    The reply, without its line end, where there is no verdict.

    :param ask: what is to be told besides.
    :param redelivered: whether another process may have delivered it.
    """
    reply = ErrorFields(request_id, "error", wire_name(error), f"{PREFIX}{error}", bool(error.temporary))
    if redelivered:
        reply.redelivered = True
    if error.in_doubt:
        reply.indoubt = True
    if isinstance(error, errors.Refused):
        reply.command, reply.code, reply.response = error.command, error.code, error.response
    if error.recipients:
        reply.deliveryStatus = _delivery_status(error.recipients)
    return _encode(reply if ask is None else _tell(reply, ask))


def encode_probe(request_id: RequestId, probe: Probe, ask: Ask | None = None) -> bytes:
    """
    The reply, without its line end, that tells what a server is.

    :param ask: what is to be told besides.
    """
    tls = probe.tls
    reply = FoundFields(
        request_id,
        "ok",
        probe.greeting,
        dict(probe.extensions),
        None if tls is None else TLSFields(tls.version, tls.cipher, tls.verified),
        probe.authenticated,
    )
    return _encode(reply if ask is None else _tell(reply, ask))


def encode_verdicts(recipients: Sequence[RecipientStatus]) -> bytes:
    """``deliveryStatus`` of a reply, alone."""
    return _encode(_delivery_status(recipients))


def _tell(reply: T, ask: Ask) -> T:
    trace = ask.trace
    if ask.tell_trace:
        # To the microsecond.
        reply.trace = TraceFields(
            queued=round(trace.queued, 6),
            connect=round(trace.connect, 6),
            tls=round(trace.tls, 6),
            session=round(trace.session, 6),
            envelope=round(trace.envelope, 6),
            content=round(trace.content, 6),
            total=round(trace.total, 6),
            flights=trace.flights,
            reused=trace.reused,
            pipelined=trace.pipelined,
            chunking=trace.chunking,
            tls_version=trace.tls_version,
        )
    if trace.transcript is not None:
        reply.transcript = trace.transcript.lines
    return reply


def wire_name(error: DeliveryError) -> str:
    """The name of an error, or of the nearest class that it is one of."""
    for kind in type(error).__mro__:
        if kind in WIRE_NAMES:
            return WIRE_NAMES[kind]
    return "InternalError"


def _delivery_status(recipients: Sequence[RecipientStatus]) -> list[VerdictFields | UnknownFields]:
    return [
        UnknownFields(recipient, status._value_, in_doubt)
        if reply is None
        else VerdictFields(
            recipient,
            status._value_,
            reply.text,
            reply.code,
            reply.enhanced_text,
            command,
        )
        for recipient, status, reply, command, in_doubt in recipients
    ]
