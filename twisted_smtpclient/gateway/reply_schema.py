"""
The reply as a schema: what stands in a line, in its order.

A value of which there is one for each recipient is left out by the collector:
it holds texts and numbers alone.  A status is its word, for to encode a member of
an Enum is to run Python code.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from ..smtp.trace import Side
from .schema import RequestId


class VerdictFields(Struct, gc=False):
    """What was said to one recipient."""

    recipient: str
    status: str
    response: str
    code: int
    enhanced: str | None
    command: str | None


class UnknownFields(Struct, gc=False):
    """A recipient to whom nothing was said."""

    recipient: str
    status: str
    indoubt: bool


class TraceFields(Struct):
    """Where the time went, in seconds."""

    queued: float
    connect: float
    tls: float
    session: float
    envelope: float
    content: float
    total: float
    flights: int
    reused: bool
    pipelined: bool
    chunking: bool
    tls_version: str | None


class ReplyFields(Struct, kw_only=True):
    """What a reply tells besides, where it was asked to."""

    trace: TraceFields | UnsetType = UNSET
    transcript: list[tuple[Side, str]] | UnsetType = UNSET
    redelivered: bool | UnsetType = UNSET


class ResultFields(ReplyFields):
    """The server has given its verdicts."""

    id: RequestId
    status: str
    sender: str | None
    deliveryStatus: list[VerdictFields | UnknownFields]


class ErrorFields(ReplyFields):
    """There is no verdict."""

    id: RequestId
    status: str
    error: str
    message: str
    temporary: bool
    indoubt: bool | UnsetType = UNSET
    command: str | UnsetType = UNSET
    code: int | UnsetType = UNSET
    response: str | UnsetType = UNSET
    deliveryStatus: list[VerdictFields | UnknownFields] | UnsetType = UNSET


class TLSFields(Struct):
    """The TLS of a server that was looked at."""

    version: str
    cipher: str
    verified: bool


class FoundFields(ReplyFields):
    """What a server is."""

    id: RequestId
    status: str
    greeting: str
    extensions: dict[str, tuple[str, ...]]
    tls: TLSFields | None
    authenticated: bool


class CancelledFields(Struct):
    """Whether there was something to end."""

    id: RequestId
    status: str
    cancelled: bool
