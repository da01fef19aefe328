"""
Three pages over HTTP: ``/metrics``, ``/healthz``, ``/readyz``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import http

from ..metrics import Metrics
from .life import Life, State

__all__ = ["MAX_CONNECTIONS", "Answer", "Pages", "PagesFactory", "pages_of"]

#: Connections at a time; a Prometheus, a probe or two, and a person.  Each
#: may hold 16 KiB of headers, so 1 MiB in all.
MAX_CONNECTIONS: Final = 64

#: Seconds without an octet after which a connection is closed.
IDLE: Final = 30.0

_TEXT: Final = "text/plain; charset=utf-8"
_READS: Final = (b"GET", b"HEAD")

_log = Logger(__name__)


class Answer(NamedTuple):
    """What a page answers."""

    status: int
    body: bytes
    content_type: str = _TEXT


#: A page: given the Accept header, what it answers.
Page = Callable[[str], Answer]


def pages_of(metrics: Metrics, life: Life) -> dict[bytes, Page]:
    """
    The three pages.

    ``/healthz`` answers as long as the process does; ``/readyz`` is 503 but
    while requests are taken.
    """

    def ready(_: str) -> Answer:
        # Files are read again between two turns of the reactor.
        good = life.state in (State.READY, State.RELOADING)
        return Answer(200 if good else 503, life.state.value.encode() + b"\n")

    return {
        b"/metrics": lambda accept: Answer(200, *metrics.exposition(accept)),
        b"/healthz": lambda _: Answer(200, b"alive\n"),
        b"/readyz": ready,
    }


class _Request(http.Request):
    """A request for a page; it has no body, and what comes as one is not kept."""

    #: Set by the factory.
    pages: Mapping[bytes, Page]
    _refused = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length != 0:
            self._refused = True
            channel: Any = self.channel
            channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            channel.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        """It is not wanted."""

    def process(self) -> None:
        if self._refused:
            return
        # Twisted has no types here.
        request: Any = self
        answer = self._answer()
        request.setResponseCode(answer.status)
        # What runs here is nobody's business but the operator's.
        request.responseHeaders.removeHeader(b"server")
        request.setHeader(b"content-type", answer.content_type.encode())
        request.setHeader(b"content-length", b"%d" % len(answer.body))
        request.setHeader(b"cache-control", b"no-store")
        if answer.status == 405:
            request.setHeader(b"allow", b", ".join(_READS))
        request.write(answer.body)
        request.finish()

    def _answer(self) -> Answer:
        page = self.pages.get(self.path)
        if page is None:
            return Answer(404, b"there are /metrics, /healthz and /readyz\n")
        if self.method not in _READS:
            return Answer(405, b"a page can be read, no more\n")
        accept = self.requestHeaders.getRawHeaders(b"accept") or []
        try:
            return page(",".join(each.decode("latin-1") for each in accept))
        except Exception:
            _log.failure("{path} could not be made", path=self.path.decode("latin-1"))
            return Answer(500, b"a fault of the daemon, whose log has the particulars\n")


class _HTTP(http.HTTPFactory):
    """HTTP without a log of who asked: that would be most of the log."""

    noisy = False

    def __init__(self, pages: Mapping[bytes, Page], reactor: IReactorTime) -> None:
        super().__init__(timeout=IDLE, reactor=reactor)
        self._request = type("_RequestOfThese", (_Request,), {"pages": pages})

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        channel.requestFactory = self._request
        return channel

    def log(self, request: http.Request) -> None:
        """Nothing is told."""


class PagesFactory(WrappingFactory):
    """
    Serves pages to at most :data:`MAX_CONNECTIONS` connections at a time.

    :param pages: by path.
    """

    noisy = False
    protocols: dict[ProtocolWrapper, int]

    def __init__(self, pages: Mapping[bytes, Page], reactor: IReactorTime) -> None:
        super().__init__(_HTTP(pages, reactor))  # type: ignore[no-untyped-call]  # Twisted has no types here

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]
        """A further connection; None closes it."""
        return super().buildProtocol(addr) if len(self.protocols) < MAX_CONNECTIONS else None

    def logPrefix(self) -> str:
        """What it is called in the log."""
        return "pages"

    def close(self) -> None:
        """End all connections."""
        for connection in tuple(self.protocols):
            connection.abortConnection()


class Pages(Service):
    """
    The pages, on an endpoint.

    As a part of the daemon it listens from before that does until after it
    has drained, so that it can be asked all the while.  A port in use is an
    exception when it is started.

    :ivar port: where it listens; None while it does not.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, factory: PagesFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._listening: Deferred[Any] | None = None
        self.port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen, while the process may still bind to ports under 1024."""
        Service.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """Listen, where that was not done yet."""
        Service.startService(self)
        self._listen()

    def _listen(self) -> None:
        if self._listening is not None:
            return
        failures: list[Failure] = []
        self._listening = self._endpoint.listen(self._factory)
        self._listening.addCallbacks(self._listens, failures.append)
        if failures:
            failures[0].raiseException()

    def _listens(self, port: IListeningPort) -> None:
        self.port = port

    def stopService(self) -> Deferred[Any]:
        """Listen no more, and end all connections."""
        Service.stopService(self)
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        port, self.port = self.port, None
        self._factory.close()
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)
