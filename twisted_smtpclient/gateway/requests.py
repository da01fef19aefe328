"""
What a line asks for, as a value.
"""

from __future__ import annotations

from msgspec import Struct

from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Server
from .schema import RequestId

__all__ = ["AnyRequest", "CancelRequest", "ProbeRequest", "Request"]


class Request(Struct):
    """
    One delivery that a client asks for.

    :ivar reuse: whether it may share and leave behind a kept connection.
    :ivar deadline: seconds for all of it; None for no bound.
    :ivar trace: whether the reply tells where the time went.
    :ivar transcript: whether it tells what was said.
    :ivar key: what makes it one with others of the same key.
    """

    id: RequestId
    server: Server
    envelope: Envelope
    content: Content
    reuse: bool = True
    deadline: float | None = None
    trace: bool = False
    transcript: bool = False
    key: str | None = None


class ProbeRequest(Struct):
    """A look at a server, which delivers nothing."""

    id: RequestId
    server: Server
    deadline: float | None = None
    trace: bool = False
    transcript: bool = False


class CancelRequest(Struct):
    """
    The end of requests that came before on the same connection.

    :ivar target: the id that they bear.
    """

    id: RequestId
    target: int | str


#: What a good line may ask for.
AnyRequest = Request | ProbeRequest | CancelRequest
