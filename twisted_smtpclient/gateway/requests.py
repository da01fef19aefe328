"""
What a line asks for, as a value.
"""

from __future__ import annotations

from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.given import mypyc_attr
from ..smtp.policy import Server
from .schema import RequestId

__all__ = ["AnyRequest", "CancelRequest", "ProbeRequest", "Request"]


@mypyc_attr(acyclic=True)
class Request:
    """
    One delivery that a client asks for.

    :ivar reuse: whether it may share and leave behind a kept connection.
    :ivar deadline: seconds for all of it; None for no bound.
    :ivar trace: whether the reply tells where the time went.
    :ivar transcript: whether it tells what was said.
    :ivar key: what makes it one with others of the same key.
    """

    __slots__ = (
        "content", "deadline", "envelope", "id", "key", "reuse", "server", "trace", "transcript",
    )  # fmt: skip

    def __init__(
        self,
        request_id: RequestId,
        server: Server,
        envelope: Envelope,
        content: Content,
        reuse: bool = True,
        deadline: float | None = None,
        trace: bool = False,
        transcript: bool = False,
        key: str | None = None,
    ) -> None:
        self.id = request_id
        self.server = server
        self.envelope = envelope
        self.content = content
        self.reuse = reuse
        self.deadline = deadline
        self.trace = trace
        self.transcript = transcript
        self.key = key

    def __repr__(self) -> str:
        return f"<Request {self.id!r}: {self.envelope!r} to {self.server}>"


@mypyc_attr(acyclic=True)
class ProbeRequest:
    """A look at a server, which delivers nothing."""

    __slots__ = ("deadline", "id", "server", "trace", "transcript")

    def __init__(
        self,
        request_id: RequestId,
        server: Server,
        deadline: float | None = None,
        trace: bool = False,
        transcript: bool = False,
    ) -> None:
        self.id = request_id
        self.server = server
        self.deadline = deadline
        self.trace = trace
        self.transcript = transcript

    def __repr__(self) -> str:
        return f"<ProbeRequest {self.id!r}: {self.server}>"


@mypyc_attr(acyclic=True)
class CancelRequest:
    """
    The end of requests that came before on the same connection.

    :ivar target: the id that they bear.
    """

    __slots__ = ("id", "target")

    def __init__(self, request_id: RequestId, target: int | str) -> None:
        self.id = request_id
        self.target = target

    def __repr__(self) -> str:
        return f"<CancelRequest {self.id!r} of {self.target!r}>"


#: What a good line may ask for.
AnyRequest = Request | ProbeRequest | CancelRequest
