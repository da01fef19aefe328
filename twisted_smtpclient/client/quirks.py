"""
Servers that offer an extension and break on it, remembered for a while.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ..smtp.policy import Protocol, Server
from .connect import Reactor

#: Seconds: long enough to spare each mail the failure, short enough to see a
#: server mended.
REMEMBERED: Final = 600.0

#: Servers remembered at a time, some 200 octets each, less the endpoints of
#: those that have one, which live as long; the oldest goes.
MAX_SERVERS: Final = 4096

#: What is remembered, of which server.
_Key = tuple[str, int, Protocol, int, str]


class Quirks:
    """
    What is left out with which server.

    :param reactor: for time.
    """

    _log = Logger()

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        #: until when; and the endpoint, whose identity is in the key
        self._until: dict[_Key, tuple[float, object]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def breaks(self, server: Server, keyword: str) -> bool:
        """Whether ``keyword`` is to be left out with this server."""
        if not self._until:
            return False
        remembered = self._until.get(_key(server, keyword))
        return remembered is not None and self._reactor.seconds() < remembered[0]

    def remember(self, server: Server, keyword: str, reason: str) -> None:
        """Leave ``keyword`` out for a while; the log says so once."""
        if not self.breaks(server, keyword):
            self._log.warn(
                "{server} offers {keyword} and breaks on it ({reason}); left out for {seconds:g} s",
                server=_printable(str(server)),
                keyword=keyword,
                reason=_printable(reason),
                seconds=REMEMBERED,
            )
        key = _key(server, keyword)
        self._until.pop(key, None)
        if len(self._until) >= MAX_SERVERS:
            del self._until[next(iter(self._until))]
        self._until[key] = self._reactor.seconds() + REMEMBERED, server.endpoint


def _printable(text: str) -> str:
    """A server's words, and a socket's path, fit for a line of the log."""
    return text if text.isprintable() else repr(text)[1:-1]


def _key(server: Server, keyword: str) -> _Key:
    # Behind another endpoint, localhost is another server.
    return server.host, server.port, server.protocol, id(server.endpoint), keyword
